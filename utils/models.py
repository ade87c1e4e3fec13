"""Models of the course: shipped ones, local folders and the Hugging Face Hub, all through one call.

`load` returns a TransformerLens bridge or raises a `ModelError` of one sentence, never a half-loaded model:
files are compared with the hashes on the model's card before they are read, weights must fit the
configuration exactly, pickles are never opened and code from a model folder is never run.
"""

import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
from safetensors.torch import load_file
from tokenizers.models import WordLevel
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPT2Config, PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

ZOO = Path(__file__).parent / "zoo"
HUB_FILES = ["*.json", "*.safetensors", "merges.txt", "tokenizer.model"]
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
WEIGHTS = "model.safetensors"
KINDS = ("planted", "annotated", "measured")


class ModelError(RuntimeError):
    """A model cannot be loaded. One sentence: what is wrong, and what to do."""


class HubUnreachable(ModelError):
    """The model would have to come from the Hugging Face Hub, and there is no way to it."""


class UnknownWordError(ValueError):
    """A text contains words that a word-level model does not know. Names them, and near ones."""


@dataclass(frozen=True)
class Fact:
    """One thing that is true of a model, and how it is known (`kind`: planted, annotated or measured)."""

    kind: str
    fact: str
    value: Any
    tolerance: float | None = None
    seeds: tuple[int, ...] = ()

    def __post_init__(self):
        _need(self.kind in KINDS, f"kind must be one of {', '.join(KINDS)}", self.kind)
        _need(isinstance(self.fact, str), "fact must be a text", self.fact)
        _need(isinstance(self.tolerance, int | float | None), "tolerance must be a number", self.tolerance)
        _need(all(isinstance(seed, int) for seed in self.seeds), "seeds must be integers", self.seeds)


@dataclass(frozen=True)
class Card:
    """What a model is, how it was made (`recipe`), the SHA-256 of its files, and what is true of it."""

    name: str
    description: str
    recipe: dict[str, Any]
    files: dict[str, str]
    facts: tuple[Fact, ...]

    def __post_init__(self):
        _need(isinstance(self.name, str), "name must be a text", self.name)
        _need(isinstance(self.description, str), "description must be a text", self.description)
        _need(isinstance(self.recipe, dict), "recipe must be an object", self.recipe)
        _need(isinstance(self.files, dict), "files must map file names to SHA-256", self.files)
        for file in ("config.json", "model.safetensors", "tokenizer.json", *self.files):
            digest = self.files.get(file)
            _need(isinstance(digest, str) and len(digest) == 64, f"files[{file!r}] must be a SHA-256", digest)
            _need(Path(file).name == file, "files must list plain file names", file)


def _need(holds: bool, rule: str, got: Any) -> None:
    if not holds:
        raise ValueError(f"{rule}, got {got!r:.60}")


def available() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(folder.name for folder in ZOO.glob("[!._]*") if folder.is_dir())


def card(name: str | os.PathLike) -> Card:
    """The card of a shipped model, or of a local folder with a card.json. Raises ModelError without one."""
    folder = _local_folder(name)
    if folder is None:
        raise ModelError(f"{_not_here(name)}: pass the name of a shipped model.")
    if not (folder / "card.json").is_file():
        raise ModelError(f"{folder} has no card.json: {_remedy(folder)}.")
    return _parse_card(folder / "card.json")


def checkpoints(name: str | os.PathLike) -> list[int]:
    """Training steps at which a model's weights were kept, in order, without the final ones. Errors as `card`."""
    return sorted(steps for file in card(name).files if (steps := _steps_of(file)) is not None)


