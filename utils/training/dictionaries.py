"""How the shipped dictionaries are made: trained on activations of the corpus, measured, described by one card.

    python -m utils.training dictionaries [--out DIR]

Two widths and two seeds on `world`, one on its untrained twin. All are TopK with eight latents, on the residual stream
after block 2. What is measured stands in the card under "measurements", for each dictionary; how far a latent tells a
concept is measured on rows that neither the dictionary nor the choice of the latent has seen.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformer_lens import TransformerBridge

from utils import models, sae
from utils.datasets import world

HOOK = "blocks.2.hook_resid_post"
ROWS, CORPUS_SEED = 12_000, 2100
MEASURED_ROWS, MEASURED_SEED = 1200, 2200
SPLICED_ROWS, SPLICED_SEED = 400, 2300


@dataclass(frozen=True)
class Recipe:
    """Of one dictionary."""

    n_latents: int
    seed: int
    model: str = "world"
    untrained: bool = False
    k: int = 8
    steps: int = 4000
    batch_size: int = 1024
    lr: float = 2e-3


RECIPES = {
    "world_256": Recipe(256, seed=0),
    "world_256_seed1": Recipe(256, seed=1),
    "world_1024": Recipe(1024, seed=0),
    "world_1024_seed1": Recipe(1024, seed=1),
    "untrained_1024": Recipe(1024, seed=0, untrained=True),
}


def rows(n: int, seed: int) -> torch.Tensor:
    """Rows of the corpus as token ids, [row pos]."""
    return torch.from_numpy(world.corpus(n, seed=seed).rows).long()


def load_model(recipe: Recipe) -> TransformerBridge:
    """The model that a dictionary was trained on."""
    return (
        models.untrained_twin(recipe.model, device="cpu")
        if recipe.untrained
        else models.load(recipe.model, device="cpu")
    )


def measure(dictionary: sae.SAE, model: TransformerBridge) -> dict[str, float | dict[str, float]]:
    """What a dictionary is worth, on rows that it was not trained on."""
    known = world.annotated(MEASURED_ROWS, seed=MEASURED_SEED)
    x = sae.activations(model, known.tokens, HOOK)
    labels = known.labels[:, 1:].flatten(0, 1)
    report, spliced = (
        sae.evaluate(dictionary, x),
        sae.loss_recovered(model, dictionary, rows(SPLICED_ROWS, SPLICED_SEED)),
    )
    found = sae.match(dictionary.encode(x), labels)
    f1 = {name: round(value, 4) for name, value in zip(known.concepts, found.f1.tolist(), strict=True)}
    values = {
        "fvu": report.fvu, "l0": report.l0, "dead": report.dead, "dense": report.dense, "bias": report.bias,
        "loss, clean": spliced.clean, "loss, spliced": spliced.spliced, "loss, mean ablated": spliced.ablated,
        "loss recovered": spliced.recovered, "F1, mean over concepts": found.f1.mean(),
    }  # fmt: skip
    return {name: round(float(value), 4) for name, value in values.items()} | {"F1": f1}


def make(out: Path) -> None:
    """Train all dictionaries, measure them and write files and card."""
    out.mkdir(parents=True, exist_ok=True)
    entries = {}
    tokens = rows(ROWS, CORPUS_SEED)
    for untrained in (False, True):
        recipes = {name: recipe for name, recipe in RECIPES.items() if recipe.untrained == untrained}
        model = load_model(next(iter(recipes.values())))
        x = sae.activations(model, tokens, HOOK)
        for name, recipe in recipes.items():
            print(name, flush=True)
            dictionary = sae.train(
                x, sae.TopK(recipe.k), recipe.n_latents, steps=recipe.steps, batch_size=recipe.batch_size,
                lr=recipe.lr, seed=recipe.seed, hook=HOOK,
            )  # fmt: skip
            file = out / f"{name}.safetensors"
            sae.save(dictionary, file, dtype=torch.float16)
            entries[name] = {
                "recipe": asdict(recipe) | {"rows": ROWS, "corpus_seed": CORPUS_SEED, "hook": HOOK},
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "measurements": measure(sae.load(file), model),
            }
    (out / "card.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
