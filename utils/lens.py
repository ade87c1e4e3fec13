"""Lenses: what a model would say if it stopped at an earlier layer.

The *logit lens* (nostalgebraist 2020) reads any state of the residual stream through the final norm and the
unembedding; it is TransformerLens's (`transformer_lens.tools.analysis.logit_lens`), and so is direct logit
attribution. Here is what TransformerLens lacks:

    resid_stack                  the states that a lens reads, [state batch pos d_model]
    trajectory, heat_map         what a lens says at every state and position, as numbers and as a figure
    fit_tuned_lens               the tuned lens (Belrose et al. 2023): an affine translator for every state
    fit_future_lens              the same for a token further on (Pal et al. 2023)
    early_exit                   what stopping at a confident state would save and cost
    patchscope                   a state put into another prompt, read by the rest of the model

A model of L blocks has L + 1 *states*: 0 is the embeddings, ``l`` the residual stream after block ``l - 1``, L the one
that the model itself reads. TransformerLens's accumulated stack has the same order, so a tuned lens goes into its
function: ``logit_lens(model, tokens, lens=tuned.on(model))`` (without `incl_mid`, which counts otherwise).

A lens says what *could be said* from a state, not what the model uses: that, an intervention has to show.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens import TransformerBridge

from utils import plots
from utils.arguments import check_finite, check_integer, check_positive

States = Float[Tensor, "state batch pos d_model"]
FORMAT = "ground-truth tuned lens, 1"
CHUNK = 2**24  # logits held at once


def resid_stack(model: TransformerBridge, prompts: str | Sequence[str] | Int[Tensor, "batch pos"]) -> States:
    """The residual stream at every state and position of prompts of one length.

    Raises:
        ValueError: prompts of unequal length, longer than the model's context, or token ids it does not have; a model
            whose output is not its unembedding of the normed last state.
    """
    tokens = _tokens(model, prompts)
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers))]
    parts = []
    with torch.no_grad():
        for rows in tokens.split(max(1, CHUNK // (tokens.shape[1] * model.cfg.d_vocab))):
            logits, cache = model.run_with_cache(rows, names_filter=lambda name: name in names)
            parts.append(torch.stack([cache[name] for name in names]))
        states = torch.cat(parts, dim=1)
        off = (read(model, states[-1, -1:]) - logits[-1:].log_softmax(-1)).abs().max()
    if off > 1e-2:
        raise ValueError(
            f"model's log-probabilities differ by {off:.2g} from its unembedding of its last state: a lens cannot be "
            "read through ln_final and unembed alone"
        )
    return states


def read(model: TransformerBridge, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_vocab"]:
    """Log-probabilities (natural) that the final norm and the unembedding give for any vectors: the logit lens."""
    return model.unembed(model.ln_final(resid)).log_softmax(-1)


# --- What a lens says -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Trajectory:
    """What a lens says at every state and position. All tensors are [state batch pos].

    Attributes:
        top: the token it holds likeliest.
        probability: of that token.
        kl: divergence from what the model says in the end, KL(final || lens), in bits.
        entropy: of what the lens says, in bits.
        rank: where the model's own likeliest token stands, 0 for the first.
        target_probability, target_rank: of the tokens asked for; None if none were.
        final_top: the model's own likeliest token, [batch pos].
    """

    top: Int[Tensor, "state batch pos"]
    probability: Float[Tensor, "state batch pos"]
    kl: Float[Tensor, "state batch pos"]
    entropy: Float[Tensor, "state batch pos"]
    rank: Int[Tensor, "state batch pos"]
    target_probability: Float[Tensor, "state batch pos"] | None
    target_rank: Int[Tensor, "state batch pos"] | None
    final_top: Int[Tensor, "batch pos"]


@torch.no_grad()
def trajectory(
    model: TransformerBridge,
    states: States,
    *,
    tuned: "TunedLens | None" = None,
    targets: Int[Tensor, "batch pos"] | None = None,
) -> Trajectory:
    """Read every state with the logit lens, or with a tuned one.

    A lens with an offset is compared with what the model says so many positions later; the last positions, which
    have no such later one, are left out of the result.

    Args:
        states: from `resid_stack`, of this model.
        targets: token ids to follow as well, one for each position.

    Raises:
        ValueError: states or targets of another shape, NaN or infinite states, a lens fitted on another model.
    """
    states = _checked_states(model, states)
    translate = _identity if tuned is None else tuned.on(model)
    offset = 0 if tuned is None else tuned.offset
    n_states, batch, pos = states.shape[:3]
    if targets is not None and tuple(targets.shape) != (batch, pos):
        raise ValueError(f"targets has shape {list(targets.shape)}, expected [{batch}, {pos}] as in states")
    if targets is not None:
        _check_ids(model, "targets", targets)
    if offset >= pos:
        raise ValueError(f"states has {pos} positions, expected more than the lens's offset of {offset}")
    rows = max(1, CHUNK // (n_states * pos * model.cfg.d_vocab))
    parts = []
    for start in range(0, batch, rows):
        here = states[:, start : start + rows]
        wanted = None if targets is None else targets[start : start + rows, : pos - offset].to(states.device)
        parts.append(_read_rows(model, here, translate, offset, wanted))
    columns = [None if part[0] is None else torch.cat(part, dim=1) for part in zip(*parts, strict=True)]
    return Trajectory(*columns[:-1], columns[-1][0])


def _read_rows(model, states, translate, offset, targets) -> list[Tensor | None]:
    """The tensors of a `Trajectory`, in its order (the last one with a state axis of length one)."""
    pos = states.shape[2] - offset
    final = read(model, states[-1, :, offset:])
    final_top = final.argmax(-1)
    said = torch.stack([read(model, translate(states[i, :, :pos], i)) for i in range(len(states))])
    likelihood, top = said.max(-1)
    kl = (final.exp() * (final - said)).sum(-1) / math.log(2)
    entropy = -(said.exp() * said).sum(-1) / math.log(2)
    own = _gather(said, final_top)
    rank = (said > own[..., None]).sum(-1)
    target_probability = target_rank = None
    if targets is not None:
        target = _gather(said, targets)
        target_probability, target_rank = target.exp(), (said > target[..., None]).sum(-1)
    return [top, likelihood.exp(), kl, entropy, rank, target_probability, target_rank, final_top[None]]


def _gather(log_probs: Tensor, ids: Tensor) -> Tensor:
    return log_probs.gather(-1, ids.expand(log_probs.shape[:-1])[..., None])[..., 0]


def heat_map(
    model: TransformerBridge,
    said: Trajectory,
    tokens: Int[Tensor, " pos"],
    *,
    row: int = 0,
    title: str = "What the lens says",
    caption: str | None = None,
) -> go.Figure:
    """One sentence of a trajectory as a figure: positions across, states upwards, the last one on top.

    In each cell stands the likeliest token, coloured by its probability; the pointer shows the rank of what the model
    says in the end and the divergence from it.

    Args:
        tokens: the ids that the model read, of this sentence.
        row: which sentence of the batch.
    """
    pos = said.top.shape[2]
    if tokens.dim() != 1 or len(tokens) < pos or not 0 <= row < said.top.shape[1]:
        raise ValueError(
            f"tokens is {_described(tokens)} and row is {row}, expected at least {pos} ids of one sentence and a row "
            f"below {said.top.shape[1]}"
        )
    names = _words(model, tokens[:pos])
    end = _words(model, said.final_top[row])
    upwards = range(len(said.top) - 1, -1, -1)
    hover = [
        [
            f"rank of the final {end[p]!r}: {int(said.rank[i, row, p])} · KL: {said.kl[i, row, p]:.2f} bits"
            for p in range(pos)
        ]
        for i in upwards
    ]
    return plots.heatmap(
        said.probability[:, row].flip(0),
        x=names,
        y=[state_names(len(said.top) - 1)[i] for i in upwards],
        text=[_words(model, said.top[i, row]) for i in upwards],
        hover=hover,
        title=title,
        xlabel="token read",
        ylabel="state",
        value="probability of the likeliest token",
        diverging=False,
        zmax=1.0,
        caption=caption,
    )


def state_names(n_layers: int) -> list[str]:
    """Labels of the states: "embeddings", "after block 0", ..."""
    return ["embeddings", *(f"after block {i}" for i in range(n_layers))]


# --- Tuned lens -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TunedLens:
    """Affine translators into the basis of the last state: ``x + x @ weight[i] + bias[i]`` for state i.

    Zero weight and bias are the logit lens. Made by `fit_tuned_lens`; `on` gives what TransformerLens's
    ``logit_lens(..., lens=)`` takes, for the model it was fitted on and no other.

    Attributes:
        weight: [state d_model d_model], the change against the identity.
        bias: [state d_model].
        offset: how many tokens after the next one it predicts (0: the tuned lens, 1: a future lens).
        checksum: of the model's parameters (`checksum`).
    """

    weight: Float[Tensor, "state d_model d_model"]
    bias: Float[Tensor, "state d_model"]
    offset: int
    checksum: Float[Tensor, "parameter 2"]

    def on(self, model: TransformerBridge) -> Callable[[Tensor, int], Tensor]:
        """The translators as a function ``f(resid, state)``, after making sure that the model is the one fitted on.

        Raises:
            ValueError: for another model (or the same one processed otherwise, or edited since). The function itself
                raises ValueError for a state that does not exist.
        """
        found = checksum(model)
        same = found.shape == self.checksum.shape and torch.allclose(found, self.checksum, rtol=0, atol=1e-4)
        if not same:
            raise ValueError(
                "the lens was fitted on a model with other weights (or on this one processed otherwise): fit one for "
                "this model with fit_tuned_lens"
            )
        return self._translate

    def _translate(self, resid: Float[Tensor, "... d_model"], state: int) -> Float[Tensor, "... d_model"]:
        if isinstance(state, bool) or not isinstance(state, int) or not 0 <= state < len(self.weight):
            raise ValueError(
                f"state is {state!r}, expected 0 (embeddings) to {len(self.weight) - 1} (after the last block)"
            )
        weight, bias = self.weight[state].to(resid), self.bias[state].to(resid)
        return resid + resid @ weight + bias

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, together with the checksum of its model."""
        tensors = {"weight": self.weight, "bias": self.bias, "checksum": self.checksum}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        save_file(tensors, path, metadata={"format": FORMAT, "offset": str(self.offset)})

    @classmethod
    def load(cls, path: str | Path, model: TransformerBridge) -> "TunedLens":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a saved lens, or one of another model.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no saved lens at {str(path)!r}")
        try:
            with safe_open(path, framework="pt") as file:
                kind = (file.metadata() or {}).get("format")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
                offset = (file.metadata() or {}).get("offset", "0")
        except SafetensorError as error:
            raise ValueError(f"{str(path)!r} is damaged or no safetensors file ({error})") from None
        if kind != FORMAT or set(tensors) != {"weight", "bias", "checksum"}:
            raise ValueError(f"{str(path)!r} holds no tuned lens of this course (format: {kind!r})")
        lens = cls(**tensors, offset=int(offset))
        lens.on(model)
        return lens


