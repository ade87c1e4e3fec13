"""The recipe of the shipped model `world`: a four-layer GPT-2 on the toy language of `utils.datasets.world`.

5.2 million tokens; about nine minutes on one CPU core. The card states what was measured on several seeds.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from transformer_lens import TransformerBridge

from utils import models
from utils.datasets import world
from utils.training import measure
from utils.training.gpt2 import GPT2, Recipe, to_hf, train

RECIPE = Recipe(d_vocab=len(world.VOCABULARY), steps=2500)
SHIPPED = Path(__file__).parents[1] / "zoo" / "world"
DESCRIPTION = "A four-layer GPT-2 trained on a toy English of facts, agreement, indirect objects and repeated words."


# --- What the card states -------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A statement about the model, with the measurement that decides it.

    `measure` takes a processed bridge and returns one number; the claim holds when that number is at least `at_least`
    (or at most `at_most`). `tolerance` is how far a repeated measurement of the same weights may differ.
    """

    fact: str
    measure: Callable[[TransformerBridge], float]
    at_least: float | None = None
    at_most: float | None = None
    tolerance: float = 0.01

    def holds(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def statement(self) -> str:
        """The fact with its bound."""
        bound = f"at least {self.at_least}" if self.at_least is not None else f"at most {self.at_most}"
        return f"{self.fact}: {bound}"


N_MEASURED = 300  # sentences per accuracy


def _fact_claim(relation: str, split: str, at_least: float) -> Claim:
    def top1(model: TransformerBridge) -> float:
        batch = world.sentences("fact", N_MEASURED, measure.SEED, split, relation=relation)
        return measure.top1(model, batch)

    return Claim(f"top-1 accuracy on facts ({relation}), {_SPLIT_NAMES[split]}", top1, at_least)


def _agreement_claim(form: str, split: str, at_least: float) -> Claim:
    def accuracy(model: TransformerBridge) -> float:
        return measure.beats_distractor(model, measure.mismatching(form, N_MEASURED, split))

    attractors = "" if form == "simple" else ", attractors of the other number"
    text = f"the agreeing form of the verb beats the other one ({form}{attractors}), {_SPLIT_NAMES[split]}"
    return Claim(text, accuracy, at_least)


def _indirect_object_claim(split: str, at_least: float) -> Claim:
    def top1(model: TransformerBridge) -> float:
        return measure.top1(model, world.sentences("indirect_object", N_MEASURED, measure.SEED, split))

    return Claim(f"top-1 accuracy on indirect objects, {_SPLIT_NAMES[split]}", top1, at_least)


def _second_copy_nll(model: TransformerBridge) -> float:
    return measure.second_copy_nll(model, world.sentences("repeat", N_MEASURED, measure.SEED))


def _tracing_claim(text: str, value: Callable[[measure.CapitalTracing], float], **bound: float) -> Claim:
    def traced(model: TransformerBridge) -> float:
        return float(value(measure.CapitalTracing(model)))

    return Claim(f'in "The capital of {{country}} is", {text}', traced, **bound)


def _worst_without_attention(tracing: measure.CapitalTracing) -> float:
    """The lowest top-1 accuracy when the attention of one block after block 0 is mean-ablated."""
    layers = range(1, tracing.model.cfg.n_layers)
    return min(tracing.ablate(f"blocks.{i}.hook_attn_out", "mean")[1] for i in layers)


def _left_without(tracing: measure.CapitalTracing, hook: str, position: int) -> float:
    return tracing.ablate(hook, "mean", position)[0] / tracing.logit_diff


def _mlp_share(tracing: measure.CapitalTracing, layers: Iterable[int]) -> float:
    effects = tracing.direct_attribution()
    return sum(effects[f"mlp {layer}"] for layer in layers) / tracing.logit_diff


_AFTER_BLOCK_0 = "blocks.1.hook_resid_pre"
_SPLIT_NAMES = {"train": "training templates", "held_out": "held-out templates"}
CLAIMS: tuple[Claim, ...] = (
    *(_fact_claim(r, "train", 0.97) for r in ("capital", "capital_of", "language", "continent")),
    *(_fact_claim(r, "held_out", 0.9) for r in ("capital", "capital_of", "language", "continent")),
    *(_agreement_claim(f, s, b) for s, b in (("train", 0.97), ("held_out", 0.9)) for f in (
        "simple", "pp", "two_pps", "object_relative", "subject_relative"
    )),
    _indirect_object_claim("train", 0.97),
    _indirect_object_claim("held_out", 0.9),
    Claim(
        "loss on the second copy of repeated random words after its first (nats per token)",
        _second_copy_nll, at_most=0.2,
    ),
    _tracing_claim("the capital is the most likely word (share of countries)", lambda t: t.accuracy, at_least=0.97),
    _tracing_claim(
        "the country has reached the last position after block 0 (share of the logit difference moved by patching it)",
        lambda t: t.patch(_AFTER_BLOCK_0, measure.LAST), at_least=0.9,
    ),
    _tracing_claim(
        "its own position no longer matters after block 0 (share moved by patching it)",
        lambda t: t.patch(_AFTER_BLOCK_0, measure.SUBJECT), at_most=0.1,
    ),
    _tracing_claim(
        "one head of block 0 moves it (share moved by patching the strongest head at the last position)",
        lambda t: t.patch_heads()[0].max(), at_least=0.8,
    ),
    _tracing_claim(
        "MLP 0 is needed at the last position (share of the logit difference left when mean-ablated there)",
        lambda t: _left_without(t, "blocks.0.hook_mlp_out", measure.LAST), at_most=0.3,
    ),
    _tracing_claim(
        "MLP 0 is not needed at the country (share of the logit difference left when mean-ablated there)",
        lambda t: _left_without(t, "blocks.0.hook_mlp_out", measure.SUBJECT), at_least=0.97,
    ),
    _tracing_claim(
        "no later attention is needed (lowest top-1 accuracy when that of one block is mean-ablated)",
        _worst_without_attention, at_least=0.97, tolerance=0.03,
    ),
    _tracing_claim(
        "MLPs write the answer (their share of the logit difference by direct attribution)",
        lambda t: _mlp_share(t, range(t.model.cfg.n_layers)), at_least=0.9,
    ),
    _tracing_claim(
        "MLP 3 alone writes half of it (share of the logit difference by direct attribution)",
        lambda t: _mlp_share(t, [3]), at_least=0.5,
    ),
    _tracing_claim(
        "yet MLP 3 is not needed (top-1 accuracy when mean-ablated)",
        lambda t: t.ablate("blocks.3.hook_mlp_out", "mean")[1], at_least=0.9, tolerance=0.03,
    ),
)  # fmt: skip

_ANNOTATED: tuple[tuple[str, object], ...] = (
    ("countries whose capital, language and continent the corpus states", len(world.COUNTRIES)),
    ("held-out templates are made of words of the corpus and never occur in it", True),
    ("number of the subject and number of the attractor are independent", True),
    ("the recipient is named first (ABBA) as often as second (BABA)", True),
    ("rows of repeated random words, as a share of all rows; periods 4 to 24", world.REPEAT_SHARE),
    ("every word is one token", True),
)


def measured(model: TransformerBridge) -> list[float]:
    """The value of every claim, in the order of `CLAIMS`."""
    return [round(claim.measure(model), 4) for claim in CLAIMS]


# --- Folders --------------------------------------------------------------------------------------


def file_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file of a model's folder but its card."""
    files = (f for f in sorted(folder.iterdir()) if f.is_file() and f.name != "card.json")
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def save_folder(model: GPT2, folder: Path) -> None:
    """Write `model` (float16) and the tokenizer in Hugging Face's GPT-2 format; a card of earlier weights goes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").unlink(missing_ok=True)
    to_hf(model).half().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    world.tokenizer().save_pretrained(folder)


def write_card(folder: Path, recipe: Recipe, values: Mapping[int, Sequence[float]]) -> None:
    """Write card.json for the model in `folder`, trained by `recipe`.

    `values` maps seeds to what `measured` gave for the model of that seed; the first is the model in `folder`. A claim
    that holds on every seed is a fact; one that does not goes to "not_on_every_seed", with the same entries.
    """
    seeds = list(values)
    facts = [{"kind": "annotated", "fact": text, "value": value} for text, value in _ANNOTATED]
    others = []
    for i, claim in enumerate(CLAIMS):
        each = [values[seed][i] for seed in seeds]
        row = {
            "kind": "measured", "fact": claim.statement, "value": each[0], "tolerance": claim.tolerance,
            "seeds": seeds, "values": each,
        }  # fmt: skip
        (facts if all(map(claim.holds, each)) else others).append(row)
    card = {
        "name": "world",
        "description": DESCRIPTION,
        "recipe": {"seed": seeds[0]} | asdict(recipe),
        "files": file_hashes(folder),
        "facts": facts,
        "not_on_every_seed": others,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _recipe_in(folder: Path) -> dict:
    """What the card in `folder` says of its recipe: the fields of `Recipe`, and the seed."""
    return json.loads((folder / "card.json").read_text(encoding="utf-8"))["recipe"]


def make(out: Path = SHIPPED, seed: int = 0, steps: int | None = None, force: bool = False) -> None:
    """Train from `seed`, write the folder `out`, measure the model and write its card.

    An interrupted run continues when the same command is given again. Raises FileExistsError where `out` holds
    a model of another seed, unless `force`.
    """
    if not force and (out / "card.json").exists() and (found := _recipe_in(out)["seed"]) != seed:
        raise FileExistsError(f"out: {out} holds the model of seed {found}, not {seed}; choose another or use --force")
    recipe = replace(RECIPE, steps=steps or RECIPE.steps)
    rows = world.corpus(recipe.steps * recipe.batch_size, recipe.n_ctx + 1, seed)
    checkpoint = out / ".cache" / "checkpoint.pt"
    model = train(recipe, rows, seed, checkpoint)
    save_folder(model, out)
    write_card(out, recipe, {seed: measured(models.load(out, device="cpu"))})
    checkpoint.unlink()
    checkpoint.parent.rmdir()


def merge_cards(folders: Sequence[Path]) -> None:
    """Measure the models of several seeds and write what they share into the card of the first.

    Raises ValueError where the folders' recipes differ in more than the seed.
    """
    torch.set_num_threads(1)
    recipes = [_recipe_in(folder) for folder in folders]
    seeds = [recipe.pop("seed") for recipe in recipes]
    if any(recipe != recipes[0] for recipe in recipes):
        raise ValueError(f"folders: the recipes differ in more than the seed ({recipes})")
    values = {seed: measured(models.load(folder, device="cpu")) for seed, folder in zip(seeds, folders, strict=True)}
    write_card(folders[0], Recipe(**recipes[0]), values)