def load(
    name: str | os.PathLike,
    processed: bool = True,
    device: str | torch.device | None = None,
    checkpoint: int | None = None,
) -> TransformerBridge:
    """Loads a model for inspection: in eval mode, in float32, its parameters without gradients.

    Args:
        name: a shipped model (`available()`), a folder in Hugging Face format, or a Hub name such as "gpt2"
            (taken from the local cache when it is there). The first two never touch the network.
        processed: fold LayerNorm and centre the weights (TransformerLens compatibility mode).
        device: where to put it; CUDA when there, else the CPU.
        checkpoint: one of `checkpoints(name)`, for the weights after so many training steps; None: the final ones.

    For gradients (attribution patching, `incl_bwd=True`) call `model.requires_grad_(True)` first.

    Raises:
        TypeError: `name` is neither str nor path.
        ModelError: the model does not exist, is incomplete, altered or does not fit its own description.
    """
    with _undisturbed():
        folder = _folder(name)
        if checkpoint is not None and checkpoint not in (kept := checkpoints(name)):
            raise ModelError(f"{folder} has no checkpoint {checkpoint!r}: pass one of {kept}.")
        _check_files(folder, weights=True)
        config, tokenizer = _load_config(folder), _load_tokenizer(folder)
        hf_model = _load_weights(folder, config, WEIGHTS if checkpoint is None else checkpoint_file(checkpoint))
        return _boot(name, folder, hf_model, tokenizer, processed, device)


def untrained_twin(
    name: str | os.PathLike, seed: int = 0, processed: bool = True, device: str | torch.device | None = None
) -> TransformerBridge:
    """The control for every finding: same configuration and tokenizer as `name`, freshly initialised weights.

    Arguments and errors as `load`; in addition ModelError for models that are not of the GPT-2 architecture.
    """
    with _undisturbed():
        folder = _folder(name)
        _check_files(folder, weights=False)
        config, tokenizer = _load_config(folder), _load_tokenizer(folder)
        try:
            hf_model = _fresh(config, seed)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"No untrained twin can be made of {folder} ({_short(error)}): pass a shipped model."
            ) from None
        return _boot(name, folder, hf_model, tokenizer, processed, device)


def checkpoint_file(steps: int) -> str:
    """Name of the file with the weights after so many training steps."""
    return f"checkpoint_{steps:05d}.safetensors"


def _steps_of(file: str) -> int | None:
    found = re.fullmatch(r"checkpoint_(\d+)\.safetensors", file)
    return int(found[1]) if found else None


def _fresh(config: Any, seed: int) -> torch.nn.Module:
    from utils.training.gpt2 import fresh_hf

    if not isinstance(config, GPT2Config):
        raise TypeError(f"its config.json describes a {config.model_type} model, not GPT-2")
    return fresh_hf(config, seed)


def wrap(
    hf_model: torch.nn.Module,
    tokenizer: Any,
    name: str,
    processed: bool = True,
    device: str | torch.device | None = None,
) -> TransformerBridge:
    """A Hugging Face model that was made in memory (and is changed in place) as `load` would return it.

    Raises ModelError where TransformerLens cannot wrap it.
    """
    with _undisturbed():
        return _boot(name, Path(name), hf_model, tokenizer, processed, device)


# --- Where a model lies


def _folder(name: str | os.PathLike) -> Path:
    return _local_folder(name) or _hub_folder(str(name))


def _local_folder(name: str | os.PathLike) -> Path | None:
    """The folder of a shipped model or an existing folder; None for what can only be a Hub name."""
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"name must be a str or a path, got {type(name).__name__}: {name!r}")
    if isinstance(name, str) and name in available():
        return ZOO / name
    path, text = Path(name).expanduser(), str(name)
    if text and path.is_dir():
        return path
    if path.is_file():
        raise ModelError(f"{path} is a file: pass the folder that contains it.")
    could_be_hub_name = isinstance(name, str) and text.count("/") <= 1 and "\\" not in text
    if not could_be_hub_name or text.startswith((".", "~", "/")) or text.endswith("/"):
        raise ModelError(f"There is no folder {text!r}: check the path (working directory: {Path.cwd()}).")
    return None


