"""Dictionaries as modules: six encoders against their formulae in numpy, instances against single ones, bad input."""

import copy
import math
from dataclasses import fields

import numpy as np
import pytest
import torch

from utils.sae import SAE, BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, TopK

D, N = 6, 10
ARCHITECTURES = [
    ReLU(0.1), TopK(3), BatchTopK(3), Matryoshka(3, (2, 5)), JumpReLU(0.01), Gated(0.1),
]  # fmt: skip
SEVERAL = [
    ReLU((0.1, 0.2, 0.3)), TopK((1, 4, 2)), BatchTopK([1, 4, 2]), Matryoshka((1, 4, 2), (2, 5)),
    JumpReLU((0.01, 0.02, 0.0)), Gated((0.1, 0.2, 0.0)),
]  # fmt: skip


def name(architecture):
    return type(architecture).__name__


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(architecture, seed=0, dtype=torch.float64, **settings):
    """A dictionary with random numbers in all of its tensors, thresholds of both signs of pre - threshold included."""
    sae = SAE(architecture, D, N, **settings).to(dtype)
    for place, (key, tensor) in enumerate(sorted(sae.state_dict().items())):
        drawn = 0.5 * randn(*tensor.shape, seed=100 * seed + place)
        tensor.copy_(drawn.abs() if key == "threshold" else drawn)
    return sae


def latents_by_hand(sae, x, instance=()):
    """One autoencoder's latents, row by row and latent by latent."""
    p = {key: value.numpy()[instance] for key, value in sae.state_dict().items()}
    architecture = sae.architecture
    z = np.zeros((len(x), sae.n_latents))
    for row, sample in enumerate(x.numpy()):
        read = (sample if sae.is_transcoder else sample - p["b_dec"]) @ p["W_enc"]
        pre = read + p["b_enc"]
        for latent in range(sae.n_latents):
            match architecture:
                case ReLU():
                    z[row, latent] = max(0, pre[latent])
                case TopK(k):
                    k, rank = k if instance == () else k[instance], sum(pre > pre[latent])
                    z[row, latent] = max(0, pre[latent]) if rank < k else 0
                case Gated():
                    size = math.exp(p["gain"][latent]) * read[latent] + p["b_magnitude"][latent]
                    z[row, latent] = max(0, size) if pre[latent] > 0 else 0
                case _:
                    z[row, latent] = pre[latent] if pre[latent] > p["threshold"][latent] else 0
    return torch.from_numpy(z)


def close(a, b, atol=1e-10):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), atol=atol, rtol=0, check_dtype=False)


# --- Encoders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("d_out", [None, 4], ids=["autoencoder", "transcoder"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_latents_and_what_is_written_by_hand(architecture, d_out):
    sae, x = filled(architecture, d_out=d_out), randn(20, D, seed=1)
    z = sae.encode(x)
    by_hand = latents_by_hand(sae, x)
    close(z, by_hand)
    assert z.min() == 0 and 0 < (z > 0).double().mean() < 1
    written = by_hand.numpy() @ sae.W_dec.detach().numpy() + sae.b_dec.detach().numpy()
    close(sae.decode(z), written)
    close(sae(x), written)
    assert sae(x).shape == (20, d_out or D)