def fit_tuned_lens(
    model: TransformerBridge,
    states: States,
    *,
    offset: int = 0,
    mask: Bool[Tensor, "batch pos"] | None = None,
    steps: int = 400,
    batch_size: int = 256,
    lr: float | None = None,
    weight_decay: float = 1e-2,
    seed: int = 0,
    progress: bool = False,
) -> TunedLens:
    """Fit an affine translator for every state but the last, so that the lens says what the model says in the end.

    The loss is KL(final || lens), the model's parameters stay as they are, the translators start at the identity and
    AdamW's decoupled weight decay pulls them back to it; the learning rate falls linearly to zero (Belrose et al.
    2023, arXiv 2303.08112; their code uses SGD with Nesterov momentum). All translators are trained side by side, on
    the same batches of cached states: Adam works on each number by itself, so none depends on the others.

    Args:
        states: from `resid_stack`, on the text to fit on.
        offset: predict what the model says so many positions later. Then the last state is translated as well.
        mask: the positions to fit on; default all. The first position of GPT-2 is best left out: its state
            is far larger than the others.
        steps, batch_size: each step draws `batch_size` positions.
        lr: default 0.4 / d_model.
        progress: show a bar.

    Returns:
        The lens; its last translator is the identity, exactly, unless there is an offset.

    Raises:
        ValueError: states of another shape or model, NaN or infinite states, no position to fit on, settings out of
            range.
        TypeError: settings that are not numbers.
    """
    states = _checked_states(model, states)
    least = {"offset": (offset, 0), "steps": (steps, 1), "batch_size": (batch_size, 1), "seed": (seed, 0)}
    offset, steps, batch_size, seed = (check_integer(name, value, low) for name, (value, low) in least.items())
    lr = check_positive("lr", 0.4 / model.cfg.d_model if lr is None else lr)
    weight_decay = check_positive("weight_decay", weight_decay, or_zero=True)
    inputs, finals = _pairs(states, offset, mask)
    n_fitted, d_model = len(inputs), inputs.shape[-1]
    scale = inputs.pow(2).mean((1, 2), keepdim=True).sqrt()
    weight = torch.zeros(n_fitted, d_model, d_model, device=states.device, requires_grad=True)
    shift = torch.zeros(n_fitted, 1, d_model, device=states.device, requires_grad=True)  # in units of the state's size
    optimizer = torch.optim.AdamW([weight, shift], lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    drawing = torch.Generator().manual_seed(seed)
    norm, unembed = _without_hooks(model, finals[:8])
    for _ in tqdm(range(steps), desc="tuned lens", disable=not progress):
        rows = torch.randint(inputs.shape[1], (batch_size,), generator=drawing).to(states.device)
        x = inputs[:, rows]
        with torch.no_grad():
            wanted = unembed(norm(finals[rows])).softmax(-1)
        with torch.enable_grad():
            logits = unembed(norm(x + torch.baddbmm(scale * shift, x, weight)))
        with torch.no_grad():  # the gradient of the mean KL in closed form: no pass over the vocabulary but this one
            slope = logits.softmax(-1).sub_(wanted).div_(batch_size)
        weight.grad, shift.grad = torch.autograd.grad(logits, [weight, shift], slope)  # and none for the model
        optimizer.step()
        schedule.step()
    weight, bias = weight.detach(), (scale * shift.detach())[:, 0]
    if offset == 0:  # the model's own reading is right as it is
        weight, bias = (torch.cat([part, torch.zeros_like(part[:1])]) for part in (weight, bias))
    return TunedLens(weight, bias, offset, checksum(model))


def fit_future_lens(model: TransformerBridge, states: States, *, offset: int = 1, **settings) -> TunedLens:
    """A lens on the tokens after the next: what a single state says of the model's output `offset` positions later.

    The linear form of Pal et al. (2023, arXiv 2311.04897), trained on the model's own distribution. What it reaches
    means something only beside what the token alone would tell (a bigram table).

    Args:
        settings: as in `fit_tuned_lens`, and so are the errors; an offset of at least 1.
    """
    if offset == 0:
        raise ValueError("offset is 0, expected at least 1: with 0 it is fit_tuned_lens")
    return fit_tuned_lens(model, states, offset=offset, **settings)


def _pairs(states: States, offset: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Inputs [state, n, d_model] and the last states [n, d_model] whose reading they shall give."""
    batch, pos = states.shape[1:3]
    mask = torch.ones(batch, pos, dtype=torch.bool) if mask is None else torch.as_tensor(mask)
    if mask.dtype != torch.bool or tuple(mask.shape) != (batch, pos):
        raise ValueError(f"mask has shape {list(mask.shape)} and dtype {mask.dtype}, expected Bool [{batch}, {pos}]")
    mask = mask[:, : max(pos - offset, 0)].to(states.device)
    if not mask.any():
        raise ValueError(f"states has {pos} positions: with an offset of {offset} and the mask, none is left to fit on")
    inputs = states[: len(states) - (offset == 0), :, : pos - offset][:, mask]
    return inputs, states[-1, :, offset:][mask]


@torch.no_grad()
def _without_hooks(model: TransformerBridge, sample: Tensor) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The modules behind `ln_final` and `unembed`, a fifth faster, where they give the same for a sample of states."""
    whole = model.ln_final, model.unembed
    bare = tuple(getattr(part, "original_component", part) for part in whole)
    same = torch.allclose(bare[1](bare[0](sample)), whole[1](whole[0](sample)), rtol=1e-5, atol=1e-5)
    return bare if same else whole


# --- Which model a lens belongs to ----------------------------------------------------------------


@torch.no_grad()
def checksum(model: torch.nn.Module) -> Float[Tensor, "parameter 2"]:
    """A sum by which a model's weights are known again: for each parameter its norm and a projection.

    The projection is ``u @ W @ v / norm(W)`` for fixed random u and v, the norm is given as its logarithm. Unlike a
    hash they come out the same, to 1e-4, where another processor rounds differently when LayerNorm is folded.
    """
    sums = []
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]  # b_U, in GPT-2
    for parameter in [*model.parameters(), *buffers]:
        matrix = parameter.detach().cpu().double().reshape(parameter.shape[0] if parameter.dim() else 1, -1)
        drawing = torch.Generator().manual_seed(len(sums))
        u = torch.randn(matrix.shape[0], generator=drawing, dtype=torch.float64)
        v = torch.randn(matrix.shape[1], generator=drawing, dtype=torch.float64)
        size = matrix.norm() + 1e-6
        sums.append(torch.stack([size.log(), u @ matrix @ v / size]))
    return torch.stack(sums)


# --- Reading with the rest of the model -----------------------------------------------------------


@torch.no_grad()
def patchscope(
    model: TransformerBridge,
    resid: Float[Tensor, "*lead d_model"],
    prompt: str | Int[Tensor, " pos"],
    *,
    position: int,
    state: int,
    batch_size: int = 256,
) -> Float[Tensor, "*lead d_vocab"]:
    """Log-probabilities after the prompt, with a vector in the place of one of its states.

    The prompt's own state at `position` is replaced by the vector and the rest of the model runs on (Ghandeharioun et
    al. 2024, arXiv 2401.06102).

    Args:
        resid: the vectors to be read, from any layer, position and prompt.
        prompt: what the model shall read with the vector in it.
        position: where in the prompt; negative counts from its end.
        state: 0 (embeddings) to L - 1; after the last block there is no rest of the model to read it.

    Raises:
        ValueError: for a state or position that does not exist, a prompt that is too long, vectors of another width,
            NaN or infinite vectors.
    """
    tokens = _tokens(model, prompt if isinstance(prompt, str) else torch.as_tensor(prompt)[None])
    n_pos, n_layers, d_model = tokens.shape[1], model.cfg.n_layers, model.cfg.d_model
    fits = isinstance(resid, Tensor) and resid.is_floating_point() and resid.shape[-1:] == (d_model,)
    if not fits or not resid.numel():
        raise ValueError(f"resid is {_described(resid)}, expected a floating-point tensor [..., {d_model}]")
    check_finite("resid", resid)
    if isinstance(position, bool) or not isinstance(position, int) or not -n_pos <= position < n_pos:
        raise ValueError(f"position is {position!r}, expected one of the prompt's {n_pos} positions")
    if isinstance(state, bool) or not isinstance(state, int) or not 0 <= state < n_layers:
        raise ValueError(f"state is {state!r}, expected 0 (embeddings) to {n_layers - 1}, the last that a block reads")
    batch_size = check_integer("batch_size", batch_size, 1)
    flat, said = resid.reshape(-1, d_model), []
    for start in range(0, len(flat), batch_size):
        vectors = flat[start : start + batch_size]

        def put(stream: Tensor, hook: object, vectors: Tensor = vectors) -> Tensor:
            stream = stream.clone()
            stream[:, position] = vectors.to(stream)
            return stream

        hooks = [(f"blocks.{state}.hook_resid_pre", put)]
        logits = model.run_with_hooks(tokens.expand(len(vectors), -1), fwd_hooks=hooks)
        said.append(logits[:, -1].log_softmax(-1))
    return torch.cat(said).reshape(*resid.shape[:-1], -1)


# --- Early exit -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class EarlyExit:
    """What stopping at the first confident state would save and cost.

    Attributes:
        thresholds: the probabilities from which a state counts as confident, [threshold].
        blocks: mean number of blocks that would be run, 0 to L, [threshold].
        agreement: share of positions whose token is the one the model says in the end, [threshold].
        exits: share of positions that stop at each state, [threshold state]; each row sums to 1.
    """

    thresholds: Float[Tensor, " threshold"]
    blocks: Float[Tensor, " threshold"]
    agreement: Float[Tensor, " threshold"]
    exits: Float[Tensor, "threshold state"]


def early_exit(
    said: Trajectory, thresholds: Sequence[float], mask: Bool[Tensor, "batch pos"] | None = None
) -> EarlyExit:
    """Stop at the first state whose likeliest token has at least the threshold's probability, else at the last.

    The rule of confident adaptive language modelling (Schuster et al. 2022, arXiv 2207.07061) without its calibration.
    The cost that is left out: keys and values of the blocks not run, which later tokens would need.

    Args:
        said: from `trajectory`, without an offset.
        mask: the positions that count; default all.

    Raises:
        ValueError: thresholds outside [0, 1] or none, a mask of another shape or with nothing in it.
    """
    limits = torch.as_tensor(thresholds, dtype=said.probability.dtype, device=said.probability.device)
    if limits.dim() != 1 or not len(limits) or not bool(((limits >= 0) & (limits <= 1)).all()):
        raise ValueError(f"thresholds is {thresholds!r}, expected a list of probabilities")
    shape = said.top.shape[1:]
    mask = torch.ones(shape, dtype=torch.bool) if mask is None else torch.as_tensor(mask)
    if mask.dtype != torch.bool or mask.shape != shape or not mask.any():
        raise ValueError(f"mask is {_described(mask)}, expected Bool {list(shape)} with at least one position")
    mask = mask.to(said.top.device)
    confident = said.probability[:, mask][None] >= limits[:, None, None]
    confident[:, -1] = True
    stops = confident.int().argmax(1)  # [threshold n], the first confident state
    agrees = said.top[:, mask] == said.final_top[mask]
    exits = torch.stack([(stops == i).float().mean(-1) for i in range(len(said.top))], dim=-1)
    agreement = agrees.float().gather(0, stops).mean(-1)
    return EarlyExit(limits, stops.float().mean(-1), agreement, exits)


# --- Input ----------------------------------------------------------------------------------------


def _identity(resid: Tensor, state: int) -> Tensor:
    return resid


def _tokens(model: TransformerBridge, prompts: str | Sequence[str] | Tensor) -> Int[Tensor, "batch pos"]:
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(prompts, Tensor) and all(isinstance(prompt, str) for prompt in prompts):
        rows = [model.to_tokens(prompt, truncate=False)[0] for prompt in prompts]
        lengths = sorted({len(row) for row in rows})
        if len(lengths) != 1:
            raise ValueError(
                f"prompts have {lengths[0]} to {lengths[-1]} tokens, expected one length: read each length by itself"
                if lengths
                else "prompts is empty, expected at least one"
            )
        prompts = torch.stack(rows)
    prompts = torch.as_tensor(prompts)
    if prompts.dim() != 2 or not prompts.numel():
        raise ValueError(f"prompts is {_described(prompts)}, expected token ids [batch, pos]")
    if prompts.shape[1] > model.cfg.n_ctx:
        raise ValueError(f"prompts have {prompts.shape[1]} tokens, the model reads at most {model.cfg.n_ctx}")
    _check_ids(model, "prompts", prompts)
    return prompts.long().to(model.W_U.device)


def _check_ids(model: TransformerBridge, name: str, ids: Tensor) -> None:
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"{name} is {_described(ids)}, expected token ids")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= model.cfg.d_vocab:
        raise ValueError(f"{name} hold ids from {low} to {high}, the model has 0 to {model.cfg.d_vocab - 1}")


def _checked_states(model: TransformerBridge, states: Tensor) -> States:
    """The states in the model's precision and without a graph."""
    n_states, d_model = model.cfg.n_layers + 1, model.cfg.d_model
    fits = isinstance(states, Tensor) and states.is_floating_point() and states.dim() == 4
    if not fits or states.shape[0] != n_states or states.shape[3] != d_model or not states.numel():
        raise ValueError(
            f"states is {_described(states)}, expected a floating-point tensor "
            f"[{n_states}, batch, pos, {d_model}] from resid_stack"
        )
    check_finite("states", states)
    return states.detach().to(model.W_U.dtype)


def _described(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _words(model: TransformerBridge, ids: Tensor) -> list[str]:
    return [model.tokenizer.decode([int(i)]) for i in ids]