def _hub_folder(name: str) -> Path:
    """The folder of a Hub model in the local cache; downloaded first if it is not complete there."""
    cached = None
    try:
        config = try_to_load_from_cache(name, "config.json")
        cached = Path(config).parent if isinstance(config, str) else None
        if cached and not _missing(cached, weights=True):
            return cached
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except GatedRepoError:
        raise ModelError(
            f"{name!r} is gated on the Hugging Face Hub: accept its terms there and run `hf auth login`."
        ) from None
    except (HFValidationError, RepositoryNotFoundError):
        raise ModelError(f"{_not_here(name)} nor a model on the Hugging Face Hub: check the name.") from None
    except Exception as error:
        if cached and _pickles(cached):
            return cached  # refused with the sentence about pickles
        reason = "" if isinstance(error, LocalEntryNotFoundError) else f" ({_short(error)})"
        raise HubUnreachable(
            f"{_not_here(name)}, and the Hugging Face Hub cannot be reached{reason}: "
            "connect to the network for the first download, or pass the path of a local copy."
        ) from None


def _not_here(name: str | os.PathLike) -> str:
    shipped = ", ".join(available()) or "none"
    near = get_close_matches(str(name), available(), n=1)
    hint = f"; near: {near[0]}" if near else ""
    return f"{str(name)!r} is neither a shipped model (shipped: {shipped}{hint}) nor a folder"


# --- What lies there


def _pickles(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)


def _missing(folder: Path, weights: bool) -> str | None:
    """The file without which `folder` is no model, if one is missing."""
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        return "config.json"
    if weights and not any(name.endswith(".safetensors") for name in names):
        return "model.safetensors"
    has_tokenizer = names & {"tokenizer.json", "tokenizer.model"} or {"vocab.json", "merges.txt"} <= names
    return None if has_tokenizer else "tokenizer.json"


def _check_files(folder: Path, weights: bool) -> None:
    """Refuses a folder with a file missing, altered (by the card's hashes) or, if JSON, unreadable."""
    missing = _missing(folder, weights)
    if missing == "config.json":
        raise ModelError(
            f"{folder} has no config.json, so it is not a model folder in Hugging Face format: "
            "pass the folder in which config.json and model.safetensors lie."
        )
    if missing == "model.safetensors" and _pickles(folder):
        raise ModelError(
            f"{folder} has its weights only as a pickle ({_pickles(folder)[0]}), which can run code when "
            "opened and is not loaded: save the model again as model.safetensors (save_pretrained does so)."
        )
    if missing:
        raise ModelError(f"{folder} has no {missing}: {_remedy(folder)}.")
    if folder.parent == ZOO or (folder / "card.json").exists():
        for file, expected in card(folder).files.items():
            if weights or not file.endswith(".safetensors"):
                _verify(folder / file, expected)
    for path in sorted(folder.glob("*.json")):
        _read_json(path)


def _verify(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ModelError(f"{path.parent} has no {path.name}: {_remedy(path.parent)}.")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ModelError(
            f"{path} was altered or cut short (SHA-256 {found[:12]}…, card.json says {expected[:12]}…): "
            f"{_remedy(path.parent)}."
        )


def _remedy(folder: Path) -> str:
    if folder.parent == ZOO:
        return f"restore it with `git checkout -- utils/zoo/{folder.name}` or install the course again"
    if folder.parent.name == "snapshots":
        return "delete this folder and load again with a network connection"
    return "copy the complete folder again from where the model was saved"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({_short(error)}): {_remedy(path.parent)}.") from None


def _parse_card(path: Path) -> Card:
    raw = _read_json(path)
    try:
        facts = [{**fact, "seeds": tuple(fact.get("seeds") or ())} for fact in raw["facts"]]
        return _of(Card, {**raw, "facts": tuple(_of(Fact, fact) for fact in facts)})
    except KeyError as error:
        problem = f"it has no {error}"
    except (AttributeError, TypeError, ValueError) as error:
        problem = _short(error)
    raise ModelError(f"{path} is malformed: {problem}; {_remedy(path.parent)}.")


def _of(kind: type, entries: dict) -> Any:
    """A dataclass from the entries that are its fields; the card may hold others."""
    return kind(**{field.name: entries[field.name] for field in fields(kind) if field.name in entries})


# --- Reading it


def _load_config(folder: Path) -> Any:
    path = folder / "config.json"
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"{path} describes no known model ({_short(error)}): {_remedy(folder)}.") from None
    architectures = config.architectures or []
    if architectures and not any(a.endswith(("ForCausalLM", "LMHeadModel")) for a in architectures):
        raise ModelError(
            f"{path} describes a {architectures[0]}, not a causal language model: pass a model that predicts "
            "the next token, such as a GPT2LMHeadModel."
        )
    return config