@pytest.mark.parametrize("architecture", SEVERAL, ids=name)
def test_several_read_as_each_alone_by_hand(architecture):
    sae, shared, own = filled(architecture), randn(15, D, seed=1), randn(3, 15, D, seed=2)
    assert sae.instances == (3,) and sae.W_enc.shape == (3, D, N) and sae.W_dec.shape == (3, N, D)
    for x in (shared, own):
        z, written = sae.encode(x), sae(x)
        assert z.shape == (3, 15, N) and written.shape == (3, 15, D)
        for i in range(3):
            rows = x if x.dim() == 2 else x[i]
            by_hand = latents_by_hand(sae, rows, i)
            close(z[i], by_hand)
            close(written[i], by_hand @ sae.W_dec[i] + sae.b_dec[i])
            close(sae[i](rows), written[i])


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_a_row_does_not_depend_on_the_others_in_training_or_out_of_it(architecture):
    sae, x = filled(architecture), randn(20, D, seed=1)
    whole = sae.encode(x)
    for mode in (sae.train(), sae.eval()):
        close(mode.encode(x), whole)
        close(mode.encode(x[7:8]), whole[7:8])
        close(mode.encode(torch.cat([100 * x[:3], x[7:8]]))[3:], whole[7:8])


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_one_autoencoder_reads_any_leading_shape(architecture):
    sae, x = filled(architecture), randn(2, 3, 4, D, seed=1)
    flat = sae.encode(x.flatten(0, 2))
    assert sae.encode(x).shape == (2, 3, 4, N)
    close(sae.encode(x).flatten(0, 2), flat)
    close(sae(x).flatten(0, 2), sae(x.flatten(0, 2)))
    assert sae.encode(x[:, :0]).shape == (2, 0, 4, N) and sae(x[:0]).shape == (0, 3, 4, D)
    close(sae.encode(x[1, 2, 3]), flat[-1])


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_one_activation_is_written_as_one(architecture):
    sae, x = filled(architecture), randn(D, seed=1)
    assert sae.decode(sae.encode(x)).shape == (D,)


@pytest.mark.parametrize("architecture", SEVERAL, ids=name)
def test_one_activation_is_read_by_several_or_refused_by_name(architecture):
    sae, x = filled(architecture), randn(D, seed=1)
    try:
        z, written = sae.encode(x), sae(x)
    except ValueError as error:
        assert "x is" in str(error)
    else:
        assert z.shape == (3, N) and written.shape == (3, D)


@pytest.mark.parametrize("k", [1, 3, N])
def test_topk_keeps_exactly_k_and_fewer_where_fewer_are_positive(k):
    sae, x = filled(TopK(k)), randn(200, D, seed=1)
    with torch.no_grad():
        sae.b_enc.fill_(50)
        assert (sae.encode(x) > 0).sum(-1).eq(k).all()
        sae.b_enc.fill_(0)
        positive = (sae.preactivations(x) > 0).sum(-1)
        assert positive.min() < 4 < positive.max()
        assert (sae.encode(x) > 0).sum(-1).equal(positive.clamp_max(k))
        sae.b_enc.fill_(-50)
        assert sae.encode(x).eq(0).all()
        close(sae(x), sae.b_dec.expand(200, D))


def test_topk_keeps_k_of_equal_latents():
    sae = filled(TopK(3))
    with torch.no_grad():
        sae.W_enc.zero_()
        sae.b_enc.fill_(1)
    assert (sae.encode(randn(5, D)) > 0).sum(-1).eq(3).all()


