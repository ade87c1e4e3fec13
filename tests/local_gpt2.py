"""Small random models in GPT-2 format, written to a folder: stand-ins for "gpt2" and for a shipped model.

Everything is made on the spot (no network, well under a second), so tests of the sections *On a real
model* load them through `utils.models.load(folder)` exactly as they would load GPT-2.
"""

import hashlib
import json
from itertools import permutations
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
PLACES = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo"}
NAMES = ("Mary", "John", "Anna", "Tom")
SENTENCES = (
    *(f"The capital of {country} is {city}. {city} is in {country}." for country, city in PLACES.items()),
    *(f"When {a} and {b} went to the store, {a} gave a drink to {b}." for a, b in permutations(NAMES, 2)),
    "The keys to the cabinet are on the table. The key to the cabinets is on the table.",
    "The Eiffel Tower is in the city of Paris. The Colosseum is in the city of Rome.",
)
WORLD_WORDS = (
    ".", "Berlin", "France", "Germany", "Italy", "Madrid", "Paris", "Rome", "Spain", "The", "a", "are",
    "capital", "city", "in", "is", "of", "the",
)  # fmt: skip


def make_local_gpt2(
    folder,
    seed: int = 0,
    n_layers: int = 2,
    n_heads: int = 2,
    d_model: int = 32,
    n_ctx: int = 128,
    std: float = 0.2,
) -> Path:
    """Writes a random GPT-2 with a byte-level BPE tokenizer and returns its folder.

    As in GPT-2, bos = eos = unk = "<|endoftext|>" and words carry their space: " Paris", " Rome", " France",
    " Italy" and the names of `NAMES` (" Mary") are single tokens. `std`: scale of the random weights.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES * 2, trainer)
    special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT}
    return _write(folder, bpe, special, seed, n_layers, n_heads, d_model, n_ctx, std)


def make_local_world(
    folder,
    seed: int = 0,
    words: tuple[str, ...] = WORLD_WORDS,
    n_layers: int = 2,
    n_heads: int = 2,
    d_model: int = 32,
    n_ctx: int = 64,
    std: float = 0.2,
    card: bool = False,
) -> Path:
    """Writes a random model like the shipped ones (words as tokens, untied unembedding); `card`: with a card."""
    vocabulary = ["<pad>", "<bos>", "<unk>", "<eos>", *words]
    word_level = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<unk>"))
    word_level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "unk_token": "<unk>", "eos_token": "<eos>"}
    shape = (n_layers, n_heads, d_model, n_ctx, std)
    folder = _write(folder, word_level, special, seed, *shape, tied=False, add_bos_token=True)
    if card:
        write_card(folder)
    return folder


def write_card(folder, **changes) -> dict:
    """Writes card.json with the hashes of the files now in `folder`; `changes` replace its entries."""
    folder = Path(folder)
    files = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.name != "card.json"
    }
    fact = {"kind": "annotated", "fact": "vocabulary size", "value": 22, "tolerance": 0, "seeds": [0]}
    card = {
        "name": folder.name,
        "description": "A random model for tests.",
        "recipe": {"seed": 0},
        "files": files,
        "facts": [fact],
    }
    card.update(changes)
    (folder / "card.json").write_text(json.dumps(card))
    return card


def _write(
    folder, tokenizer, special, seed, n_layers, n_heads, d_model, n_ctx, std, tied=True, **tokenizer_options
) -> Path:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ids = {name.replace("token", "token_id"): tokenizer.token_to_id(token) for name, token in special.items()}
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=n_ctx,
        n_embd=d_model,
        n_layer=n_layers,
        n_head=n_heads,
        initializer_range=std,
        tie_word_embeddings=tied,
        architectures=["GPT2LMHeadModel"],
        bos_token_id=ids["bos_token_id"],
        eos_token_id=ids["eos_token_id"],
        pad_token_id=ids.get("pad_token_id"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = GPT2LMHeadModel(config).state_dict()
    if tied:
        del weights["lm_head.weight"]  # the embedding serves
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=n_ctx, **special, **tokenizer_options)
    fast.save_pretrained(folder)
    return folder
