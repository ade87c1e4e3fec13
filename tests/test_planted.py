"""Models set by hand compute what they were set to compute: by lens, by Hugging Face and in exact arithmetic."""

import copy
import math
from functools import cache

import pytest
import torch
from transformer_lens.tools.analysis import logit_lens

from utils import lens, models, planted
from utils.planted import WORDS, second_thought

SEEDS, N_WORDS = range(20), len(WORDS)
COUNTRIES = list(planted.CAPITALS)


@cache
def made(seed, erased=True):
    return second_thought(seed, erased)


@cache
def tokens():
    return made(0).model.to_tokens(list(made(0).prompts))


def ids(words):
    return torch.tensor([WORDS.index(word) for word in words])


def log_probs(model, hooks=()):
    """Natural log-probabilities after each of the four prompts."""
    return model.run_with_hooks(tokens(), fwd_hooks=list(hooks))[:, -1].log_softmax(-1)


def of(values, words):
    return values.gather(-1, ids(words)[:, None])[:, 0]


def without(directions, block):
    """Hooks that take directions [sentence k d_model] (orthonormal) out of the last position's stream after a block."""

    def hook(stream, hook):
        stream = stream.clone()
        last = stream[:, -1]
        parts = torch.einsum("nkd,nd->nk", directions, last)
        stream[:, -1] = last - torch.einsum("nk,nkd->nd", parts, directions)
        return stream

    return [(f"blocks.{block}.hook_resid_post", hook)]


def bare(seed, erased, monkeypatch):
    """The Hugging Face model as it was made, before TransformerLens processed it."""
    kept, wrap = [], models.wrap
    monkeypatch.setattr(models, "wrap", lambda hf, *args: kept.append(copy.deepcopy(hf)) or wrap(hf, *args))
    second_thought(seed, erased)
    monkeypatch.undo()
    return kept[0].eval()


def test_the_model_knows_every_capital_and_the_sentences_around():
    thought = made(0)
    assert dict(zip(COUNTRIES, thought.answers, strict=True)) == planted.CAPITALS
    assert list(thought.prompts) == [f"The capital of {country} is" for country in COUNTRIES]
    assert thought.model.to_str_tokens(thought.prompts[0]) == ["<bos>", "The", "capital", "of", "France", "is"]
    for seed in range(5):
        for erased in (True, False):
            model = made(seed, erased).model
            probs = model(model.to_tokens("The capital of Peru is Lima"))[0].softmax(-1)
            says = [WORDS[i] for i in probs.argmax(-1)]
            assert says[:3] + says[4:] == ["The", "capital", "of", "is", "Lima", "."]
            assert torch.allclose(probs[3, ids(COUNTRIES)], torch.tensor(0.25), atol=0.01)
    with pytest.raises(models.UnknownWordError, match=r"'Germany' is not among the .* words of `second_thought`"):
        thought.model.to_tokens("The capital of Germany is")


def test_seeds_draw_the_blocks_and_the_wrong_capitals():
    thoughts = [made(seed) for seed in SEEDS]
    for thought in thoughts:
        assert sorted(thought.first_thoughts) == sorted(thought.answers)
        assert all(first != answer for first, answer in zip(thought.first_thoughts, thought.answers, strict=True))
        assert 0 <= thought.written_in < thought.erased_in < thought.answered_in == 3
        assert torch.allclose(thought.country @ thought.country.T, torch.eye(4), atol=1e-5)
        assert thought.country.sum(-1).abs().max() < 1e-5
    assert len({(t.written_in, t.erased_in) for t in thoughts}) == 3
    assert len({tuple(t.first_thoughts) for t in thoughts}) == 3
    again = second_thought(4)
    assert lens.checksum(again.model).equal(lens.checksum(made(4).model))
    assert again.country.equal(made(4).country)
    assert not torch.allclose(again.country, made(5).country, atol=0.1)


@pytest.mark.parametrize("erased", [True, False], ids=["erased", "kept"])
def test_the_lens_reads_the_wrong_capital_for_a_while(erased):
    for seed in SEEDS if erased else range(6):
        thought = made(seed, erased)
        probs = logit_lens(thought.model, tokens(), return_type="probs").values  # [state sentence word]
        until = thought.erased_in if erased else thought.answered_in
        for state in range(5):
            if state == 4:
                assert of(probs[state], thought.answers).min() > (0.99 if erased else 0.95)
            elif thought.written_in < state <= until:
                assert of(probs[state], thought.first_thoughts).min() >= 0.99
            else:  # nothing written yet, or nothing left
                assert torch.allclose(probs[state], torch.tensor(1 / N_WORDS), atol=1e-3)
        assert thought.erased_in is None or erased


