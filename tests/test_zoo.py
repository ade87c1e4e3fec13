"""The shipped model against its card, and the code that made it."""

import json

import numpy as np
import pytest
import torch
from transformers import GPT2Config

from utils import models
from utils.datasets import world
from utils.training import measure
from utils.training import world as recipe_of_world
from utils.training.gpt2 import GPT2, Recipe, fresh_hf, init_weights, to_hf, train

FOLDER = recipe_of_world.SHIPPED
SMALL = Recipe(d_vocab=len(world.VOCABULARY), steps=3, n_layers=2, d_model=32, n_heads=2, d_mlp=64, batch_size=4)


@pytest.fixture(scope="module")
def card() -> dict:
    return json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return models.load("world", device="cpu")


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return world.corpus(SMALL.steps * SMALL.batch_size, SMALL.n_ctx + 1)


def _random_model(seed: int = 0) -> GPT2:
    """A small model whose every parameter, biases and LayerNorms too, is random."""
    model = init_weights(GPT2(SMALL.config()), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def _tokens(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(world.corpus(4, seed=seed).astype(np.int64))


# --- The shipped folder ---


def test_files_are_those_of_the_card(card):
    assert card["name"] == "world" and card["files"] == recipe_of_world.file_hashes(FOLDER)
    assert set(card["files"]) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_the_folder_is_small_and_holds_no_pickle():
    files = [f for f in FOLDER.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 4e6
    assert {f.suffix for f in files} == {".json", ".safetensors"}


def test_card_states_the_recipe(card):
    stated = dict(card["recipe"])
    assert stated.pop("seed") == 0
    assert Recipe(**stated) == recipe_of_world.RECIPE


def test_every_fact_says_its_kind(card):
    assert {f["kind"] for f in card["facts"]} == {"annotated", "measured"}
    for row in (f for f in card["facts"] if f["kind"] == "measured"):
        assert row["seeds"] == [0, 1, 2] and len(row["values"]) == 3 and row["value"] == row["values"][0]


def test_measured_facts_hold_on_every_seed_they_name(card):
    claims = {claim.statement: claim for claim in recipe_of_world.CLAIMS}
    for row in card["facts"]:
        if row["kind"] == "measured":
            assert all(claims[row["fact"]].holds(value) for value in row["values"])
    for row in card["not_on_every_seed"]:
        assert not all(claims[row["fact"]].holds(value) for value in row["values"])


def test_measured_again_the_facts_are_the_same(card, model):
    stated = {row["fact"]: row for row in card["facts"] + card["not_on_every_seed"]}
    again = recipe_of_world.measured(model)
    assert len(again) == len([r for r in stated.values() if r["kind"] == "measured"])
    for claim, value in zip(recipe_of_world.CLAIMS, again, strict=True):
        row = stated[claim.statement]
        assert value == pytest.approx(row["value"], abs=row["tolerance"]), claim.statement


# --- Tracing ---


def test_direct_attribution_sums_to_the_logit_difference(model):
    tracing = measure.CapitalTracing(model)
    assert sum(tracing.direct_attribution().values()) == pytest.approx(tracing.logit_diff, abs=1e-3)


def test_attribution_of_heads_sums_to_that_of_attention(model):
    tracing = measure.CapitalTracing(model)
    heads, components = tracing.direct_attribution_of_heads(), tracing.direct_attribution()
    layer = model.cfg.n_layers - 1
    bias = (model.b_O[layer] * tracing.logit_diff_direction()).sum(-1).mean().item()
    assert heads[layer].sum().item() + bias == pytest.approx(components[f"attn {layer}"], abs=1e-4)


def test_patching_has_its_trivial_values(model):
    effects = measure.CapitalTracing(model).patch_resid()
    assert effects.shape == (model.cfg.n_layers + 1, 6)
    before_country, after_last_block = effects[:, : measure.SUBJECT], effects[-1]
    assert before_country.abs().max() < 1e-5  # the two prompts are the same there
    assert effects[0, measure.SUBJECT] == pytest.approx(1, abs=1e-4)  # the only word that differs
    assert after_last_block[measure.LAST] == pytest.approx(1, abs=1e-4)


def test_ablation_knows_its_kinds(model):
    with pytest.raises(ValueError, match="kind: got 'resample', expected 'zero' or 'mean'"):
        measure.CapitalTracing(model).ablate("blocks.0.hook_mlp_out", "resample")


# --- Architecture and conversion ---


def test_conversion_is_exact():
    model = _random_model()
    with torch.no_grad():
        difference = model(_tokens()) - to_hf(model)(_tokens()).logits
    assert difference.abs().max() < 1e-5


def test_conversion_and_initialisation_leave_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fresh_hf(SMALL.config(), seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_fresh_weights_depend_on_the_seed_alone():
    first, again, other = (fresh_hf(SMALL.config(), seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_twin_of_the_shipped_configuration(model):
    config = GPT2Config.from_pretrained(FOLDER)
    assert config.tie_word_embeddings is False
    assert fresh_hf(config, 0).lm_head.weight.shape == (model.cfg.d_vocab, model.cfg.d_model)


@pytest.mark.parametrize("wrong", [{"activation_function": "relu"}, {"tie_word_embeddings": True}])
def test_another_architecture_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"config.{name}: got"):
        GPT2(GPT2Config(**({"activation_function": "gelu_new", "tie_word_embeddings": False} | wrong)))


# --- Training ---


def test_a_resumed_run_ends_with_the_same_weights(tmp_path, rows):
    whole = train(SMALL, rows, seed=3)
    train(SMALL, rows, seed=3, checkpoint=tmp_path / "c.pt", stop_at=2)
    resumed = train(SMALL, rows, seed=3, checkpoint=tmp_path / "c.pt")
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_training_lowers_the_loss(rows):
    losses = []
    train(SMALL, rows, seed=0, save_every=1, on_save=lambda step, loss, model: losses.append((step, loss)))
    assert [step for step, _ in losses] == [1, 2, 3] and losses[-1][1] < losses[0][1]


def test_a_checkpoint_of_another_run_is_refused(tmp_path, rows):
    train(SMALL, rows, seed=3, checkpoint=tmp_path / "c.pt", stop_at=1)
    with pytest.raises(ValueError, match="another recipe or seed"):
        train(SMALL, rows, seed=4, checkpoint=tmp_path / "c.pt")


def test_too_few_or_too_short_rows_are_refused(rows):
    for wrong in (rows[:-1], rows[:, :-1]):
        with pytest.raises(ValueError, match=r"rows: got shape .* expected at least 12 rows of 65 tokens"):
            train(SMALL, wrong, seed=0)


def test_a_model_of_another_seed_is_not_overwritten(tmp_path):
    (tmp_path / "card.json").write_text('{"recipe": {"seed": 0}}')
    with pytest.raises(FileExistsError, match="holds the model of seed 0, not 1"):
        recipe_of_world.make(tmp_path, seed=1)


def test_making_and_merging(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_of_world, "N_MEASURED", 4)
    folders = [tmp_path / "0", tmp_path / "1"]
    for seed, folder in enumerate(folders):
        recipe_of_world.make(folder, seed, steps=2)
        assert not (folder / ".cache").exists()
    # Another seed over the same folder: only when forced, and the card of the old weights does not stand in the way.
    with pytest.raises(FileExistsError, match="holds the model of seed 1, not 2"):
        recipe_of_world.make(folders[1], 2, steps=2)
    recipe_of_world.make(folders[1], 2, steps=2, force=True)
    recipe_of_world.make(folders[1], 1, steps=2, force=True)
    recipe_of_world.merge_cards(folders)
    card = json.loads((folders[0] / "card.json").read_text())
    assert card["recipe"]["steps"] == 2 and card["files"] == recipe_of_world.file_hashes(folders[0])
    rows = [f for f in card["facts"] + card["not_on_every_seed"] if f["kind"] == "measured"]
    assert len(rows) == len(recipe_of_world.CLAIMS) and all(row["seeds"] == [0, 1] for row in rows)
    assert models.load(folders[1], device="cpu")(_tokens()).shape == (4, 64, len(world.VOCABULARY))