def _load_tokenizer(folder: Path) -> Any:
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        try:  # as boot_transformers does: bos is prepended by the tokenizer, unless it has none
            return AutoTokenizer.from_pretrained(str(folder), add_bos_token=True, **local)
        except ValueError:
            return AutoTokenizer.from_pretrained(str(folder), **local)
    except BaseException as error:
        # the Rust tokenizers panic on some broken files, and a panic is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ModelError(
            f"The tokenizer in {folder} (tokenizer.json) cannot be read ({_short(error)}): {_remedy(folder)}."
        ) from None


def _final_weights(folder: Path, config: Any) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The model, and what its weights lack, have too much or have in another shape."""
    return AutoModelForCausalLM.from_pretrained(
        str(folder),
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # reported, and refused in one sentence
        output_loading_info=True,
    )


def _checkpoint(path: Path, config: Any) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The same for one of our files beside the final weights, which Hugging Face would not look for."""
    hf_model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    keys = hf_model.load_state_dict(load_file(path), strict=False)
    return hf_model, {"missing_keys": keys.missing_keys, "unexpected_keys": keys.unexpected_keys, "mismatched_keys": []}


def _load_weights(folder: Path, config: Any, file: str = WEIGHTS) -> torch.nn.Module:
    try:
        hf_model, info = _final_weights(folder, config) if file == WEIGHTS else _checkpoint(folder / file, config)
    except Exception as error:
        raise ModelError(
            f"The weights in {folder} ({file}) cannot be read, they may be damaged or cut short "
            f"({_short(error)}): {_remedy(folder)}."
        ) from None
    for what in ("missing", "unexpected", "mismatched"):
        keys = sorted(key if isinstance(key, str) else key[0] for key in info[f"{what}_keys"])
        if keys:
            raise ModelError(
                f"The weights in {folder} ({file}) do not fit its config.json ({len(keys)} {what}, such "
                f"as {keys[0]}): pass a folder whose two files were saved together."
            )
    for key, parameter in hf_model.named_parameters():
        if not parameter.isfinite().all():
            raise ModelError(f"The weights in {folder} ({file}) have NaN or infinity in {key}: {_remedy(folder)}.")
    return hf_model


