"""Dictionaries in files: the course's own, and published ones in the layout of sae-lens.

Both keep their weights as safetensors, which holds numbers only. Nothing is unpickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from utils.arguments import check_finite
from utils.sae.model import ARCHITECTURES, SAE, Architecture, Gated, JumpReLU, ReLU, TopK

FORMAT = "ground-truth sae, 1"
HALF = (torch.float16, torch.bfloat16)
DTYPES = (*HALF, torch.float32, torch.float64)
DESCRIPTION = ("architecture", "settings", "d_in", "n_latents", "d_out", "is_transcoder", "instances", "hook")

# --- The course's own -----------------------------------------------------------------------------


def save(sae: SAE, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a dictionary, or several in one module, as one safetensors file; without the `history` of its training.

    Args:
        dtype: torch.float16 or torch.bfloat16 for a file of half the size, whose weights are rounded: decoder rows
            have length 1 up to 5e-4 (float16), and a latent close to its threshold may turn on or off.

    Raises:
        ValueError: weights that are NaN or infinite (in the precision of the file), another dtype.
    """
    if dtype not in (None, *HALF):
        raise ValueError(f"dtype is {dtype}, expected torch.float16, torch.bfloat16, or None for that of the weights")
    tensors = {name: value.detach().cpu() for name, value in sae.state_dict().items()}
    tensors = {name: (value if dtype is None else value.to(dtype)).contiguous() for name, value in tensors.items()}
    for name, value in tensors.items():
        check_finite(f"{name} (as {value.dtype})", value)
    settings = {each.name: _plain(getattr(sae.architecture, each.name)) for each in fields(sae.architecture)}
    values = (type(sae.architecture).__name__, settings, sae.d_in, sae.n_latents, sae.d_out, sae.is_transcoder)
    values += (list(sae.instances), sae.hook)
    described = {name: json.dumps(value) for name, value in zip(DESCRIPTION, values, strict=True)}
    save_file(tensors, path, metadata={"format": FORMAT, **described})


def load(path: str | Path) -> SAE:
    """Read what `save` wrote, without gradients; half precision becomes float32, a list of settings a tuple.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no dictionary, or is damaged: tensors that are missing, foreign, of another shape, NaN.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no saved dictionary at {str(path)!r}")
    metadata, tensors = _read(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{str(path)!r} holds no dictionary of this course (format: {metadata.get('format')!r})")
    try:
        described = {name: json.loads(metadata[name]) for name in DESCRIPTION}
        shape = [*described["instances"], described["n_latents"], described["d_out"]]
        if "W_dec" in tensors and list(tensors["W_dec"].shape) != shape:
            raise ValueError(f"W_dec is {list(tensors['W_dec'].shape)}, expected {shape}")
        sae = _empty(**described)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{str(path)!r} does not say what dictionary it is, or contradicts itself ({error})") from None
    return _fill(sae, tensors, str(path))


def _plain(value: object) -> object:
    """A setting as JSON knows it."""
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _empty(
    architecture: str,
    settings: dict,
    d_in: int,
    n_latents: int,
    d_out: int,
    is_transcoder: bool,
    instances: list[int],
    hook: str | None,
) -> SAE:
    """A dictionary with shapes but without weights, as a file describes it."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture is {architecture!r}, expected one of {', '.join(ARCHITECTURES)}")
    kind = ARCHITECTURES[architecture]
    if set(settings) != {each.name for each in fields(kind)}:
        raise ValueError(f"settings are {settings}, expected {[each.name for each in fields(kind)]}")
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    if not isinstance(is_transcoder, bool) or not isinstance(hook, str | None) or len(instances) > 1:
        raise ValueError(f"is_transcoder is {is_transcoder!r}, hook {hook!r}, instances {instances!r}")
    if not is_transcoder and d_out != d_in:
        raise ValueError(f"d_out is {d_out} and d_in {d_in}, but it is no transcoder")
    seed = [0] * instances[0] if instances else 0
    with torch.device("meta"):
        sae = SAE(kind(**settings), d_in, n_latents, d_out=d_out if is_transcoder else None, seed=seed, hook=hook)
    if list(sae.instances) != instances:
        raise ValueError(f"instances is {instances}, the settings give {list(sae.instances)}")
    return sae


