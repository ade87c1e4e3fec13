"""What a dictionary is worth and what it found: against scikit-learn, plain loops, hooks by hand and built cases."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, r2_score, recall_score
from torch.nn import functional as F

from tests.local_gpt2 import make_local_gpt2
from utils import models
from utils.datasets import features
from utils.sae import (
    SAE,
    BatchTopK,
    ReLU,
    Spliced,
    TopK,
    absorption,
    activations,
    best_cosines,
    evaluate,
    fvu,
    loss_recovered,
    match,
    metrics,
    names_of,
    recurring,
    splice,
    splits,
    train,
)

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = make_local_gpt2(tmp_path_factory.mktemp("models") / "gpt2", n_layers=3, d_model=24, n_ctx=32, std=0.4)
    return models.load(folder, device="cpu")


@pytest.fixture(scope="module")
def tokens(model):
    return torch.randint(model.cfg.d_vocab, (7, 9), generator=torch.Generator().manual_seed(0))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def close(a, b, atol=1e-5):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), atol=atol, rtol=1e-5, check_dtype=False)


def identity(d, hook=None):
    """Writes exactly what it reads: a latent for each half-axis."""
    sae = SAE(ReLU(0.0), d, 2 * d, hook=hook)
    with torch.no_grad():
        sae.W_dec.copy_(torch.cat([torch.eye(d), -torch.eye(d)]))
        sae.W_enc.copy_(sae.W_dec.T)
    return sae.requires_grad_(False)


def constant(value, hook=None):
    """Writes the same, whatever it reads."""
    sae = SAE(ReLU(0.0), len(value), 3, hook=hook)
    with torch.no_grad():
        sae.W_enc.zero_()
        sae.b_dec.copy_(value)
    return sae.requires_grad_(False)


def filled(d=6, n=10, seed=0, **settings):
    sae = SAE(TopK(3), d, n, **settings)
    with torch.no_grad():
        for place, tensor in enumerate(sae.parameters()):
            tensor.copy_(0.5 * randn(*tensor.shape, seed=seed + place))
    return sae.requires_grad_(False)


# --- Reconstruction and sparsity ------------------------------------------------------------------


def test_fvu_is_one_minus_r2():
    x, noise = 3 * randn(80, 5) + 7, randn(80, 5, seed=1)
    for written in (x + 0.1 * noise, x + 5 * noise, noise):
        unexplained = ((x - written) ** 2).sum(0) / ((x - x.mean(0)) ** 2).sum(0)
        close(unexplained, [1 - r2_score(x[:, i], written[:, i]) for i in range(5)], 1e-4)
        close(fvu(x, written), 1 - r2_score(x, written, multioutput="variance_weighted"), 1e-4)
    assert fvu(x, x) == 0
    close(fvu(x, x.mean(0).expand(80, 5)), 1.0)
    close(fvu(100 * x - 3, 100 * (x + noise) - 3), fvu(x, x + noise), 1e-3)


def test_fvu_of_several():
    x, written = randn(3, 40, 5), randn(3, 40, 5, seed=1)
    close(fvu(x, written), [fvu(x[i], written[i]) for i in range(3)])
    close(fvu(x[0], written), [fvu(x[0], written[i]) for i in range(3)])
    close(fvu(x.double(), written.double()), fvu(x, written))


def report_by_hand(sae, x, y):
    z, written = sae.encode(x).double().numpy(), sae(x).double().numpy()
    y, base = y.double().numpy(), sae.b_dec.double().numpy()
    density = (z > 0).mean(0)
    w, v = written - base, y - base
    return {
        "fvu": ((y - written) ** 2).sum() / ((y - y.mean(0)) ** 2).sum(),
        "l0": (z > 0).sum(1).mean(),
        "density": density,
        "dead": (density == 0).mean(),
        "dense": (density > 0.1).mean(),
        "bias": (w**2).sum(1).mean() / (w * v).sum(1).mean(),
    }


@pytest.mark.parametrize("chunk", [7, 4096])
@pytest.mark.parametrize("d_out", [None, 4], ids=["autoencoder", "transcoder"])
def test_a_report_by_hand(monkeypatch, d_out, chunk):
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    sae, x = filled(n=40, d_out=d_out), randn(50, 6, seed=9) + 1
    with torch.no_grad():
        sae.b_enc[:5] = -100
    y = x if d_out is None else randn(50, 4, seed=10)
    report = evaluate(sae, x) if d_out is None else evaluate(sae, x, y)
    by_hand = report_by_hand(sae, x, y)
    assert 0 < by_hand["dead"] < 1 and 0 < by_hand["dense"] < 1
    for field, value in by_hand.items():
        close(getattr(report, field), value, 1e-4)


@pytest.mark.parametrize("own", [False, True], ids=["one batch", "batches of their own"])
def test_a_report_of_several_is_that_of_each(monkeypatch, own):
    monkeypatch.setattr(metrics, "CHUNK", 16)
    sae, x = filled_several(), randn(*([3] if own else []), 50, 6, seed=9)
    together = evaluate(sae, x)
    assert together.density.shape == (3, 10) and together.fvu.shape == together.bias.shape == (3,)
    for i in range(3):
        alone = evaluate(sae[i], x[i] if own else x)
        for field in ("fvu", "l0", "density", "dead", "dense", "bias"):
            close(getattr(together, field)[i], getattr(alone, field))


def filled_several():
    sae = SAE(TopK([1, 3, 10]), 6, 10)
    with torch.no_grad():
        for place, tensor in enumerate(sae.parameters()):
            tensor.copy_(0.5 * randn(*tensor.shape, seed=place))
    return sae.requires_grad_(False)


def test_reports_of_known_dictionaries():
    x = randn(200, 5)
    perfect = evaluate(identity(5), x)
    assert perfect.fvu == 0 and perfect.dead == 0 and perfect.dense == 1
    close(perfect.l0, 5.0)
    close(perfect.bias, 1.0)
    nothing = evaluate(constant(x.mean(0)), x)
    close(nothing.fvu, 1.0)
    assert nothing.l0 == 0 and nothing.dead == 1
    short = identity(5)
    short.W_dec.mul_(0.8)
    close(evaluate(short, x).bias, 0.8)
    close(evaluate(short, x).fvu, 0.04 * x.pow(2).sum() / (x - x.mean(0)).pow(2).sum(), 1e-4)


def test_reports_are_exact_far_from_zero():
    x = randn(3000, 5).double()
    sae = identity(5).double()
    sae.W_dec.mul_(0.9)
    sae.b_dec.fill_(1e6)
    close(evaluate(sae, x + 1e6).fvu, evaluate(filled_at_zero(), x).fvu, 1e-6)


def filled_at_zero():
    sae = identity(5).double()
    sae.W_dec.mul_(0.9)
    return sae


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: fvu(randn(5, 3), randn(5, 4)), r"x has shape \[5, 3\] and written \[5, 4\], expected the same"),
        (lambda: fvu(randn(5, 3), randn(6, 3)), "expected the same"),
        (lambda: fvu(randn(5, 3) * math.nan, randn(5, 3)), "x holds 15 NaN"),
        (lambda: fvu(randn(5, 3), randn(5, 3) / 0), "written holds 15 NaN or infinite"),
        (lambda: fvu(torch.ones(5, 3), randn(5, 3)), "x does not vary"),
        (lambda: fvu(randn(1, 3), randn(1, 3)), "x does not vary"),
        (lambda: evaluate(filled(), randn(5, 7)), r"x is torch.float32 \[5, 7\]"),
        (lambda: evaluate(filled(), randn(5, 6) * math.inf), "x holds"),
        (lambda: evaluate(filled(), torch.ones(5, 6)), "x does not vary"),
        (lambda: evaluate(filled(), randn(5, 6), randn(5, 6)), "target is what a transcoder writes"),
        (lambda: evaluate(filled(d_out=4), randn(5, 6)), "target is what a transcoder writes"),
        (lambda: evaluate(filled(d_out=4), randn(5, 6), randn(5, 3)), r"target has shape \[5, 3\], expected \[5, 4\]"),
        (lambda: evaluate(filled(d_out=4), randn(5, 6), randn(4, 4)), r"target has shape \[4, 4\], expected \[5, 4\]"),
    ],
)
def test_bad_input_to_reports_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: evaluate(filled(d_out=4), randn(5, 6), randn(5, 4) * math.nan), "target holds"),
        (lambda: evaluate(filled(d_out=4), randn(5, 6), np.ones((5, 4))), "target"),
        (lambda: fvu(torch.full((600, 8), 0.1), torch.full((600, 8), 0.2)), "x does not vary"),
        (lambda: fvu(randn(3), randn(3)), r"x is torch.float32 \[3\]"),
        (lambda: fvu(np.ones((3, 3)), np.ones((3, 3))), "x is"),
        (lambda: evaluate(filled(), randn(4, 5, 6)), "x has shape"),
    ],
    ids=[
        "NaN in the target", "target as an array", "constant but for rounding", "one activation", "arrays",
        "rows and positions",
    ],
)  # fmt: skip
def test_more_bad_input_to_reports_is_named(call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call()


def test_fvu_in_half_precision():
    x = randn(5000, 64)
    close(fvu(x.half(), 0.5 * x.half()).float(), fvu(x, 0.5 * x), 0.01)


# --- In the model ---------------------------------------------------------------------------------


def losses_by_hand(model, tokens, hook, replaced):
    """Cross-entropy of tokens 2 and later with `replaced(activations)` at the positions from 1 on."""
    total, count = 0.0, 0
    for row in tokens:

        def put(value, hook):
            value = value.clone()
            value[:, 1:] = replaced(value[:, 1:])
            return value

        logits = model.run_with_hooks(row[None], fwd_hooks=[(hook, put)])[0].double()
        for position in range(1, len(row) - 1):
            total -= logits[position].log_softmax(-1)[row[position + 1]].item()
            count += 1
    return total / count


@pytest.mark.parametrize("chunk", [9, 20, 4096])
def test_losses_are_those_of_hooks_set_by_hand(model, tokens, monkeypatch, chunk):
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    sae = filled(24, 48, hook=HOOK)
    mean = activations(model, tokens, HOOK).mean(0)
    found = loss_recovered(model, sae, tokens)
    clean = losses_by_hand(model, tokens, HOOK, lambda x: x)
    spliced = losses_by_hand(model, tokens, HOOK, sae)
    ablated = losses_by_hand(model, tokens, HOOK, lambda x: mean.expand_as(x))
    close([found.clean, found.spliced, found.ablated], [clean, spliced, ablated], 1e-4)
    close(found.recovered, (ablated - spliced) / (ablated - clean), 1e-3)
    assert abs(spliced - clean) > 0.01 and abs(ablated - clean) > 0.01


def test_clean_loss_is_that_of_the_model(model, tokens):
    logits = model(tokens)
    expected = F.cross_entropy(logits[:, 1:-1].flatten(0, 1), tokens[:, 2:].flatten())
    close(loss_recovered(model, identity(24), tokens, HOOK).clean, expected)


@pytest.mark.parametrize("hook", ["blocks.0.hook_resid_pre", "blocks.0.hook_mlp_out", HOOK, "blocks.2.hook_attn_out"])
def test_a_perfect_dictionary_recovers_everything_and_the_mean_nothing(model, tokens, hook):
    perfect = loss_recovered(model, identity(24), tokens, hook)
    assert perfect.spliced == pytest.approx(perfect.clean, abs=1e-5)
    assert perfect.recovered == pytest.approx(1, abs=1e-3)
    mean = loss_recovered(model, constant(activations(model, tokens, hook).mean(0)), tokens, hook)
    assert mean.spliced == pytest.approx(mean.ablated, abs=1e-5)
    assert mean.recovered == pytest.approx(0, abs=1e-3)


def test_recovered_by_hand():
    assert Spliced(clean=2.0, spliced=2.5, ablated=4.0).recovered == 0.75
    assert Spliced(clean=2.0, spliced=2.0, ablated=4.0).recovered == 1
    assert Spliced(clean=2.0, spliced=5.0, ablated=4.0).recovered == -0.5


def test_splicing_replaces_everything_but_the_first_position(model, tokens):
    sae = filled(24, 48, hook=HOOK)
    ((where, put),) = splice(sae)
    x = randn(2, 5, 24)
    before = x.clone()
    written = put(x, None)
    assert where == HOOK and x.equal(before)
    assert written[:, 0].equal(x[:, 0])
    close(written[:, 1:], sae(x)[:, 1:])
    _, cache = model.run_with_cache(tokens)
    expected = cache[HOOK].clone()
    expected[:, 1:] = sae(cache[HOOK])[:, 1:]
    read = []
    model.run_with_hooks(
        tokens, fwd_hooks=[*splice(sae), ("blocks.2.hook_resid_pre", lambda x, hook: read.append(x.clone()) or x)]
    )
    close(read[0], expected)


def test_a_dictionary_with_gradients_may_be_spliced_in(model, tokens):
    sae = SAE(TopK(3), 24, 48, hook=HOOK)
    logits = model.run_with_hooks(tokens, fwd_hooks=splice(sae))
    logits.sum().backward()
    assert sae.W_dec.grad is not None and sae.W_dec.grad.isfinite().all()
    loss_recovered(model, sae, tokens)


def test_splicing_leaves_the_model_alone(model, tokens):
    before = model(tokens)
    loss_recovered(model, filled(24, 48), tokens, HOOK)
    with pytest.raises(ValueError, match="reads width 12"):
        loss_recovered(model, filled(12, 48), tokens, HOOK)
    with pytest.raises(ValueError, match=r"x is torch.float32 \[7, 9, 24\]"):
        model.run_with_hooks(tokens, fwd_hooks=splice(filled(12, 48), HOOK))
    assert model(tokens).equal(before)


def test_the_hook_may_come_from_the_dictionary_or_be_given(model, tokens):
    named, unnamed = filled(24, 48, hook=HOOK), filled(24, 48)
    expected = loss_recovered(model, named, tokens)
    assert loss_recovered(model, named, tokens, HOOK) == loss_recovered(model, unnamed, tokens, HOOK) == expected
    assert splice(unnamed, HOOK)[0][0] == splice(named, HOOK)[0][0] == HOOK
    trained = train(activations(model, tokens, HOOK), TopK(2), 30, steps=2, hook=HOOK)
    assert splice(trained)[0][0] == HOOK


@pytest.mark.parametrize("how", ["splice", "loss"])
@pytest.mark.parametrize(
    ("sae", "hook", "says"),
    [
        (
            filled(24, 48, hook=HOOK),
            "blocks.0.hook_resid_post",
            "hook is 'blocks.0.hook_resid_post', but .* at 'blocks.1",
        ),
        (filled(24, 48), None, "the dictionary does not say where it was trained"),
        (filled(24, 48, d_out=24, hook=HOOK), None, "several dictionaries or a transcoder, expected one autoencoder"),
        (SAE(TopK([1, 2]), 24, 48, hook=HOOK), None, "several dictionaries or a transcoder"),
        (SAE(TopK([1]), 24, 48, hook=HOOK), None, "several dictionaries or a transcoder"),
    ],
    ids=["another site", "no site", "transcoder", "several", "one with an axis"],
)
def test_other_sites_and_other_kinds_are_refused(model, tokens, how, sae, hook, says):
    with pytest.raises(ValueError, match=says):
        splice(sae, hook) if how == "splice" else loss_recovered(model, sae, tokens, hook)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hook": "blocks.7.hook_resid_post"}, "hook is 'blocks.7.hook_resid_post', which the model has not"),
        ({"tokens": torch.zeros(2, 5)}, "tokens is torch.float32"),
        ({"tokens": torch.zeros(2, 40).long()}, r"tokens has shape \[2, 40\]"),
        ({"tokens": torch.zeros(5).long()}, r"tokens is torch.int64 \[5\]"),
    ],
)
def test_bad_input_to_the_loss_is_named(model, tokens, change, says):
    options = {"tokens": tokens, "hook": HOOK} | change
    with pytest.raises(ValueError, match=says):
        loss_recovered(model, filled(24, 48), **options)


def test_tokens_may_be_int32(model, tokens):
    sae = filled(24, 48)
    assert loss_recovered(model, sae, tokens.int(), HOOK) == loss_recovered(model, sae, tokens, HOOK)


def test_rows_of_two_tokens_are_refused_by_name(model, tokens):
    with pytest.raises(ValueError, match="tokens has shape"):
        loss_recovered(model, filled(24, 48), tokens[:, :2], HOOK)


# --- Directions -----------------------------------------------------------------------------------


def test_best_cosines_by_hand():
    wanted, found = randn(6, 5), randn(9, 5, seed=1)
    best, which = best_cosines(wanted, found)
    for i, w in enumerate(wanted.tolist()):
        cosines = [np.dot(w, f) / math.hypot(*w) / math.hypot(*f) for f in found.tolist()]
        assert best[i].item() == pytest.approx(max(cosines), abs=1e-5) and which[i] == int(np.argmax(cosines))
    close(best_cosines(3 * wanted, 0.1 * found)[0], best)
    assert best_cosines(wanted, -wanted)[0].max() < 1 - 1e-3  # a direction is not its opposite
    close(best_cosines(wanted, wanted.flip(0))[0], torch.ones(6))
    assert best_cosines(wanted, wanted.flip(0))[1].tolist() == [5, 4, 3, 2, 1, 0]


def test_best_cosines_of_several():
    wanted, found = randn(6, 5), randn(3, 9, 5, seed=1)
    best, which = best_cosines(wanted, found)
    assert best.shape == which.shape == (3, 6)
    for i in range(3):
        close(best[i], best_cosines(wanted, found[i])[0])


def with_rows(rows):
    sae = SAE(BatchTopK(1), rows.shape[1], len(rows))
    sae.W_dec.data = rows
    return sae


def test_recurring_latents():
    rows = F.normalize(randn(8, 16), dim=1)
    other = torch.cat([rows[[5, 0, 2]], F.normalize(rows[[1]] + 0.9 * F.normalize(randn(1, 16, seed=5), dim=1), dim=1)])
    live_one = torch.tensor([0.1, 0.5, 0.2, 0.3, 0, 0.1, 0, 0.1])
    share, best = recurring(with_rows(rows), with_rows(other), live_one, torch.tensor([0.1, 0.1, 0.0, 0.2]))
    live = [0, 1, 2, 3, 5, 7]
    by_hand = [max((rows[i] @ other[j]).item() for j in (0, 1, 3)) for i in live]
    close(best, by_hand)
    assert share == pytest.approx(2 / 6)  # 0 and 5; 2's twin is dead, 1's is too far
    nearest = (rows[live] @ other.T).max(1).values
    for cosine in (0.5, 0.7):
        share, _ = recurring(with_rows(rows), with_rows(other), live_one, torch.ones(4), cosine=cosine)
        assert share == pytest.approx((nearest >= cosine).float().mean().item())
    assert recurring(with_rows(rows), with_rows(rows), live_one, live_one)[0] == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: best_cosines(randn(3, 4), randn(3, 5)), r"found is torch.float32 \[3, 5\], expected"),
        (lambda: best_cosines(randn(4), randn(3, 4)), r"wanted is torch.float32 \[4\]"),
        (lambda: best_cosines(randn(0, 4), randn(3, 4)), r"wanted is torch.float32 \[0, 4\]"),
        (lambda: best_cosines(randn(3, 4), randn(0, 4)), r"found is torch.float32 \[0, 4\]"),
        (lambda: best_cosines(np.ones((3, 4)), randn(3, 4)), "wanted is ndarray"),
        (lambda: best_cosines(randn(3, 4), None), "found is NoneType"),
        (lambda: best_cosines(torch.zeros(3, 4), randn(3, 4)), "wanted holds a direction of length zero"),
        (lambda: best_cosines(randn(3, 4), torch.eye(4)[:3] * torch.tensor([[1.0], [0], [1]])), "found holds a dir"),
        (lambda: best_cosines(randn(3, 4) * math.nan, randn(3, 4)), "wanted holds 12 NaN"),
        (lambda: recurring(filled(), filled(), torch.zeros(10), torch.ones(10)), "wanted is"),
    ],
)
def test_bad_directions_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: best_cosines(torch.ones(2, 2).long(), torch.ones(2, 2).long()), "wanted is"),
        (lambda: best_cosines(randn(3, 4).double(), randn(3, 4)), "(wanted|found) is"),
        (lambda: best_cosines(randn(2, 3, 4), randn(3, 3, 4)), "(wanted|found) "),
        (lambda: recurring(filled(), filled(), torch.ones(9), torch.ones(10)), "density_one"),
        (lambda: recurring(filled_several(), filled(), torch.ones(3, 10), torch.ones(10)), "one holds several"),
    ],
    ids=["integers", "two dtypes", "two numbers of instances", "densities of another length", "several"],
)
def test_more_bad_directions_are_named(call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call()


# --- Annotations ----------------------------------------------------------------------------------


def candidates(column, n):
    """Zero and the quantiles of the values above zero: the value at place floor(i / n * count), i = 1 to n - 1."""
    positive = np.sort(column[column > 0])
    return [0.0, *(positive[i * len(positive) // n] for i in range(1, n) if len(positive))]


@pytest.mark.parametrize("n_thresholds", [1, 4, 8])
def test_matching_is_brute_force_with_scikit_learn(n_thresholds):
    """25 units, some of which follow one of four concepts noisily; unit and threshold by trying all of them."""
    labels = rand(200, 4) < torch.tensor([0.5, 0.2, 0.1, 0.3])
    values = randn(200, 25, seed=1).relu()
    for concept in range(4):
        values[:, 3 * concept] += 1.5 * labels[:, concept] * rand(200, seed=concept + 2)
    found = match(values, labels, n_thresholds=n_thresholds)
    one, other, truth = values[:100].numpy(), values[100:].numpy(), labels.numpy()
    for concept in range(4):
        best = -1.0
        for unit in range(25):
            for cut in candidates(one[:, unit], n_thresholds):
                score = f1_score(truth[:100, concept], one[:, unit] > cut, zero_division=0)
                best = max(best, score)
        unit, cut = int(found.unit[concept]), found.threshold[concept].item()
        assert found.f1_chosen[concept].item() == pytest.approx(best, abs=1e-6)
        assert f1_score(truth[:100, concept], one[:, unit] > cut) == pytest.approx(best, abs=1e-6)
        assert any(abs(cut - c) < 1e-6 for c in candidates(one[:, unit], n_thresholds))
        yes = other[:, unit] > cut
        for score, ours in ((f1_score, found.f1), (precision_score, found.precision), (recall_score, found.recall)):
            assert ours[concept].item() == pytest.approx(score(truth[100:, concept], yes, zero_division=0), abs=1e-6)


def test_more_units_than_are_looked_at_at_once():
    labels = rand(60, 3) < 0.4
    values = rand(60, 700, seed=1)
    for concept, unit in enumerate((3, 300, 699)):
        values[:, unit] = labels[:, concept] * (0.5 + rand(60, seed=unit))
    found = match(values, labels)
    assert found.unit.tolist() == [3, 300, 699]
    close(found.f1, torch.ones(3))
    close(found.precision * found.recall, torch.ones(3))


def test_a_unit_that_fits_one_half_only_scores_low_on_the_other():
    labels = rand(200, 1) < 0.3
    values = rand(200, 5, seed=1)
    values[:100, 2] = labels[:100, 0].float()
    found = match(values, labels)
    assert found.unit.tolist() == [2] and found.f1_chosen[0] == 1
    assert found.f1[0] < 0.6
    values[:, 2] = values[:, 2].flip(0)  # now it fits the half on which is scored: not chosen
    values[100:, 2] = labels[100:, 0].float()
    found = match(values, labels)
    assert found.unit[0] != 2 and found.f1[0] < 0.6


def test_choosing_among_many_random_units_is_optimistic_and_the_score_is_not():
    labels = rand(100, 20) < 0.2
    found = match(randn(100, 500, seed=1).relu(), labels)
    assert found.f1_chosen.mean() > found.f1.mean() + 0.15
    assert found.f1.mean() < 0.4


def test_a_unit_that_says_yes_by_its_size_needs_a_threshold():
    labels = rand(400, 1) < 0.5
    values = (rand(400, 1, seed=1) + 2 * labels).double()
    found = match(values, labels)
    assert 0.8 < found.threshold[0] < 2.4 and found.f1[0] > 0.85
    assert match(values, labels, n_thresholds=1).threshold[0] == 0


def test_neurons_that_say_yes_by_being_low_are_found_as_documented():
    labels = rand(200, 1) < 0.3
    x = randn(200, 4)
    x[:, 1] = 5 - 3 * labels[:, 0].float() + 0.1 * x[:, 1]
    found = match(torch.cat([x - x.mean(0), x.mean(0) - x], dim=1), labels)
    assert found.unit.tolist() == [5] and found.f1[0] > 0.95


def test_units_that_never_say_yes_score_zero():
    found = match(-rand(40, 3), rand(40, 2, seed=1) < 0.5)
    assert found.f1.eq(0).all() and found.precision.eq(0).all() and found.recall.eq(0).all()
    assert found.f1_chosen.eq(0).all()


def test_matching_in_half_precision_chooses_by_right_counts():
    labels = rand(20_000, 1) < 0.4
    values = (rand(20_000, 3, seed=1) < 0.5).bfloat16()
    values[:, 1] = labels[:, 0] & (rand(20_000, seed=2) < 0.9)
    found = match(values, labels)
    expected = f1_score(labels[:10_000, 0], values[:10_000, 1].float() > 0)
    assert found.unit.tolist() == [1]
    assert found.f1_chosen[0].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (
            lambda: match(rand(10, 3), rand(10, 2)),
            ValueError,
            r"values is \[10, 3\] and labels torch.float32 \[10, 2\]",
        ),
        (
            lambda: match(rand(10, 3), rand(9, 2) < 0.5),
            ValueError,
            r"values is \[10, 3\] and labels torch.bool \[9, 2\]",
        ),
        (lambda: match(rand(10), rand(10, 2) < 0.5), ValueError, r"values is \[10\]"),
        (lambda: match(rand(10, 3), rand(10) < 0.5), ValueError, r"labels is \[10\]"),
        (lambda: match(rand(10, 3) / 0, rand(10, 1) < 2), ValueError, "values holds 30 NaN or infinite"),
        (lambda: match(rand(10, 3), torch.arange(10)[:, None] < 5), ValueError, r"concepts \[0\] do not occur in both"),
        (lambda: match(rand(10, 3), torch.arange(10)[:, None] > 4), ValueError, r"concepts \[0\] do not occur in both"),
        (lambda: match(rand(1, 3), rand(1, 1) < 2), ValueError, "do not occur in both halves"),
        (lambda: match(rand(10, 3), rand(10, 1) < 2, n_thresholds=0), ValueError, "n_thresholds is 0"),
        (lambda: match(rand(10, 3), rand(10, 1) < 2, n_thresholds=1.5), TypeError, "n_thresholds is 1.5"),
    ],
)
def test_bad_annotations_are_named(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: match(np.ones((10, 3)), rand(10, 1) < 2),
        lambda: match(rand(10, 0), rand(10, 1) < 2),
    ],
    ids=["values as an array", "no unit"],
)
def test_more_bad_annotations_are_named(call):
    with pytest.raises((ValueError, TypeError), match=r"values is|labels (is|torch|are)"):
        call()


def test_names_of_units():
    named = names_of(torch.tensor([4, 1, 4]), ["noun", "verb", "plural"])
    assert named == {4: ["noun", "plural"], 1: ["verb"]}
    with pytest.raises(ValueError, match="argument"):
        names_of(torch.tensor([4, 1]), ["noun"])


# --- Absorption -----------------------------------------------------------------------------------

# Samples: nothing, the parent alone (twice), parent and first child, parent and second child. Features are axes.
PRESENT = torch.tensor([False, True, True, True, True])
PARENT = torch.tensor([1.0, 0, 0])
HONEST = (torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 1]]), torch.eye(3))
TILTED = F.normalize(torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1]]), dim=1)
ABSORBING = (torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 2**0.5, 0], [1, 0, 1]]), TILTED)


def test_an_honest_dictionary_absorbs_nothing():
    share, absorbers = absorption(*HONEST, 0, PARENT, PRESENT)
    assert share == 0 and absorbers.tolist() == []


def test_an_absorbing_dictionary_is_caught():
    """The parent's latent is silent on its first child, whose row is tilted towards the parent: 1 sample of 4."""
    z, W = ABSORBING
    x = HONEST[0]
    close(z @ W, x)  # it reconstructs as well as the honest one, with fewer latents
    share, absorbers = absorption(z, W, 0, PARENT, PRESENT)
    assert share == pytest.approx(1 / 4) and absorbers.tolist() == [1]
    assert absorption(z, W, 0, 7 * PARENT, PRESENT)[0] == share  # the direction's length does not matter


