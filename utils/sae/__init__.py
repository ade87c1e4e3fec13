"""Sparse autoencoders and transcoders: six architectures, one trainer, and what tells whether they found anything.

    SAE, TopK, BatchTopK, Matryoshka, ReLU, JumpReLU, Gated     a dictionary and its architecture (`model`)
    train                                                       the trainer, for one dictionary or several (`training`)
    activations, Stream                                         what a model holds at a hook point (`streams`)
    fvu, evaluate, splice, loss_recovered                       reconstruction, sparsity, cost in the model (`metrics`)
    best_cosines, recurring, match, absorption, splits          what was found (`metrics`)
    dashboard                                                   a page on each latent (`pages`)
    available, card, shipped                                    the dictionaries of the course (`collection`)
    save, load, load_published                                  files, also those of sae-lens (`files`)

A dictionary writes an activation x as a sum of few directions, ``x ≈ z W_dec + b_dec``. The numbers z are its
*latents*, the rows of W_dec their directions. Axes: ``[*instance ...]`` in front for several dictionaries in one tensor
program, [sample d] for activations, [sample latent] for latents.
"""

from utils.sae.collection import SHIPPED, DictionaryCard, available, card, shipped
from utils.sae.files import load, load_published, save
from utils.sae.metrics import (
    Matches,
    Report,
    Spliced,
    absorption,
    best_cosines,
    evaluate,
    fvu,
    loss_recovered,
    match,
    names_of,
    recurring,
    splice,
    splits,
)
from utils.sae.model import SAE, Architecture, BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, TopK
from utils.sae.pages import Context, Dashboard, Page, dashboard
from utils.sae.streams import Stream, activations
from utils.sae.training import History, train

__all__ = [
    "SAE",
    "SHIPPED",
    "Architecture",
    "BatchTopK",
    "Context",
    "Dashboard",
    "DictionaryCard",
    "Gated",
    "History",
    "JumpReLU",
    "Matches",
    "Matryoshka",
    "Page",
    "ReLU",
    "Report",
    "Spliced",
    "Stream",
    "TopK",
    "absorption",
    "activations",
    "available",
    "best_cosines",
    "card",
    "dashboard",
    "evaluate",
    "fvu",
    "load",
    "load_published",
    "loss_recovered",
    "match",
    "names_of",
    "recurring",
    "save",
    "shipped",
    "splice",
    "splits",
    "train",
]