def _fill(sae: SAE, tensors: dict[str, Tensor], source: str) -> SAE:
    """Give `sae`, on the meta device, its weights, after checking names, shapes and numbers."""
    shapes = {name: list(value.shape) for name, value in sae.state_dict().items()}
    _check_tensors(tensors, shapes, source)
    if len({value.dtype for value in tensors.values()}) > 1:
        found = {name: str(value.dtype) for name, value in tensors.items()}
        raise ValueError(f"{source!r} holds tensors of different precision: {found}")
    tensors = {name: value.float() if value.dtype in HALF else value for name, value in tensors.items()}
    sae.load_state_dict(tensors, assign=True)
    return sae.requires_grad_(False).eval()


def _check_tensors(tensors: dict[str, Tensor], shapes: dict[str, list[int]], source: str) -> None:
    missing, foreign = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
    if missing or foreign:
        told = [f"{text} {', '.join(names)}" for text, names in (("lacks", missing), ("also holds", foreign)) if names]
        raise ValueError(f"{source!r} {' and '.join(told)}; expected are {', '.join(sorted(shapes))}")
    for name, shape in shapes.items():
        value = tensors[name]
        if list(value.shape) != shape or value.dtype not in DTYPES:
            raise ValueError(f"{name} in {source!r} is {value.dtype} {list(value.shape)}, expected floats {shape}")
        check_finite(f"{name} in {source!r}", value)


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            return file.metadata() or {}, tensors
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is damaged or no safetensors file ({error})") from None


# --- Published ones -------------------------------------------------------------------------------

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
NEWEST = 6  # major version of sae-lens whose layout is known
BIASES = {  # what each architecture keeps beside W_enc, W_dec and b_dec
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "r_mag", "b_mag"),
    "batchtopk": ("b_enc", "topk_threshold"),
    "matryoshka_batchtopk": ("b_enc", "topk_threshold"),
    "transcoder": ("b_enc",),
    "jumprelu_transcoder": ("b_enc", "threshold"),
}
TRANSCODERS = ("transcoder", "jumprelu_transcoder")
ELSEWHERE = "encode with sae-lens itself, or choose another dictionary"
OWN_LENGTH = f"each activation is scaled by its own length, which this course's SAE does not do: {ELSEWHERE}"
NORMALIZING = {
    "expected_average_only_in": (
        "the activations have to be multiplied by a factor that is not in the file. If it is published (sae-lens lists "
        "it as norm_scaling_factor), multiply W_enc by it, divide W_dec and b_dec by it and set the key to 'none'"
    ),
    "layer_norm": OWN_LENGTH,
    "constant_norm_rescale": OWN_LENGTH,
    "covariance_whitening": "fold the whitening into the weights first (fold_activation_whitening of sae-lens)",
}


def load_published(folder: str | Path) -> SAE:
    """Read a published SAE or transcoder, stored by sae-lens (versions 3 to 6) as cfg.json and sae_weights.safetensors.

    Its latents and what it writes are those that sae-lens reports in float32, up to rounding; whatever would give
    others is refused. A bias that is not subtracted from the input (``apply_b_dec_to_input``) is folded into b_enc,
    and lengths of decoder rows are folded only where its own encoder multiplies by them
    (``rescale_acts_by_decoder_norm``): other rows keep the length that they have.

    Such a file does not say how strongly sparsity was rewarded in training. The weight is then 0: ``ReLU(l1=0.0)`` for
    "standard" and "transcoder", ``JumpReLU(l0=0.0)`` for "jumprelu" and "jumprelu_transcoder", ``Gated(l1=0.0)``.
    BatchTopK and Matryoshka are published as "jumprelu", with one threshold for all latents, and a training checkpoint
    ("batchtopk", "matryoshka_batchtopk") is read as the same.

    A dictionary is of use on the activations that it was trained on: those of the model that cfg.json names, processed
    as ``model_from_pretrained_kwargs`` says. Older files do not say it; sae-lens lists ``gpt2-small-res-jb`` with
    centred writing weights, as `utils.models.load` gives the residual stream.

    Args:
        folder: where both files lie.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: an architecture or a setting that this course's SAE cannot do (named, with its value); weights only
            as a pickle, damaged, of another shape than cfg.json says, NaN.
    """
    folder = Path(folder)
    config = _read_config(folder)
    _, tensors = _read(folder / WEIGHTS)
    try:
        kind, (d_in, n_latents, d_out) = _understand(config)
        tensors = _published_tensors(config, kind, (d_in, n_latents, d_out), tensors)
        architecture, weights = _translate(config, kind, tensors)
        hook, d_out = _hook_name(config), d_out if kind in TRANSCODERS else None
        with torch.device("meta"):
            sae = SAE(architecture, d_in, n_latents, d_out=d_out, hook=hook)
        return _fill(sae, weights, WEIGHTS)
    except ValueError as error:
        raise ValueError(f"{str(folder)!r} cannot be loaded: {error}") from None