def test_a_silent_parent_that_nobody_writes_is_not_absorbed():
    z, _ = ABSORBING
    share, absorbers = absorption(z, torch.eye(3), 0, PARENT, PRESENT)
    assert share == 0 and not len(absorbers)


def test_nothing_is_absorbed_where_the_parents_latent_is_active():
    """Another latent writes as much along the direction, beside a parent's latent that is weak but not silent."""
    z = torch.tensor([[2.0, 0, 0], [2, 0, 0], [0.1, 3, 0], [0, 3, 0]])
    share, absorbers = absorption(z, TILTED, 0, PARENT, torch.ones(4, dtype=torch.bool))
    assert share == pytest.approx(1 / 4) and absorbers.tolist() == [1]


def test_absorbers_come_commonest_first_and_only_where_they_write_enough():
    W = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0.3, 0, 0.95], [0.5, 0, 0.8]])
    z = torch.tensor([[2.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 5, 0], [0, 0, 3, 3], [0, 0, 0, 2], [0, 5, 5, 5]])
    present = torch.tensor([True] * 5 + [False])
    # usual: 2 along the parent; enough from .8 on: rows write [.9], [1.5], [.9, 1.5], [1.0]
    share, absorbers = absorption(z, W, 0, PARENT, present)
    assert share == pytest.approx(4 / 5)
    assert sorted(absorbers.tolist()) == [1, 2, 3] and absorbers[-1] == 1
    share, absorbers = absorption(z, W, 0, PARENT, present, share=0.6)
    assert share == pytest.approx(2 / 5) and sorted(absorbers.tolist()) == [2, 3]
    assert absorption(z, W, 0, PARENT, present, share=0.8)[0] == 0