@pytest.mark.parametrize("architecture", [BatchTopK(3), Matryoshka(3, (2,)), JumpReLU(0.1)], ids=name)
def test_a_latent_has_to_exceed_its_threshold_and_zero(architecture):
    sae = filled(architecture)
    with torch.no_grad():
        sae.W_enc.zero_()
        sae.W_enc[0] = 1
        sae.b_enc.zero_()
        sae.b_dec.zero_()
        sae.threshold.fill_(0.5)
        sae.threshold[-1] = 0
    x = torch.zeros(4, D, dtype=torch.float64)
    x[:, 0] = torch.tensor([-1.0, 0.25, 0.5, 0.75])
    z = sae.encode(x)
    assert z[:, 0].tolist() == [0, 0, 0, 0.75] and z[:, -1].tolist() == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_reading_has_the_gradient_of_a_fixed_set_of_active_latents(architecture):
    sae, x = filled(architecture), randn(8, D, seed=1).requires_grad_()
    z, weight = sae.encode(x), randn(8, N, seed=2)
    (ours,) = torch.autograd.grad((z * weight).sum(), x)
    size = sae.gain.exp() if isinstance(architecture, Gated) else torch.ones(N)
    close(ours, (weight * (z > 0) * size) @ sae.W_enc.mT)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_unusual_tensors_are_read_as_any_other(architecture):
    sae, x = filled(architecture, dtype=torch.float32), randn(12, D, seed=1).float()
    plain = sae.encode(x)
    close(sae.encode(x.T.contiguous().T), plain, 1e-5)
    close(sae.encode(x.repeat_interleave(2, dim=0)[::2]), plain, 1e-5)
    close(sae.encode(x[:1].expand(12, D))[5], plain[0], 1e-5)
    close(sae.encode(x.clone().requires_grad_()), plain, 1e-5)
    with torch.inference_mode():
        close(sae.encode(x), plain, 1e-5)
        close(sae(x), sae.decode(plain), 1e-5)
    before = x.clone()
    sae(x)
    assert x.equal(before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("architecture", [ReLU(0.1), JumpReLU(0.1), Gated(0.1), TopK(N)], ids=name)
def test_half_precision_differs_by_rounding(architecture, dtype):
    sae, x = filled(architecture), randn(12, D, seed=1)
    read = copy.deepcopy(sae).to(dtype).encode(x.to(dtype))
    assert read.dtype == dtype
    assert (read.double() - sae.encode(x)).abs().mean() < 0.05 * sae.encode(x).mean()


# --- Start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_a_dictionary_starts_with_unit_rows_and_its_transpose_as_encoder(architecture):
    sae = SAE(architecture, D, N, seed=4)
    close(sae.W_dec.norm(dim=-1), torch.ones(N), 1e-6)
    assert sae.W_enc.equal(sae.W_dec.mT) and sae.W_enc.is_contiguous()
    assert sae.b_dec.eq(0).all() and sae.b_enc.eq(0).all() and sae.history is None and sae.hook is None
    assert (sae.W_dec @ sae.W_dec.T).fill_diagonal_(0).abs().max() < 0.999
    wide = SAE(architecture, 200, 400)
    assert abs(wide.W_dec.mean()) < 1e-3 and (wide.W_dec @ wide.W_dec.T).fill_diagonal_(0).abs().mean() < 0.08


def test_a_transcoder_starts_with_an_encoder_of_its_own():
    same_width = SAE(TopK(2), D, N, d_out=D)
    assert same_width.is_transcoder and not same_width.W_enc.equal(same_width.W_dec.mT)
    other = SAE(TopK(2), D, N, d_out=3)
    assert other.W_dec.shape == (N, 3) and other.b_dec.shape == (3,) and other.W_enc.shape == (D, N)
    close(other.W_dec.norm(dim=-1), torch.ones(N), 1e-6)
    close(other.W_enc.norm(dim=0), torch.ones(N), 1e-6)


def test_seeds():
    one, again, other = SAE(TopK(2), D, N, seed=1), SAE(TopK(2), D, N, seed=1), SAE(TopK(2), D, N, seed=2)
    assert one.W_dec.equal(again.W_dec) and not one.W_dec.equal(other.W_dec)
    both = SAE(TopK(2), D, N, seed=[1, 2])
    assert both.W_dec.equal(torch.stack([one.W_dec, other.W_dec]))
    settings = SAE(TopK([1, 2, 3]), D, N, seed=1)
    assert settings.W_dec.equal(one.W_dec.expand(3, N, D))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    SAE(TopK(2), D, N, seed=7)
    assert torch.rand(2).equal(expected)


def test_one_instance_keeps_its_axis():
    for sae in (SAE(TopK([2]), D, N), SAE(TopK(2), D, N, seed=[5])):
        assert sae.instances == (1,) and sae.encode(randn(4, D).float()).shape == (1, 4, N)
    assert SAE(TopK(2), D, N).instances == ()


# --- One of several -------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", SEVERAL, ids=name)
def test_one_of_several_is_a_module_of_its_own(architecture):
    sae = filled(architecture, dtype=torch.float32, hook="blocks.1.hook_resid_post")
    for i in (0, 1, 2, -1):
        one = sae[i]
        assert one.instances == () and one.hook == sae.hook
        own = getattr(one.architecture, fields(architecture)[0].name)
        assert own == getattr(architecture, fields(architecture)[0].name)[i]
        assert {key: list(value.shape) for key, value in one.state_dict().items()} == {
            key: list(value.shape[1:]) for key, value in sae.state_dict().items()
        }
        for key, value in one.state_dict().items():
            assert value.equal(sae.state_dict()[key][i])
    with torch.no_grad():
        sae[0].W_dec.zero_()
    assert sae.W_dec[0].ne(0).any()
    assert len(list(sae)) == 3
    for i in (3, -4):
        with pytest.raises(IndexError, match=rf"instance {i} of instances \(3,\)"):
            sae[i]


def test_an_instance_of_a_transcoder_is_a_transcoder():
    several = filled(TopK([1, 2]), d_out=4)
    assert several[1].is_transcoder and several[1].d_out == 4
    same_width = filled(TopK([1, 2]), d_out=D)
    assert same_width[0].is_transcoder
    x = randn(5, D)
    close(several[1](x), several(x)[1])


def test_one_alone_has_no_instances_to_pick():
    with pytest.raises(IndexError, match=r"instance 0 of instances \(\)"):
        SAE(TopK(2), D, N)[0]


def test_an_instance_keeps_whether_it_has_gradients():
    sae = SAE(TopK([1, 2]), D, N)
    assert all(p.requires_grad for p in sae[0].parameters())
    assert not any(p.requires_grad for p in sae.requires_grad_(False)[0].parameters())


def test_an_instance_of_a_float64_dictionary_is_exact():
    sae = filled(TopK([1, 2]))
    assert sae[1].W_dec.dtype == torch.float64
    assert sae[1].W_dec.equal(sae.W_dec[1])


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *SEVERAL], ids=name)
def test_copies_and_saved_weights_read_the_same(architecture, tmp_path):
    sae, x = filled(architecture), randn(7, D, seed=1)
    close(copy.deepcopy(sae)(x), sae(x))
    torch.save(sae.state_dict(), tmp_path / "weights.pt")
    again = SAE(architecture, D, N, seed=9 if sae.instances == () else [9, 9, 9]).double()
    again.load_state_dict(torch.load(tmp_path / "weights.pt"))
    close(again(x), sae(x))
    assert name(architecture) in repr(sae) and f"n_latents={N}" in repr(sae)