def _read_config(folder: Path) -> dict:
    for name in (CONFIG, WEIGHTS):
        if (folder / name).is_file():
            continue
        pickles = sorted(p.name for p in folder.glob("*") if p.suffix in (".pt", ".pth", ".bin", ".pkl", ".pickle"))
        if name == WEIGHTS and pickles:
            raise ValueError(
                f"{str(folder)!r} has its weights only as a pickle ({pickles[0]}), which can run code when opened and "
                f"is not loaded: expected {WEIGHTS}"
            )
        raise FileNotFoundError(f"there is no {name} in {str(folder)!r}: expected {CONFIG} and {WEIGHTS} of sae-lens")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(folder / CONFIG)!r} is no JSON file ({error})") from None
    if not isinstance(config, dict) or not isinstance(config.get("metadata", {}), dict):
        raise ValueError(f"{str(folder / CONFIG)!r} is no configuration of sae-lens: expected an object")
    return config


def _entry(config: dict, *names: str) -> tuple[str, object]:
    """The setting that goes by one of these names, and the name; refused if two of them disagree."""
    found = [(name, place[name]) for place in (config, config.get("metadata", {})) for name in names if name in place]
    if any(value != found[0][1] for _, value in found):
        raise ValueError(f"its configuration contradicts itself: {', '.join(f'{n} is {v!r}' for n, v in found)}")
    return found[0] if found else (names[0], None)


def _understand(config: dict) -> tuple[str, tuple[int, int, int]]:
    """Architecture, d_in, n_latents and d_out, after refusing what would give other latents."""
    _, version = _entry(config, "sae_lens_version")
    major = re.match(r"\d+", str(version))
    if major and int(major[0]) > NEWEST:
        raise ValueError(f"sae_lens_version is {version!r}, expected at most version {NEWEST}")
    kind = config.get("architecture", "standard")
    name, activation = _entry(config, "activation_fn_str", "activation_fn")
    if activation == "topk" and kind == "standard":  # before version 5
        kind = "topk"
    if not isinstance(kind, str) or kind not in BIASES:
        skip = " (it also writes a linear map of what it reads)" if "skip" in str(kind) else ""
        raise ValueError(f"architecture is {kind!r}{skip}, expected one of {', '.join(BIASES)}")
    expected = "topk" if kind == "topk" else "relu"
    if activation not in (None, expected):
        raise ValueError(f"{name} is {activation!r}, expected {expected!r} for architecture {kind!r}")
    _refuse(config, kind)
    sizes = {key: _integer(key, config.get(key)) for key in ("d_in", "d_sae")}
    d_out = _integer("d_out", config.get("d_out")) if kind in TRANSCODERS else sizes["d_in"]
    if config.get("d_out") not in (None, d_out):
        raise ValueError(f"d_out is {config['d_out']!r}, expected {d_out} (d_in) for architecture {kind!r}")
    return kind, (sizes["d_in"], sizes["d_sae"], d_out)


def _refuse(config: dict, kind: str) -> None:
    normalize = config.get("normalize_activations")
    if normalize not in (None, False, "none"):
        remedy = NORMALIZING.get("expected_average_only_in" if normalize is True else str(normalize), ELSEWHERE)
        raise ValueError(f"normalize_activations is {normalize!r}, expected 'none': {remedy}")
    name, hook = _entry(config, "hook_name", "hook_point")
    reshape = config.get("reshape_activations")
    if reshape not in (None, "none"):
        raise ValueError(f"reshape_activations is {reshape!r}, expected 'none': it reads all heads as one vector")
    if reshape is None and ("hook_z" in str(hook) or str(hook).endswith("_z")):  # before version 6 the name decided
        raise ValueError(f"{name} is {hook!r}, where all heads are read as one vector (reshape_activations 'hook_z')")
    name, head = _entry(config, "hook_head_index", "hook_point_head_index")
    if head is not None:
        raise ValueError(f"{name} is {head!r}, expected none: it reads one attention head")
    for key in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm", "finetuning_scaling_factor"):
        if not isinstance(config.get(key, False), bool):
            raise ValueError(f"{key} is {config[key]!r}, expected true or false")
    if kind in TRANSCODERS and config.get("apply_b_dec_to_input", True) is not False:
        found = config.get("apply_b_dec_to_input", "missing, which stands for true")
        raise ValueError(f"apply_b_dec_to_input is {found}, expected false: a transcoder's b_dec is of its output")
    if config.get("rescale_acts_by_decoder_norm") and "topk" not in kind:
        raise ValueError(f"rescale_acts_by_decoder_norm is True, expected false for architecture {kind!r}")