def _boot(name, folder: Path, hf_model: Any, tokenizer: Any, processed: bool, device: Any) -> TransformerBridge:
    """Wraps a complete Hugging Face model (changed in place) into a bridge."""
    if device is None:
        from utils import session

        device = session.device()
    hf_model = hf_model.to(device)
    try:
        model = TransformerBridge.boot_transformers(str(name), hf_model=hf_model, tokenizer=tokenizer, device=device)
    except Exception as error:
        raise ModelError(
            f"TransformerLens cannot wrap the model in {folder} ({_short(error)}): pass a model whose "
            "architecture it supports, such as GPT-2."
        ) from None
    largest = max(model.tokenizer.get_vocab().values())
    if largest >= model.cfg.d_vocab:
        raise ModelError(
            f"The tokenizer in {folder} (tokenizer.json) has ids up to {largest}, but config.json says "
            f"vocab_size {model.cfg.d_vocab}: pass a folder whose tokenizer and weights were saved together."
        )
    if processed:
        model.enable_compatibility_mode(disable_warnings=True)
    if isinstance(getattr(getattr(model.tokenizer, "backend_tokenizer", None), "model", None), WordLevel):
        # Only now: booting encodes a probe text, whose word need not be in the vocabulary.
        model.tokenizer.__class__, model.__class__ = WordTokenizer, WordBridge
        model.tokenizer.model_label = folder.resolve().name
    return model.eval().requires_grad_(False)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Silence, and the random state, verbosity and progress bars afterwards as they were before."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hub_bars, disabled = not are_progress_bars_disabled(), logging.root.manager.disable
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        hf_logging.set_verbosity_error()
        hf_logging.disable_progress_bar()
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            hf_logging.set_verbosity(verbosity)
            if bars:
                hf_logging.enable_progress_bar()
            if not hub_bars:
                disable_progress_bars()
            logging.disable(disabled)


def _short(error: BaseException) -> str:
    """An error of another library on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:159] + "…"


# --- Words


class WordBridge(TransformerBridge):
    """The bridge of a word-level model: a text that begins with the bos token does not get a second one."""

    def to_tokens(self, input, prepend_bos: bool | None = None, *args, **kwargs) -> torch.Tensor:
        """Token ids, shape [batch, pos]; as TransformerBridge.to_tokens. Raises UnknownWordError."""
        if self.cfg.default_prepend_bos if prepend_bos is None else prepend_bos:
            texts, bos = [input] if isinstance(input, str) else input, self.tokenizer.bos_token
            input = [text.lstrip().removeprefix(bos) if isinstance(text, str) else text for text in texts]
        return super().to_tokens(input, prepend_bos, *args, **kwargs)


class WordTokenizer(PreTrainedTokenizerFast):
    """A word-level tokenizer that refuses unknown words instead of silently reading them as <unk>.

    "<unk>" itself may be written in a text. Every way to encode goes through `_encode_plus`.
    """

    def _encode_plus(self, text, text_pair=None, **kwargs):
        self._refuse([*self._unknown_words(text), *self._unknown_words(text_pair)])
        return super()._encode_plus(text, text_pair, **kwargs)

    def _convert_token_to_id_with_added_voc(self, token: str) -> int:
        if self.backend_tokenizer.token_to_id(token) is None:
            self._refuse([token])
        return super()._convert_token_to_id_with_added_voc(token)

    def _unknown_words(self, text) -> list[str]:
        if isinstance(text, list | tuple):
            return [word for part in text for word in self._unknown_words(part)]
        if not isinstance(text, str):
            return []
        backend = self.backend_tokenizer
        backend.no_truncation()  # left over from an earlier call; the call that follows sets its own
        backend.no_padding()
        encoding = backend.encode(text, add_special_tokens=False)
        spans = zip(encoding.ids, encoding.offsets, strict=True)
        words = [text[start:end] for token_id, (start, end) in spans if token_id == self.unk_token_id]
        return [word for word in words if word != self.unk_token]

    def _refuse(self, unknown: list[str]) -> None:
        if not unknown:
            return
        unknown = list(dict.fromkeys(unknown))
        words = set(self.get_vocab()) - set(self.all_special_tokens)
        verb, label = "is" if len(unknown) == 1 else "are", self.model_label
        sentence = f"{', '.join(map(repr, unknown))} {verb} not among the {len(words)} words of `{label}`."
        by_lower_case = {word.casefold(): word for word in sorted(words)}
        hints = []
        for word in unknown:
            near = [by_lower_case[match] for match in get_close_matches(word.casefold(), by_lower_case)]
            hints += [", ".join(near) + (f" (for {word!r})" if len(unknown) > 1 else "")] if near else []
        raise UnknownWordError(sentence + (f" Near: {'; '.join(hints)}." if hints else ""))