# --- Bad input ------------------------------------------------------------------------------------

BAD_SETTINGS = [
    (lambda: SAE(TopK(N + 1), D, N), ValueError, "k is 11, expected at most 10, the number of latents"),
    (lambda: SAE(TopK([2, N + 1]), D, N), ValueError, "k is 11, expected at most 10"),
    (lambda: SAE(BatchTopK(N + 1), D, N), ValueError, "k is 11"),
    (lambda: SAE(Matryoshka(N + 1, (2,)), D, N), ValueError, "k is 11"),
    (lambda: SAE(TopK(0), D, N), ValueError, "k is 0, expected at least 1"),
    (lambda: SAE(BatchTopK([1, -1]), D, N), ValueError, "k is -1"),
    (lambda: SAE(TopK(2.0), D, N), TypeError, "k is 2.0"),
    (lambda: SAE(TopK(True), D, N), TypeError, "k is True"),
    (lambda: SAE(TopK("3"), D, N), TypeError, "k is '3'"),
    (lambda: SAE(TopK([]), D, N), ValueError, "k and seed"),
    (lambda: SAE(TopK([1, 2]), D, N, seed=[1, 2, 3]), ValueError, r"k and seed .*\[2, 3\]"),
    (lambda: SAE(ReLU(-0.1), D, N), ValueError, "l1 is -0.1"),
    (lambda: SAE(ReLU([0.1, math.nan]), D, N), ValueError, "l1 is nan"),
    (lambda: SAE(Gated(math.inf), D, N), ValueError, "l1 is inf"),
    (lambda: SAE(Gated(None), D, N), TypeError, "l1 is None"),
    (lambda: SAE(JumpReLU(-1.0), D, N), ValueError, "l0 is -1.0"),
    (lambda: SAE(JumpReLU(0.1, bandwidth=0.0), D, N), ValueError, "bandwidth is 0.0"),
    (lambda: SAE(JumpReLU(0.1, bandwidth="wide"), D, N), TypeError, "bandwidth is 'wide'"),
    (lambda: SAE(Matryoshka(2, ()), D, N), ValueError, r"sizes is \(\)"),
    (lambda: SAE(Matryoshka(2, (4, 4)), D, N), ValueError, "sizes is .*, expected rising numbers of at most 10"),
    (lambda: SAE(Matryoshka(2, (5, 3)), D, N), ValueError, "sizes"),
    (lambda: SAE(Matryoshka(2, (4, N + 1)), D, N), ValueError, "sizes"),
    (lambda: SAE(Matryoshka(2, (0, 4)), D, N), ValueError, "sizes is 0"),
    (lambda: SAE(Matryoshka(2, (1.5,)), D, N), TypeError, "sizes is 1.5"),
    (lambda: SAE(TopK(2), 0, N), ValueError, "d_in is 0"),
    (lambda: SAE(TopK(2), D, 0), ValueError, "n_latents is 0"),
    (lambda: SAE(TopK(2), D, 10.0), TypeError, "n_latents is 10.0"),
    (lambda: SAE(TopK(2), D, N, d_out=0), ValueError, "d_out is 0"),
    (lambda: SAE(TopK(2), D, N, seed=-1), ValueError, "seed is -1"),
    (lambda: SAE(TopK(2), D, N, seed=[0, 1.5]), TypeError, "seed is 1.5"),
    (lambda: SAE(TopK(2), D, N, seed=[]), ValueError, "seed"),
    (lambda: SAE("TopK", D, N), TypeError, "architecture is 'TopK', expected one of ReLU, TopK"),
    (lambda: SAE(TopK, D, N), TypeError, "architecture is .*, expected one of"),
    (lambda: SAE(None, D, N), TypeError, "architecture is None"),
]