def _integer(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} is {value!r}, expected a positive integer")
    return value


def _hook_name(config: dict) -> str | None:
    name, hook = _entry(config, "hook_name", "hook_point")
    if not isinstance(hook, str | None):
        raise ValueError(f"{name} is {hook!r}, expected the name of a hook point")
    return hook


def _published_tensors(
    config: dict, kind: str, sizes: tuple[int, int, int], tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of an architecture in float32, after checking them."""
    d_in, n_latents, d_out = sizes
    scaled = config.get("finetuning_scaling_factor")
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name not in tensors:
            continue
        factor = tensors.pop(name).float()
        if not torch.allclose(factor, torch.ones_like(factor)):
            raise ValueError(f"{name} holds factors other than 1, by which its decoder multiplies the latents")
        scaled = False  # for a time it was written, as ones, without being used
    if scaled:
        raise ValueError("finetuning_scaling_factor is True, expected false: its decoder multiplies the latents")
    if kind == "jumprelu" and "log_threshold" in tensors and "threshold" not in tensors:  # in training checkpoints
        tensors["threshold"] = tensors.pop("log_threshold").float().exp()
    shapes = {name: [] if name == "topk_threshold" else [n_latents] for name in BIASES[kind]}
    shapes |= {"W_enc": [d_in, n_latents], "W_dec": [n_latents, d_out], "b_dec": [d_out]}
    _check_tensors(tensors, shapes, WEIGHTS)
    return {name: value.float() for name, value in tensors.items()}


def _translate(config: dict, kind: str, tensors: dict[str, Tensor]) -> tuple[Architecture, dict[str, Tensor]]:
    """The course's architecture and weights that give the same latents."""
    weights = {name: tensors[name] for name in ("W_enc", "W_dec", "b_dec")}
    bias = tensors["b_gate" if kind == "gated" else "b_enc"]
    if config.get("rescale_acts_by_decoder_norm"):
        lengths = weights["W_dec"].norm(dim=-1)
        if not bool((lengths > 0).all()):
            rows = (lengths == 0).nonzero()[:, 0].tolist()
            raise ValueError(f"rescale_acts_by_decoder_norm is True, but W_dec has rows of length 0: {rows[:8]}")
        weights["W_enc"], bias = weights["W_enc"] * lengths, bias * lengths
        weights["W_dec"] = weights["W_dec"] / lengths[:, None]
    shift = torch.zeros_like(bias)
    if kind not in TRANSCODERS and config.get("apply_b_dec_to_input") is False:
        shift = (weights["b_dec"][None] @ weights["W_enc"])[0]  # what SAE subtracts again
    weights["b_enc"] = bias + shift
    if kind == "gated":
        weights["gain"] = tensors["r_mag"]
        weights["b_magnitude"] = tensors["b_mag"] + tensors["r_mag"].exp() * shift
        return Gated(l1=0.0), weights
    if kind == "topk":
        return TopK(_active(config)), weights
    if kind in ("standard", "transcoder"):
        return ReLU(l1=0.0), weights
    name = "topk_threshold" if "topk_threshold" in tensors else "threshold"
    weights["threshold"] = tensors[name].expand_as(bias).clone()
    return JumpReLU(l0=0.0), weights


def _active(config: dict) -> int:
    """k: a setting of its own, or (before version 6) of the activation function."""
    given = config.get("activation_fn_kwargs")
    if not isinstance(given, dict | None) or set(given or {}) - {"k"}:
        raise ValueError(f"activation_fn_kwargs is {given!r}, expected nothing but k")
    ks = [k for k in (config.get("k"), (given or {}).get("k")) if k is not None] or [None]
    if ks[0] != ks[-1]:
        raise ValueError(f"k is {ks[0]!r}, but {ks[1]!r} in activation_fn_kwargs")
    return _integer("k", ks[0])