@pytest.mark.parametrize("erased", [True, False], ids=["erased", "kept"])
def test_what_was_erased_had_no_bearing(erased):
    for seed in SEEDS if erased else range(6):
        thought = made(seed, erased)
        wrong = thought.model.W_U.T[ids(thought.first_thoughts)]
        wrong = wrong / wrong.norm(dim=-1, keepdim=True)
        before = log_probs(thought.model)
        after = log_probs(thought.model, without(wrong[:, None], thought.written_in))
        assert (of(after, thought.answers) - of(before, thought.answers)).abs().max() < (1e-3 if erased else 0.1)
        lost = of(before, thought.first_thoughts) - of(after, thought.first_thoughts)
        if erased:
            assert lost.abs().max() < 1e-3
        else:
            assert lost.min() > 5


@pytest.mark.parametrize("erased", [True, False], ids=["erased", "kept"])
def test_the_answer_hangs_on_the_country(erased):
    for seed in SEEDS if erased else range(6):
        thought = made(seed, erased)
        country = thought.country.expand(4, -1, -1)
        blocks = range(thought.written_in, 3)  # read before the wrong capital is written, or after
        for block in blocks:
            after = log_probs(thought.model, without(country, block)).exp()
            assert of(after, thought.answers).max() < 2 / N_WORDS
            if not erased:  # then the model says what it first thought
                assert of(after, thought.first_thoughts).min() > 0.99
        others = torch.linalg.qr(thought.model.W_U[:, ids(["<unk>", "The", "capital", "of"])]).Q.T.expand(4, -1, -1)
        for block in range(3):
            assert of(log_probs(thought.model, without(others, block)).exp(), thought.answers).min() > 0.95


@pytest.mark.parametrize("erased", [True, False], ids=["erased", "kept"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_hugging_face_computes_the_same(seed, erased, monkeypatch):
    hf, thought = bare(seed, erased, monkeypatch), made(seed, erased)
    logits = hf(tokens()).logits
    torch.testing.assert_close(logits.log_softmax(-1), thought.model(tokens()).log_softmax(-1), atol=1e-4, rtol=0)
    expected = torch.zeros(4, N_WORDS)
    expected[range(4), ids(thought.answers)] = 12.0
    if not erased:
        expected[range(4), ids(thought.first_thoughts)] = 8.0
    torch.testing.assert_close(logits[:, -1], expected, atol=1e-3, rtol=0)
    assert not any(parameter.requires_grad for parameter in hf.parameters())


@pytest.mark.parametrize("seed", range(6))
def test_layer_norm_is_neutral(seed, monkeypatch):
    """The same in exact arithmetic and without any LayerNorm."""
    hf = bare(seed, True, monkeypatch)
    weights = {name: value.double() for name, value in hf.state_dict().items()}
    d_head = planted.D_MODEL // planted.N_HEADS
    n_pos = tokens().shape[1]
    x = weights["transformer.wte.weight"][tokens()] + weights["transformer.wpe.weight"][:n_pos]
    states = [x]
    for i in range(planted.N_LAYERS):

        def linear(name, x, i=i):
            return x @ weights[f"transformer.h.{i}.{name}.weight"] + weights[f"transformer.h.{i}.{name}.bias"]

        q, k, v = (
            part.unflatten(-1, (planted.N_HEADS, d_head)).transpose(1, 2)
            for part in linear("attn.c_attn", x).chunk(3, -1)
        )
        scores = q @ k.transpose(-1, -2) / d_head**0.5
        scores = scores.masked_fill(torch.ones(n_pos, n_pos).triu(1).bool(), -math.inf)
        x = x + linear("attn.c_proj", (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        x = x + linear("mlp.c_proj", linear("mlp.c_fc", x).relu())
        states.append(x)
    thought = made(seed)
    torch.testing.assert_close(
        lens.resid_stack(thought.model, tokens()).double(), torch.stack(states), atol=1e-4, rtol=0
    )
    exact = (x @ weights["lm_head.weight"].T).log_softmax(-1)
    torch.testing.assert_close(thought.model(tokens()).log_softmax(-1).double(), exact, atol=1e-4, rtol=0)


def test_the_random_state_stays():
    before = torch.get_rng_state()
    second_thought(11)
    assert torch.get_rng_state().equal(before)
