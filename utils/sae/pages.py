"""A page on each latent: where it is active, how strongly, what it writes, and which annotation it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import TransformerBridge

from utils.arguments import check_integer
from utils.sae.model import SAE
from utils.sae.streams import _check_hook, _check_tokens

BINS, AROUND, ROWS_AT_ONCE = 24, 8, 128
BLUE, GREY = "0,114,178", "#666"


@dataclass(frozen=True)
class Context:
    """A stretch of text around one place where a latent is active.

    Attributes:
        words: the tokens; values: [token], the latent on each; place: of the token in question among them.
    """

    words: tuple[str, ...]
    values: Float[Tensor, " token"]
    place: int


@dataclass(frozen=True)
class Page:
    """What is shown of a latent.

    Attributes:
        latent: its number.
        density: share of tokens on which it is active.
        largest: its largest value.
        counts: [bin], how many active tokens fall into equal bins from 0 to `largest`.
        strongest, middle, weakest: contexts from the top, the middle and the bottom of the rows by their largest value,
            one for each row of tokens at most.
        raised, lowered: tokens whose logits its direction raises and lowers most, with the change that one unit of the
            latent makes, relative to the mean over tokens.
        words: the tokens on which it is active, with their share of its active tokens, commonest first.
        concepts: annotations that fit best: name, F1, precision, recall of "active"; on the tokens shown, so too good
            where the best of many latents was picked on the same tokens.
    """

    latent: int
    density: float
    largest: float
    counts: tuple[int, ...]
    strongest: tuple[Context, ...]
    middle: tuple[Context, ...]
    weakest: tuple[Context, ...]
    raised: tuple[tuple[str, float], ...]
    lowered: tuple[tuple[str, float], ...]
    words: tuple[tuple[str, float], ...]
    concepts: tuple[tuple[str, float, float, float], ...]

    def _repr_html_(self) -> str:
        return _page_html(self)


@dataclass(frozen=True, repr=False)
class Dashboard:
    """Pages of several latents, the first of them unfolded."""

    pages: tuple[Page, ...]

    def __getitem__(self, index: int) -> Page:
        return self.pages[index]

    def __repr__(self) -> str:
        return f"Dashboard of the latents {', '.join(str(page.latent) for page in self.pages)}"

    def __len__(self) -> int:
        return len(self.pages)

    def _repr_html_(self) -> str:
        return "".join(
            f"<details{' open' * (i == 0)}><summary>{_summary(page)}</summary>{_page_html(page)}</details>"
            for i, page in enumerate(self.pages)
        )


@torch.no_grad()
def dashboard(
    model: TransformerBridge,
    sae: SAE,
    tokens: Int[Tensor, "row pos"],
    latents: Sequence[int],
    *,
    labels: Bool[Tensor, "row pos concept"] | None = None,
    concepts: Sequence[str] = (),
    n_contexts: int = 5,
    n_tokens: int = 8,
) -> Dashboard:
    """Pages for `latents` of a dictionary, from what they do on `tokens` (without the first of each row).

    Logit effects are those of the direction read through the unembedding: a first guess, which leaves out the layers
    between and the scale of the final LayerNorm.

    Raises:
        ValueError: a latent that does not exist, a dictionary without a hook point or for another model, labels that do
            not fit the tokens or the names.
    """
    _check_tokens(model, tokens)
    if sae.instances or sae.is_transcoder or sae.hook is None:
        raise ValueError("sae is expected to be one autoencoder that knows its hook point")
    _check_hook(model, sae.hook)
    if sae.d_out != model.cfg.d_model:
        raise ValueError(f"sae writes width {sae.d_out}, expected the residual stream's {model.cfg.d_model}")
    latents = [check_integer("latents", latent, 0) for latent in latents]
    if not latents or max(latents) >= sae.n_latents:
        raise ValueError(f"latents is {latents}, expected some of 0 to {sae.n_latents - 1}")
    n_contexts, n_tokens = check_integer("n_contexts", n_contexts, 1), check_integer("n_tokens", n_tokens, 1)
    if labels is not None and (labels.dtype != torch.bool or labels.shape != (*tokens.shape, len(concepts))):
        raise ValueError(
            f"labels is {labels.dtype} {list(labels.shape)}, expected Bool {[*tokens.shape, len(concepts)]}: one for "
            "each token and name in concepts"
        )
    z = _values(model, sae, tokens, latents)
    words = [[model.tokenizer.decode([token]) for token in row] for row in tokens.tolist()]
    effects = sae.W_dec[latents] @ model.W_U
    effects = effects - effects.mean(-1, keepdim=True)
    pages = [
        _page(model, words, z[..., i], latent, effects[i], labels, concepts, n_contexts, n_tokens)
        for i, latent in enumerate(latents)
    ]
    return Dashboard(tuple(pages))


def _values(model: TransformerBridge, sae: SAE, tokens: Tensor, latents: list[int]) -> Float[Tensor, "row pos latent"]:
    """The latents on all tokens, 0 at the first of each row."""
    parts = []
    for rows in tokens.to(model.W_U.device).split(ROWS_AT_ONCE):
        _, cache = model.run_with_cache(rows, names_filter=sae.hook)
        z = sae.encode(cache[sae.hook])[..., latents]
        z[:, 0] = 0
        parts.append(z.cpu())
    return torch.cat(parts)


def _page(model, words, z, latent, effects, labels, concepts, n_contexts, n_tokens) -> Page:
    active = z[:, 1:] > 0
    values = z[z > 0]
    largest = values.max().item() if len(values) else 0.0
    counts = torch.histc(values, BINS, 0, largest).int().tolist() if len(values) else [0] * BINS
    peaks = z.max(dim=1)
    rows = peaks.values.argsort(descending=True)
    rows = rows[peaks.values[rows] > 0]
    thirds = [rows[:n_contexts], rows[(len(rows) - n_contexts) // 2 :][:n_contexts], rows[-n_contexts:]]
    if len(rows) < 3 * n_contexts:
        thirds = [rows[:n_contexts], rows[n_contexts : 2 * n_contexts], rows[2 * n_contexts :]]
    contexts = [
        tuple(_context(words[row], z[row], int(peaks.indices[row])) for row in part.tolist()) for part in thirds
    ]
    order = effects.argsort(descending=True)

    def named(ids: Tensor) -> tuple[tuple[str, float], ...]:
        return tuple((model.tokenizer.decode([token]), effects[token].item()) for token in ids.tolist())

    return Page(
        latent=latent,
        density=active.float().mean().item(),
        largest=largest,
        counts=tuple(counts),
        strongest=contexts[0],
        middle=contexts[1],
        weakest=contexts[2],
        raised=named(order[:n_tokens]),
        lowered=named(order.flip(0)[:n_tokens]),
        words=_commonest(words, z, n_tokens),
        concepts=_fitting(active, labels, concepts),
    )


def _context(words: list[str], values: Tensor, place: int) -> Context:
    start, stop = max(0, place - AROUND), place + AROUND // 2 + 1
    return Context(tuple(words[start:stop]), values[start:stop], place - start)


def _commonest(words: list[list[str]], z: Tensor, n: int) -> tuple[tuple[str, float], ...]:
    found: dict[str, int] = {}
    for row, pos in (z > 0).nonzero().tolist():
        found[words[row][pos]] = found.get(words[row][pos], 0) + 1
    total = max(1, sum(found.values()))
    first = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:n]
    return tuple((word, count / total) for word, count in first)


def _fitting(
    active: Tensor, labels: Tensor | None, concepts: Sequence[str]
) -> tuple[tuple[str, float, float, float], ...]:
    if labels is None:
        return ()
    wanted = labels[:, 1:].to(active.device)
    both = (wanted & active[..., None]).sum((0, 1)).float()
    precision, recall = both / active.sum().clamp_min(1), both / wanted.sum((0, 1)).clamp_min(1)
    f1 = 2 * both / (active.sum() + wanted.sum((0, 1))).clamp_min(1)
    best = f1.argsort(descending=True)[:3].tolist()
    return tuple((concepts[i], f1[i].item(), precision[i].item(), recall[i].item()) for i in best if f1[i] > 0)


# --- HTML: inline styles only, so that it is shown in JupyterLab, Colab and an exported page alike ----------


def _summary(page: Page) -> str:
    name = f": {escape(page.concepts[0][0])} (F1 {page.concepts[0][1]:.2f})" if page.concepts else ""
    return f"<b>latent {page.latent}</b>{name}"


def _page_html(page: Page) -> str:
    facts = f"active on {page.density:.1%} of the tokens, largest value {page.largest:.3g}"
    fitting = "".join(
        f"<div>{escape(name)}: F1 {f1:.2f} (precision {precision:.2f}, recall {recall:.2f})</div>"
        for name, f1, precision, recall in page.concepts
    )
    left = (
        f"<div><b>latent {page.latent}</b></div><div>{facts}</div>{_histogram(page)}"
        f"{_heading('active on the words')}{_listed(page.words, '{:.0%}')}"
        + (f"{_heading('annotations that fit')}{fitting}" if fitting else "")
        + f"{_heading('raises the logits of')}{_listed(page.raised, '{:+.2f}')}"
        f"{_heading('lowers the logits of')}{_listed(page.lowered, '{:+.2f}')}"
    )
    right = "".join(
        _heading(title) + "".join(_context_html(context, page.largest) for context in contexts)
        for title, contexts in (("strongest", page.strongest), ("middle", page.middle), ("weakest", page.weakest))
        if contexts
    )
    return (
        "<div style='display:flex;flex-wrap:wrap;gap:24px;font-size:13px;line-height:1.5'>"
        f"<div style='flex:1 1 260px;max-width:380px'>{left}</div><div style='flex:2 1 420px'>{right}</div></div>"
    )


def _heading(text: str) -> str:
    return f"<div style='color:{GREY};margin-top:8px'>{text}</div>"


def _listed(pairs: Sequence[tuple[str, float]], form: str) -> str:
    return (
        "<div>"
        + ", ".join(
            f"{escape(word.strip())} <span style='color:{GREY}'>{form.format(value)}</span>" for word, value in pairs
        )
        + "</div>"
    )


def _histogram(page: Page) -> str:
    """Bars of the active values, with an axis; said in words for those who cannot see it."""
    most = max(page.counts)
    bars = "".join(
        f"<div title='{count} tokens' style='flex:1;height:{max(1, 48 * count / most) if count else 0:.0f}px;"
        f"background:rgb({BLUE})'></div>"
        for count in page.counts
    )
    fullest = max(page.counts)
    label = f"Histogram of the values above zero, from 0 to {page.largest:.3g}; the fullest bin holds {fullest} tokens."
    return (
        f"<div role='img' aria-label='{label}' style='display:flex;align-items:flex-end;gap:1px;height:48px;"
        f"max-width:280px;border-bottom:1px solid {GREY};margin-top:4px'>{bars}</div>"
        f"<div style='display:flex;justify-content:space-between;max-width:280px;color:{GREY}'><span>0</span>"
        f"<span>value where active</span><span>{page.largest:.3g}</span></div>"
    )


def _context_html(context: Context, largest: float) -> str:
    spans = []
    for place, (word, value) in enumerate(zip(context.words, context.values.tolist(), strict=True)):
        alpha = 0.85 * value / largest if largest else 0
        colour = "#fff" if alpha > 0.5 else "inherit"
        edge = "outline:1px solid currentColor;" if place == context.place else ""
        spans.append(
            f"<span title='{value:.3g}' style='background:rgba({BLUE},{alpha:.2f});color:{colour};{edge}"
            f"padding:0 2px'>{escape(word.strip())}</span>"
        )
    return f"<div style='margin:2px 0'>{' '.join(spans)}</div>"