def test_absorption_leaves_its_arguments_alone():
    z, W = (value.clone() for value in ABSORBING)
    absorption(z, W, 0, PARENT, PRESENT)
    assert z.equal(ABSORBING[0]) and W.equal(ABSORBING[1])


def test_absorption_on_planted_features_is_what_counting_gives():
    """A latent for each feature, the parents' silent where their first child is on."""
    truth = features.hierarchy(2, 2, d=8, probability=0.5)
    x, a = truth.sample(3000)
    rows, z = truth.directions.clone(), a.clone()
    for parent in (0, 3):
        with_child = a[:, parent + 1] > 0
        rows[parent + 1] = F.normalize(rows[parent] + rows[parent + 1], dim=0)
        z[with_child, parent + 1], z[with_child, parent] = 2**0.5, 0
    close(z @ rows, x)
    for parent in (0, 3):
        present = a[:, parent] > 0
        share, absorbers = absorption(z, rows, parent, truth.directions[parent], present)
        expected = (a[present, parent + 1] > 0).float().mean().item()
        assert share == pytest.approx(expected) and absorbers.tolist() == [parent + 1]
        assert absorption(a, truth.directions, parent, truth.directions[parent], present)[0] == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: absorption(HONEST[0][0], torch.eye(3), 0, PARENT, PRESENT), "do not fit together"),
        (lambda: absorption(HONEST[0], torch.eye(4), 0, PARENT, PRESENT), r"W_dec \[4, 4\]"),
        (lambda: absorption(*HONEST, 0, PARENT[:2], PRESENT), r"direction \[2\]"),
        (lambda: absorption(*HONEST, 0, PARENT, PRESENT[:3]), r"present torch.bool \[3\]"),
        (lambda: absorption(*HONEST, 0, PARENT, ~PRESENT & PRESENT), "the parent is never present"),
        (lambda: absorption(*HONEST, 2, PARENT, PRESENT & (torch.arange(5) < 3)), "latent never active"),
    ],
)
def test_bad_input_to_absorption_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: absorption(*ABSORBING, 0, -PARENT, PRESENT), "parent|direction"),
        (lambda: absorption(*ABSORBING, 0, torch.tensor([0.0, 0, 1]), PRESENT), "parent|direction"),
        (lambda: absorption(*ABSORBING, 0, torch.zeros(3), PRESENT), "direction"),
        (lambda: absorption(*ABSORBING, 0, PARENT, PRESENT.long()), "present"),
        (lambda: absorption(*ABSORBING, 0, PARENT, PRESENT, share=-1.0), "share is"),
        (lambda: absorption(*ABSORBING, 0, PARENT, PRESENT, share=0.0), "share is"),
        (lambda: absorption(*ABSORBING, 9, PARENT, PRESENT), "parent is"),
        (lambda: absorption(ABSORBING[0] * math.nan, TILTED, 0, PARENT, PRESENT), "z holds"),
    ],
    ids=[
        "a latent against its direction", "a latent across its direction", "no direction", "present as numbers",
        "negative share", "share of nothing", "no such latent", "NaN",
    ],
)  # fmt: skip
def test_more_bad_input_to_absorption_is_named(call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call()


# --- Splitting ------------------------------------------------------------------------------------


def splits_by_hand(narrow, wide, inside):
    parts = [[] for _ in range(narrow.shape[1])]
    for other in range(wide.shape[1]):
        samples = [s for s in range(len(wide)) if wide[s, other] > 0]
        if not samples:
            continue
        shares = [sum(bool(narrow[s, i] > 0) for s in samples) / len(samples) for i in range(narrow.shape[1])]
        if max(shares) >= inside:
            parts[shares.index(max(shares))].append(other)
    return parts


@pytest.mark.parametrize("inside", [0.4, 0.6, 0.8, 1.0])
def test_splits_by_hand(inside):
    narrow = (rand(60, 5) - 0.6).relu()
    wide = torch.cat([narrow * (rand(60, 5, seed=1) < 0.5), (rand(60, 10, seed=2) - 0.8).relu()], dim=1)
    wide[:, 7] = 0
    parts = splits(narrow, wide, inside=inside)
    assert [part.tolist() for part in parts] == splits_by_hand(narrow, wide, inside)
    assert all(i in parts[i].tolist() for i in range(5))


def test_a_latent_that_split_in_two_a_copy_and_strangers():
    narrow = torch.zeros(12, 3)
    narrow[:6, 0], narrow[6:10, 1] = 1, 2
    wide = torch.zeros(12, 6)
    wide[:3, 0], wide[3:6, 1] = 1, 1  # two halves of the first
    wide[6:10, 2] = 1  # a copy of the second
    wide[3:9, 3] = 1  # half in, half out
    wide[10:, 4] = 1  # where neither is; and the last one never fires
    assert [part.tolist() for part in splits(narrow, wide)] == [[0, 1], [2], []]
    assert [part.tolist() for part in splits(narrow, wide, inside=0.5)] == [[0, 1, 3], [2], []]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: splits(rand(5, 3), rand(6, 3)), "as many samples in both"),
        (lambda: splits(rand(5, 3) * math.nan, rand(5, 3)), "narrow holds"),
        (lambda: splits(rand(5, 3), rand(5, 3), inside=5), "inside is"),
    ],
    ids=["other samples", "NaN", "more than all"],
)
def test_bad_input_to_splits_is_named(call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call()
