"""Files of dictionaries: round trips, refusals, and published ones against the numbers of sae-lens itself."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from utils import models, sae
from utils.datasets import world
from utils.sae import SAE, BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, TopK

PUBLISHED = Path(__file__).parent / "fixtures" / "published_sae"
ARCHITECTURES = [
    ReLU(0.1),
    TopK(3),
    BatchTopK(3),
    Matryoshka(3, sizes=(4, 7)),
    JumpReLU(0.01, bandwidth=0.3),
    Gated(0.2),
]
SEVERAL = [
    ReLU((0.1, 1 / 3)),
    TopK((2, 3)),
    BatchTopK((1, 4)),
    Matryoshka((2, 3), sizes=(5,)),
    JumpReLU((0.0, 0.01)),
    Gated((0.2, 1e-7)),
]


def named(value):
    return type(value).__name__


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(architecture, d_out=None, seed=0, hook="blocks.2.hook_resid_post"):
    """A dictionary whose every number matters."""
    one = SAE(architecture, 6, 10, d_out=d_out, seed=seed, hook=hook)
    for place, value in enumerate(one.state_dict().values()):
        value.add_(0.2 * randn(*value.shape, seed=place))
    if hasattr(one, "threshold"):
        one.threshold.data.abs_()
    return one


def same(a, b):
    assert a.architecture == b.architecture
    assert (a.d_in, a.n_latents, a.d_out, a.is_transcoder) == (b.d_in, b.n_latents, b.d_out, b.is_transcoder)
    assert (a.instances, a.hook) == (b.instances, b.hook)
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, value in a.state_dict().items():
        assert value.dtype == b.state_dict()[name].dtype and value.equal(b.state_dict()[name]), name
    x = randn(*a.instances, 20, 6, seed=99).to(a.W_dec)
    assert a.encode(x).equal(b.encode(x)) and a(x).equal(b(x))


# --- The course's own: round trips ----------------------------------------------------------------


@pytest.mark.parametrize("d_out", [None, 4], ids=["autoencoder", "transcoder"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=named)
def test_round_trip_is_exact(tmp_path, architecture, d_out):
    one = made(architecture, d_out)
    sae.save(one, tmp_path / "one.safetensors")
    read = sae.load(tmp_path / "one.safetensors")
    same(read, one)
    assert not read.training and not any(value.requires_grad for value in read.parameters())


@pytest.mark.parametrize("d_out", [None, 4], ids=["autoencoder", "transcoder"])
@pytest.mark.parametrize("architecture", SEVERAL, ids=named)
def test_round_trip_of_several_is_exact(tmp_path, architecture, d_out):
    several = made(architecture, d_out)
    sae.save(several, str(tmp_path / "several"))
    read = sae.load(str(tmp_path / "several"))
    assert read.instances == (2,)
    same(read, several)
    same(read[1], several[1])


@pytest.mark.parametrize("seed", [[0, 1, 2], [5]])
def test_round_trip_of_several_that_differ_by_seed_only(tmp_path, seed):
    several = made(TopK(3), seed=seed)
    sae.save(several, tmp_path / "several")
    read = sae.load(tmp_path / "several")
    same(read, several)
    assert read.instances == (len(seed),) and read.architecture.k == 3


def test_transcoder_of_equal_widths_stays_one(tmp_path):
    sae.save(made(ReLU(0.1), d_out=6), tmp_path / "transcoder")
    assert sae.load(tmp_path / "transcoder").is_transcoder
    sae.save(made(ReLU(0.1), hook=None), tmp_path / "autoencoder")
    read = sae.load(tmp_path / "autoencoder")
    assert not read.is_transcoder and read.hook is None


def test_settings_of_any_sort_of_number(tmp_path):
    sae.save(made(TopK([np.int64(2), 3])), tmp_path / "a")
    assert sae.load(tmp_path / "a").architecture == TopK((2, 3))
    sae.save(made(ReLU(np.float32(0.1))), tmp_path / "b")
    assert sae.load(tmp_path / "b").architecture.l1 == float(np.float32(0.1))
    sae.save(made(Matryoshka(3, sizes=[4, 7])), tmp_path / "c")
    assert sae.load(tmp_path / "c").architecture == Matryoshka(3, sizes=(4, 7))


def test_round_trip_after_training(tmp_path):
    trained = sae.train(randn(200, 6), BatchTopK(2), 10, steps=20, batch_size=50, hook="blocks.0.hook_resid_pre")
    sae.save(trained, tmp_path / "trained")
    read = sae.load(tmp_path / "trained")
    same(read, trained)
    assert trained.history is not None and read.history is None


def test_double_precision_is_kept(tmp_path):
    one = made(Gated(0.2)).double()
    one.W_enc.data += 1e-12
    sae.save(one, tmp_path / "one")
    same(sae.load(tmp_path / "one"), one)


def test_the_file_says_what_it_holds(tmp_path):
    sae.save(made(Matryoshka((2, 3), sizes=(5,)), d_out=4), tmp_path / "one")
    with safe_open(tmp_path / "one", framework="pt") as file:
        assert file.metadata() == {
            "format": "ground-truth sae, 1",
            "architecture": '"Matryoshka"',
            "settings": '{"k": [2, 3], "sizes": [5]}',
            "d_in": "6",
            "n_latents": "10",
            "d_out": "4",
            "is_transcoder": "true",
            "instances": "[2]",
            "hook": '"blocks.2.hook_resid_post"',
        }


# --- Half precision -------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=named)
def test_half_precision_is_the_rounded_weights(tmp_path, architecture):
    one = made(architecture)
    sae.save(one, tmp_path / "half", dtype=torch.float16)
    read = sae.load(tmp_path / "half")
    assert load_file(tmp_path / "half")["W_dec"].dtype == torch.float16
    for name, value in read.state_dict().items():
        assert value.dtype == torch.float32 and value.equal(one.state_dict()[name].half().float()), name
    assert one.W_dec.dtype == torch.float32
    x = randn(20, 6, seed=99)
    assert (read.preactivations(x) - one.preactivations(x)).abs().max() < 0.02


def test_half_precision_halves_the_file_and_keeps_lengths(tmp_path):
    one = SAE(TopK(4), 64, 500)
    lengths = {}
    for name, dtype in (("float16", torch.float16), ("bfloat16", torch.bfloat16), ("whole", None)):
        sae.save(one, tmp_path / name, dtype=dtype)
        lengths[name] = sae.load(tmp_path / name).W_dec.norm(dim=-1)
    assert 2 * (tmp_path / "float16").stat().st_size == pytest.approx((tmp_path / "whole").stat().st_size, rel=0.02)
    assert (lengths["float16"] - 1).abs().max() < 5e-4
    assert (lengths["bfloat16"] - 1).abs().max() < 4e-3
    assert lengths["whole"].equal(one.W_dec.norm(dim=-1))


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    one = made(ReLU(0.1))
    one.b_dec.data[3] = 1e5
    with pytest.raises(ValueError, match=r"b_dec \(as torch.float16\).*\[3\]"):
        sae.save(one, tmp_path / "one", dtype=torch.float16)
    sae.save(one, tmp_path / "one", dtype=torch.bfloat16)
    for dtype in (torch.int8, torch.float64, "float16"):
        with pytest.raises(ValueError, match="dtype is"):
            sae.save(one, tmp_path / "two", dtype=dtype)
    assert not (tmp_path / "two").exists()


# --- The course's own: refusals -------------------------------------------------------------------


def rewritten(path, change=None, metadata=None, architecture=None, **settings):
    """A saved dictionary with other tensors or another description."""
    sae.save(made(architecture or TopK(3), **settings), path)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        described = file.metadata()
    if change:
        change(tensors)
    for name, value in (metadata or {}).items():
        if value is None:
            del described[name]
        else:
            described[name] = value
    save_file(tensors, path, metadata=described)
    return path


def test_unchanged_the_rewritten_file_loads(tmp_path):
    same(sae.load(rewritten(tmp_path / "one")), made(TopK(3)))


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    for bad in (math.nan, math.inf):
        one = made(ReLU(0.1))
        one.W_enc.data[2, 7] = bad
        with pytest.raises(ValueError, match=r"W_enc.*\[2, 7\]"):
            sae.save(one, tmp_path / "never")
        with pytest.raises(ValueError, match=r"W_enc.*\[2, 7\]"):
            sae.load(rewritten(tmp_path / "one", lambda t, bad=bad: t["W_enc"][2, 7].fill_(bad)))
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=named)
def test_every_tensor_is_needed_and_no_other_allowed(tmp_path, architecture):
    for name in made(architecture).state_dict():
        with pytest.raises(ValueError, match=f"lacks {name};"):
            sae.load(rewritten(tmp_path / "one", lambda t, name=name: t.pop(name), architecture=architecture))
    with pytest.raises(ValueError, match="also holds W_skip;"):
        sae.load(rewritten(tmp_path / "one", lambda t: t.update(W_skip=randn(6, 6)), architecture=architecture))


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec", "threshold"])
def test_other_shapes_are_refused(tmp_path, name):
    for change in (lambda t: t.update({name: t[name][:-1].clone()}), lambda t: t.update({name: t[name][None]})):
        with pytest.raises(ValueError, match=f"{name}.*expected"):
            sae.load(rewritten(tmp_path / "one", change, architecture=JumpReLU(0.1)))


def test_other_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"b_enc.*torch.int64.*expected floats"):
        sae.load(rewritten(tmp_path / "one", lambda t: t.update(b_enc=t["b_enc"].long())))
    with pytest.raises(ValueError, match="different precision"):
        sae.load(rewritten(tmp_path / "one", lambda t: t.update(b_enc=t["b_enc"].double())))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "ground-truth sae, 2"}, "format: 'ground-truth sae, 2'"),
        ({"format": "ground-truth tuned lens, 1"}, "no dictionary of this course"),
        ({"format": None}, "format: None"),
        ({"hook": None}, "'hook'"),
        ({"hook": "7"}, "hook 7"),
        ({"settings": None}, "'settings'"),
        ({"settings": '{"k": 3'}, "does not say"),
        ({"settings": '{"l1": 3}'}, "settings are"),
        ({"settings": "[3]"}, "settings are"),
        ({"settings": "3"}, "does not say"),
        ({"settings": '{"k": 3, "sizes": [1]}'}, "settings are"),
        ({"settings": '{"k": 11}'}, "k is 11"),
        ({"settings": '{"k": 2.5}'}, "k is 2.5"),
        ({"settings": '{"k": "3"}'}, "k is '3'"),
        ({"settings": '{"k": [3, 4]}'}, "instances is"),
        ({"architecture": '"AbsTopK"'}, "architecture is 'AbsTopK'"),
        ({"architecture": '["TopK"]'}, "does not say"),
        ({"architecture": '"JumpReLU"'}, "settings are"),
        ({"d_in": "7"}, "d_out is 6 and d_in 7"),
        ({"d_in": "7", "is_transcoder": "true"}, "W_enc"),
        ({"d_in": "0", "is_transcoder": "true"}, "d_in is 0"),
        ({"d_in": "1e3", "is_transcoder": "true"}, "d_in is 1000.0"),
        ({"d_in": "9" * 30, "is_transcoder": "true"}, "does not say"),
        ({"d_in": "1" + "0" * 18, "is_transcoder": "true"}, "does not say"),
        ({"d_out": "5"}, "W_dec is"),
        ({"n_latents": "9"}, "W_dec is"),
        ({"is_transcoder": "1"}, "is_transcoder is 1"),
        ({"instances": "[2]"}, "W_dec is"),
        ({"instances": "2"}, "does not say"),
    ],
)
def test_other_descriptions_are_refused(tmp_path, metadata, message):
    with pytest.raises(ValueError) as raised:
        sae.load(rewritten(tmp_path / "one", metadata=metadata))
    assert message in str(raised.value) and "one" in str(raised.value)


def test_instances_have_to_fit_the_settings(tmp_path):
    path = rewritten(tmp_path / "one", metadata={"settings": '{"k": [2, 3, 4]}'}, architecture=TopK((2, 3)))
    with pytest.raises(ValueError, match="does not say what dictionary it is, or contradicts itself"):
        sae.load(path)


def test_what_is_no_such_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no saved dictionary"):
        sae.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        sae.load(tmp_path)
    (tmp_path / "text").write_text("not tensors")
    with pytest.raises(ValueError, match="damaged or no safetensors"):
        sae.load(tmp_path / "text")
    torch.save(made(TopK(3)).state_dict(), tmp_path / "pickle")
    with pytest.raises(ValueError, match="damaged or no safetensors"):
        sae.load(tmp_path / "pickle")
    sae.save(made(TopK(3)), tmp_path / "short")
    (tmp_path / "short").write_bytes((tmp_path / "short").read_bytes()[:-40])
    with pytest.raises(ValueError, match="damaged or no safetensors"):
        sae.load(tmp_path / "short")
    save_file(made(TopK(3)).state_dict(), tmp_path / "bare")
    with pytest.raises(ValueError, match="format: None"):
        sae.load(tmp_path / "bare")


# --- Published: against sae-lens's own numbers ----------------------------------------------------

KINDS = {
    "standard": ReLU(0.0),
    "topk": TopK(3),
    "gated": Gated(0.0),
    "jumprelu": JumpReLU(0.0),
    "jumprelu_transcoder": JumpReLU(0.0),
}


@pytest.mark.parametrize("name", KINDS)
def test_latents_and_output_are_those_of_sae_lens(name):
    expected = load_file(PUBLISHED / name / "expected.safetensors")
    read = sae.load_published(PUBLISHED / name)
    latents, written = read.encode(expected["x"]), read(expected["x"])
    assert 0.15 < (expected["latents"] > 0).float().mean() < 0.6
    assert (latents > 0).equal(expected["latents"] > 0)
    torch.testing.assert_close(latents, expected["latents"], atol=1e-5, rtol=0)
    torch.testing.assert_close(written, expected["written"], atol=1e-5, rtol=0)
    assert read.architecture == KINDS[name] and read.hook == "blocks.8.hook_resid_pre"
    assert read.is_transcoder == ("transcoder" in name) and read.instances == ()
    assert not read.training and not any(value.requires_grad for value in read.parameters())
    assert {value.dtype for value in read.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("name", KINDS)
def test_decoder_rows_stay_as_published_unless_its_own_encoder_multiplies_by_their_length(name):
    theirs = load_file(PUBLISHED / name / "sae_weights.safetensors")["W_dec"].float()
    ours = sae.load_published(PUBLISHED / name).W_dec
    if name == "topk":
        torch.testing.assert_close(ours, theirs / theirs.norm(dim=-1, keepdim=True))
    else:
        assert ours.equal(theirs)
    if name != "jumprelu":  # sae-lens had normalised these itself
        assert (theirs.norm(dim=-1) - 1).abs().max() > 0.2


@pytest.mark.parametrize("name", KINDS)
def test_published_ones_can_be_saved_as_our_own(tmp_path, name):
    read = sae.load_published(PUBLISHED / name)
    sae.save(read, tmp_path / "ours")
    same(sae.load(tmp_path / "ours"), read)


# --- Published: the layouts of all versions, written by hand --------------------------------------


def tensors_of(kind, d_out=6):
    biases = {"gated": ("b_gate", "r_mag", "b_mag"), "jumprelu": ("b_enc", "threshold")}
    shapes = {"W_enc": (6, 10), "W_dec": (10, d_out), "b_dec": (d_out,)}
    shapes |= {name: (10,) for name in biases.get(kind.removesuffix("_transcoder"), ("b_enc",))}
    tensors = {name: randn(*shape, seed=seed) for seed, (name, shape) in enumerate(sorted(shapes.items()))}
    if "threshold" in tensors:
        tensors["threshold"] = tensors["threshold"].abs()
    return tensors


def config_of(kind, **settings):
    """As version 6 writes it."""
    return {
        "d_in": 6,
        "d_sae": 10,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.12.1", "model_name": "gpt2-small", "hook_name": "blocks.8.hook_resid_pre"},
        "architecture": kind,
        **({"k": 3, "rescale_acts_by_decoder_norm": False} if kind == "topk" else {}),
        **settings,
    }


def older(kind, **settings):
    """As versions 3 to 5 write it: no metadata, the activation function apart from the architecture."""
    return {
        "architecture": kind,
        "d_in": 6,
        "d_sae": 10,
        "dtype": "torch.float32",
        "device": "cuda",
        "model_name": "gpt2-small",
        "hook_name": "blocks.8.hook_resid_pre",
        "hook_layer": 8,
        "hook_head_index": None,
        "activation_fn_str": "relu",
        "activation_fn_kwargs": {},
        "apply_b_dec_to_input": True,
        "finetuning_scaling_factor": False,
        "sae_lens_training_version": "3.22.2",
        "prepend_bos": True,
        "normalize_activations": "none",
        "model_from_pretrained_kwargs": {},
        **settings,
    }


def put(folder, config, tensors):
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "sae_weights.safetensors")
    return folder


def reference(kind, t, x, subtract=True, k=3, rescale=False):
    """Latents and output as sae-lens defines them, in double precision."""
    t = {name: value.double() for name, value in t.items()}
    centred = x.double() - t["b_dec"] if subtract else x.double()
    pre = centred @ t["W_enc"]
    if kind == "gated":
        z = (pre + t["b_gate"] > 0) * (centred @ (t["W_enc"] * t["r_mag"].exp()) + t["b_mag"]).relu()
        return z, z @ t["W_dec"] + t["b_dec"]
    pre = pre + t["b_enc"]
    lengths = t["W_dec"].norm(dim=-1) if rescale else torch.ones(10, dtype=torch.double)
    if kind == "topk":
        pre = pre * lengths
        least = pre.sort(dim=-1, descending=True).values[:, k - 1 : k]
        z = pre.relu() * (pre >= least)
    elif kind == "jumprelu":
        z = pre.relu() * (pre > t["threshold"])
    else:
        z = pre.relu()
    return z, (z / lengths) @ t["W_dec"] + t["b_dec"]


def compare(read, z, written, x):
    assert 0.1 < (z > 0).double().mean() < 0.8
    torch.testing.assert_close(read.encode(x).double(), z, atol=2e-5, rtol=0)
    torch.testing.assert_close(read(x).double(), written, atol=5e-5, rtol=0)


X = randn(30, 6, seed=77)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("layout", [config_of, older])
@pytest.mark.parametrize("kind", ["standard", "topk", "jumprelu", "gated"])
def test_layouts_of_versions_3_to_6(tmp_path, kind, layout, subtract):
    tensors, settings = tensors_of(kind), {"apply_b_dec_to_input": subtract}
    if layout is older and kind == "topk":
        settings |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}
    read = sae.load_published(put(tmp_path, layout(kind, **settings), tensors))
    compare(read, *reference(kind, tensors, X, subtract), X)
    assert read.W_dec.equal(tensors["W_dec"]) and read.W_enc.equal(tensors["W_enc"])
    assert read.hook == "blocks.8.hook_resid_pre"


def test_topk_before_version_5_is_a_standard_one_with_another_activation(tmp_path):
    tensors = tensors_of("topk")
    config = older("standard", activation_fn_str="topk", activation_fn_kwargs={"k": 4})
    read = sae.load_published(put(tmp_path, config, tensors))
    assert read.architecture == TopK(4)
    compare(read, *reference("topk", tensors, X, k=4), X)


def test_the_oldest_layout(tmp_path):
    """Of the first GPT-2 dictionaries: other names, no architecture, scaling factors of 1 that are not used."""
    tensors = tensors_of("standard") | {"scaling_factor": torch.ones(10)}
    config = {
        "model_name": "gpt2-small",
        "hook_point": "blocks.8.hook_resid_pre",
        "hook_point_layer": 8,
        "hook_point_head_index": None,
        "d_in": 6,
        "d_sae": 10,
        "dtype": "torch.float32",
        "device": "mps",
        "l1_coefficient": 8e-05,
    }
    read = sae.load_published(put(tmp_path, config, tensors))
    assert read.hook == "blocks.8.hook_resid_pre" and read.architecture == ReLU(0.0)
    compare(read, *reference("standard", tensors, X), X)
    config |= {"normalize_activations": False, "activation_fn": "relu"}
    same(sae.load_published(put(tmp_path, config, tensors)), read)
    with pytest.raises(ValueError, match="scaling_factor holds factors other than 1"):
        sae.load_published(put(tmp_path, config, tensors | {"scaling_factor": torch.linspace(1, 1.2, 10)}))


@pytest.mark.parametrize("subtract", [True, False])
def test_lengths_of_decoder_rows_are_folded_where_the_encoder_uses_them(tmp_path, subtract):
    tensors = tensors_of("topk")
    config = config_of("topk", rescale_acts_by_decoder_norm=True, apply_b_dec_to_input=subtract)
    read = sae.load_published(put(tmp_path, config, tensors))
    z, written = reference("topk", tensors, X, subtract, rescale=True)
    compare(read, z, written, X)
    assert not torch.allclose(z, reference("topk", tensors, X, subtract)[0], atol=0.1)
    tensors["W_dec"][4] = 0
    with pytest.raises(ValueError, match=r"rescale_acts_by_decoder_norm is True.*length 0: \[4\]"):
        sae.load_published(put(tmp_path, config, tensors))


@pytest.mark.parametrize("kind", ["transcoder", "jumprelu_transcoder"])
def test_transcoders(tmp_path, kind):
    tensors = tensors_of(kind, d_out=4)
    config = config_of(kind, d_out=4, apply_b_dec_to_input=False)
    config["metadata"]["hook_name_out"] = "blocks.8.hook_mlp_out"
    read = sae.load_published(put(tmp_path, config, tensors))
    assert read.is_transcoder and read.d_out == 4 and read.hook == "blocks.8.hook_resid_pre"
    plain = {"transcoder": "standard", "jumprelu_transcoder": "jumprelu"}[kind]
    compare(read, *reference(plain, tensors, X, subtract=False), X)
    with pytest.raises(ValueError, match="apply_b_dec_to_input is True"):
        sae.load_published(put(tmp_path, config | {"apply_b_dec_to_input": True}, tensors))
    del config["d_out"]
    with pytest.raises(ValueError, match="d_out is None"):
        sae.load_published(put(tmp_path, config, tensors))


@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka_batchtopk"])
def test_training_checkpoints_are_read_as_what_is_published_of_them(tmp_path, kind):
    tensors = tensors_of("standard") | {"topk_threshold": torch.tensor(1.5, dtype=torch.float64)}
    for rescale in (False, True):
        config = config_of(kind, k=2.5, rescale_acts_by_decoder_norm=rescale)
        read = sae.load_published(put(tmp_path, config, tensors))
        assert isinstance(read.architecture, JumpReLU)
        lengths = tensors["W_dec"].norm(dim=-1) if rescale else torch.ones(10)
        folded = tensors | {"W_enc": tensors["W_enc"] * lengths, "b_enc": tensors["b_enc"] * lengths}
        folded |= {"W_dec": tensors["W_dec"] / lengths[:, None], "threshold": torch.full((10,), 1.5)}
        compare(read, *reference("jumprelu", folded, X), X)


def test_thresholds_may_be_kept_as_logarithms(tmp_path):
    tensors = tensors_of("jumprelu")
    wanted = reference("jumprelu", tensors, X)
    tensors["log_threshold"] = tensors.pop("threshold").log()
    compare(sae.load_published(put(tmp_path, config_of("jumprelu"), tensors)), *wanted, X)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["standard", "gated", "jumprelu", "topk"])
def test_any_precision_becomes_float32(tmp_path, kind, dtype):
    tensors = {name: value.to(dtype) for name, value in tensors_of(kind).items()}
    read = sae.load_published(put(tmp_path, config_of(kind, dtype=str(dtype)), tensors))
    assert {value.dtype for value in read.state_dict().values()} == {torch.float32}
    compare(read, *reference(kind, tensors, X), X)


def test_settings_that_change_nothing_are_accepted(tmp_path):
    tensors = tensors_of("standard")
    wanted = sae.load_published(put(tmp_path, config_of("standard"), tensors))
    for settings in (
        {"normalize_activations": None},
        {"normalize_activations": False},
        {"finetuning_scaling_factor": False},
        {"activation_fn": "relu", "activation_fn_str": "relu", "activation_fn_kwargs": {"k": 100}},
        {"rescale_acts_by_decoder_norm": False, "decoder_init_norm": 0.1, "l1_coefficient": 5, "noise_scale": 0.1},
        {"hook_name": "blocks.8.hook_resid_pre", "hook_head_index": None, "seqpos_slice": [None]},
    ):
        same(sae.load_published(put(tmp_path, config_of("standard", **settings), tensors)), wanted)
    ones = {"scaling_factor": torch.ones(10), "finetuning_scaling_factor": torch.ones(10)}
    config = config_of("standard", finetuning_scaling_factor=True)
    same(sae.load_published(put(tmp_path, config, tensors | ones)), wanted)


def test_hook_point_may_be_unknown(tmp_path):
    config = config_of("standard")
    del config["metadata"]
    assert sae.load_published(put(tmp_path, config, tensors_of("standard"))).hook is None


def test_hook_points_are_those_of_a_model(tmp_path):
    model = models.load("world", device="cpu")
    tensors = {"W_enc": randn(128, 10), "W_dec": randn(10, 128), "b_enc": randn(10), "b_dec": randn(128)}
    config = config_of("standard", d_in=128, metadata={"hook_name": "blocks.2.hook_resid_pre"})
    read = sae.load_published(put(tmp_path, config, tensors))
    tokens = torch.from_numpy(world.corpus(4, seed=1).rows).long()
    x = sae.activations(model, tokens, read.hook)
    z, _ = reference("standard", tensors, x)
    torch.testing.assert_close(read.encode(x).double(), z, atol=1e-3, rtol=1e-4)
    assert math.isfinite(sae.loss_recovered(model, read, tokens).spliced)


# --- Published: refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("standard", {"normalize_activations": "layer_norm"}, "normalize_activations is 'layer_norm'"),
        ("standard", {"normalize_activations": "constant_norm_rescale"}, "'constant_norm_rescale'.*with sae-lens"),
        ("standard", {"normalize_activations": "expected_average_only_in"}, "multiply W_enc by it, divide W_dec"),
        ("standard", {"normalize_activations": "covariance_whitening"}, "fold_activation_whitening"),
        ("standard", {"normalize_activations": True}, "normalize_activations is True.*multiply W_enc by it"),
        ("standard", {"normalize_activations": "other"}, "normalize_activations is 'other'"),
        ("standard", {"normalize_activations": ["none"]}, "normalize_activations is"),
        ("standard", {"reshape_activations": "hook_z"}, "reshape_activations is 'hook_z'"),
        ("standard", {"finetuning_scaling_factor": True}, "finetuning_scaling_factor is True"),
        ("standard", {"finetuning_scaling_factor": "no"}, "finetuning_scaling_factor is 'no'"),
        ("standard", {"activation_fn": "tanh-relu"}, "activation_fn is 'tanh-relu'"),
        ("standard", {"activation_fn_str": "tanh-relu"}, "activation_fn_str is 'tanh-relu'"),
        ("standard", {"activation_fn": "relu", "activation_fn_str": "tanh-relu"}, "contradicts itself"),
        ("gated", {"activation_fn": "topk", "activation_fn_kwargs": {"k": 2}}, "activation_fn is 'topk'.*'gated'"),
        ("topk", {"activation_fn": "relu"}, "activation_fn is 'relu', expected 'topk'"),
        ("topk", {"activation_fn_kwargs": {"k": 3, "postact_fn": "tanh"}}, "activation_fn_kwargs is .*postact_fn"),
        ("topk", {"activation_fn_kwargs": {"k": 4}}, "k is 3, but 4"),
        ("topk", {"activation_fn_kwargs": [3]}, "activation_fn_kwargs is"),
        ("topk", {"k": None}, "k is None"),
        ("topk", {"k": 2.5}, "k is 2.5"),
        ("topk", {"k": True}, "k is True"),
        ("topk", {"k": 0}, "k is 0"),
        ("topk", {"k": 11}, "k is 11.*10"),
        ("topk", {"rescale_acts_by_decoder_norm": "yes"}, "rescale_acts_by_decoder_norm is 'yes'"),
        ("standard", {"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder_norm is True"),
        ("standard", {"apply_b_dec_to_input": None}, "apply_b_dec_to_input is None"),
        ("standard", {"apply_b_dec_to_input": 0}, "apply_b_dec_to_input is 0"),
        ("standard", {"architecture": "abstopk"}, "architecture is 'abstopk', expected one of standard, topk"),
        ("standard", {"architecture": "skip_transcoder"}, "architecture is 'skip_transcoder'.*linear map"),
        ("standard", {"architecture": "jumprelu_skip_transcoder"}, "linear map"),
        ("standard", {"architecture": "temporal"}, "architecture is 'temporal'"),
        ("standard", {"architecture": ["standard"]}, "architecture is"),
        ("standard", {"architecture": "gated"}, "lacks b_gate, b_mag, r_mag and also holds b_enc"),
        ("standard", {"architecture": "jumprelu"}, "lacks threshold"),
        ("jumprelu", {"architecture": "standard"}, "also holds threshold"),
        ("standard", {"d_in": 5}, "is torch.float32"),
        ("standard", {"d_sae": 11}, "is torch.float32"),
        ("standard", {"d_sae": None}, "d_sae is None"),
        ("standard", {"d_in": "6"}, "d_in is '6'"),
        ("standard", {"d_in": 6.0}, "d_in is 6.0"),
        ("standard", {"d_in": -6}, "d_in is -6"),
        ("standard", {"d_out": 4}, "d_out is 4"),
        ("standard", {"hook_name": "blocks.7.hook_resid_pre"}, "contradicts itself"),
        ("standard", {"hook_head_index": 3}, "hook_head_index is 3"),
        ("standard", {"hook_point_head_index": 0}, "hook_point_head_index is 0"),
        ("standard", {"metadata": {"hook_head_index": 3}}, "hook_head_index is 3"),
        ("standard", {"metadata": {"hook_name": 8}}, "hook_name is 8"),
        ("standard", {"metadata": {"sae_lens_version": "7.0.0"}}, "sae_lens_version is '7.0.0'"),
    ],
)
def test_what_would_give_other_latents_is_refused(tmp_path, kind, settings, message):
    folder = put(tmp_path / "published", config_of(kind), tensors_of(kind))
    sae.load_published(folder)
    with pytest.raises(ValueError, match=message):
        sae.load_published(put(folder, config_of(kind, **settings), tensors_of(kind)))


@pytest.mark.parametrize("name", ["blocks.3.attn.hook_z", "blocks.3.attn.hook_rot_z"])
def test_before_version_6_the_hook_point_decides_about_heads(tmp_path, name):
    with pytest.raises(ValueError, match=f"hook_name is '{name}'"):
        sae.load_published(put(tmp_path, older("standard", hook_name=name), tensors_of("standard")))
    config = config_of("standard", metadata={"hook_name": name})
    assert sae.load_published(put(tmp_path, config, tensors_of("standard"))).hook == name


@pytest.mark.parametrize("kind", ["standard", "gated", "jumprelu"])
def test_published_weights_have_to_be_whole(tmp_path, kind):
    tensors = tensors_of(kind)
    for name, value in tensors.items():
        rest = {other: each for other, each in tensors.items() if other != name}
        with pytest.raises(ValueError, match=f"lacks {name};"):
            sae.load_published(put(tmp_path, config_of(kind), rest))
        with pytest.raises(ValueError, match=f"{name} in .* is torch.float32"):
            sae.load_published(put(tmp_path, config_of(kind), rest | {name: value[:-1]}))
        with pytest.raises(ValueError, match=f"{name} in .* expected floats"):
            sae.load_published(put(tmp_path, config_of(kind), rest | {name: value.long()}))
        bad = value.clone()
        bad.view(-1)[-1] = math.nan
        with pytest.raises(ValueError, match=f"{name} in .* 1 NaN"):
            sae.load_published(put(tmp_path, config_of(kind), rest | {name: bad}))
    with pytest.raises(ValueError, match="also holds W_skip;"):
        sae.load_published(put(tmp_path, config_of(kind), tensors | {"W_skip": torch.zeros(6, 6)}))


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_nothing_is_unpickled(tmp_path):
    folder = put(tmp_path / "published", config_of("standard"), tensors_of("standard"))
    (folder / "sae_weights.safetensors").unlink()
    torch.save(Bomb(tmp_path / "mark"), folder / "sae_weights.pt")
    with pytest.raises(ValueError, match=r"only as a pickle \(sae_weights.pt\)"):
        sae.load_published(folder)
    (folder / "sae_weights.pt").rename(folder / "sae_weights.safetensors")
    with pytest.raises(ValueError, match="damaged or no safetensors"):
        sae.load_published(folder)
    assert not (tmp_path / "mark").exists()
    (folder / "sae_weights.safetensors").rename(folder / "sae_weights.pt")
    torch.load(folder / "sae_weights.pt", weights_only=False)
    assert (tmp_path / "mark").exists()  # so the pickle would have run


def test_files_that_are_missing_or_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no cfg\.json"):
        sae.load_published(tmp_path / "nowhere")
    folder = put(tmp_path / "published", config_of("standard"), tensors_of("standard"))
    weights = (folder / "sae_weights.safetensors").read_bytes()
    (folder / "sae_weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no sae_weights\.safetensors"):
        sae.load_published(str(folder))
    (folder / "sae_weights.safetensors").write_bytes(weights[:-10])
    with pytest.raises(ValueError, match="damaged or no safetensors"):
        sae.load_published(folder)
    (folder / "sae_weights.safetensors").write_bytes(weights)
    for text in ("{", "[]", '"standard"', '{"metadata": 3}'):
        (folder / "cfg.json").write_text(text)
        with pytest.raises(ValueError, match=r"cfg\.json' is no"):
            sae.load_published(folder)
    (folder / "cfg.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"cfg\.json' is no JSON"):
        sae.load_published(folder)


def test_all_architectures_are_saved_here():
    """A new architecture has to be added to the round trips above."""
    assert {named(each) for each in ARCHITECTURES} == set(sae.model.ARCHITECTURES)
    assert {named(each) for each in SEVERAL} == set(sae.model.ARCHITECTURES)