@pytest.mark.parametrize(("call", "error", "says"), BAD_SETTINGS)
def test_bad_settings_are_named(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.zeros(3, D + 1), r"x is torch.float32 \[3, 7\], expected activations torch.float32 \[.*, 6\]"),
        (torch.zeros(D, 3), r"x is torch.float32 \[6, 3\]"),
        (torch.zeros(3, D).long(), r"x is torch.int64 \[3, 6\]"),
        (torch.zeros(3, D).bool(), "x is torch.bool"),
        (torch.tensor(1.0), r"x is torch.float32 \[\]"),
        (np.zeros((3, D)), "x is ndarray"),
        (None, "x is NoneType"),
        (torch.zeros(3, D).index_fill(1, torch.tensor([2]), math.nan), r"x holds 3 NaN .* first at \[0, 2\]"),
        (torch.zeros(3, D).fill_(-math.inf), "x holds 18 NaN or infinite values"),
    ],
    ids=str,
)
def test_bad_activations_are_named(x, says, several):
    sae = SAE(TopK([1, 2]) if several else TopK(2), D, N)
    for call in (sae, sae.encode):
        with pytest.raises(ValueError, match=says):
            call(x)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: SAE(TopK(2), D, N)(torch.zeros(3, D).double()), "x is"),
        (lambda: SAE(TopK([1, 2]), D, N)(torch.zeros(3, 5, D)), "x is"),
        (lambda: SAE(Matryoshka(2, 4), D, N), "sizes is 4"),
    ],
    ids=["another dtype", "another number of instances", "sizes as a number"],
)
def test_bad_input_is_named_and_not_left_to_torch(call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call()


@pytest.mark.parametrize(
    "make",
    [
        lambda: SAE(TopK(np.int64(3)), D, N),
        pytest.param(lambda: SAE(TopK(3), D, N, seed=np.int64(3)), id="seed"),
    ],
)
def test_numpy_integers_are_integers(make):
    assert (make().encode(torch.ones(2, D)) > 0).sum(-1).le(3).all()
