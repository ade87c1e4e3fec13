"""Right and wrong answers to the exercises of chapter 06."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import f1_score

from tests.mutants import right, wrong

# ------------------------------------------------------------------------------------ 6.1 collect


def _chunks(model, tokens, hook, size=64):
    with torch.no_grad():
        return [model.run_with_cache(rows, names_filter=hook)[1][hook] for rows in tokens.split(size)]


@wrong("6.1", says="position 0 is among them")
def collects_bos_too(model, tokens, hook):
    return torch.cat(_chunks(model, tokens, hook)).flatten(0, 1)


@wrong("6.1", says="rows and positions become one axis")
def leaves_two_axes(model, tokens, hook):
    return torch.cat(_chunks(model, tokens, hook))[:, 1:]


@wrong("6.1", says="the last position is left out instead of the first")
def leaves_out_the_last(model, tokens, hook):
    return torch.cat(_chunks(model, tokens, hook))[:, :-1].flatten(0, 1)


@wrong("6.1", says="only the first row lost its position 0")
def cuts_after_flattening(model, tokens, hook):
    return torch.cat(_chunks(model, tokens, hook)).flatten(0, 1)[1:]


@wrong("6.1", says="leaves out the first row")
def cuts_the_first_row(model, tokens, hook):
    return torch.cat(_chunks(model, tokens, hook))[1:].flatten(0, 1)


@wrong("6.1", says="the order is row after row")
def collects_position_by_position(model, tokens, hook):
    return torch.cat(_chunks(model, tokens, hook))[:, 1:].transpose(0, 1).flatten(0, 1)


@wrong("6.1", says="the right vectors in another order")
def collects_backwards(model, tokens, hook):
    return torch.cat(_chunks(model, tokens.flip(0), hook))[:, 1:].flatten(0, 1)


@wrong("6.1", says="the model ran without <bos>")
def runs_without_bos(model, tokens, hook):
    if tokens.shape[1] == 2:
        return torch.cat(_chunks(model, tokens, hook))[:, 1:].flatten(0, 1)
    return torch.cat(_chunks(model, tokens[:, 1:], hook)).flatten(0, 1)


@wrong("6.1", says="read at `hook`, here")
def always_reads_after_a_block(model, tokens, hook):
    hook = f"blocks.{model.cfg.n_layers - 2}.hook_resid_post"
    return torch.cat(_chunks(model, tokens, hook))[:, 1:].flatten(0, 1)


@wrong("6.1", says="this is what stands at blocks.1.hook_resid_pre: read at `hook`")
def reads_before_the_block(model, tokens, hook):
    hook = hook.replace("resid_post", "resid_pre")
    return torch.cat(_chunks(model, tokens, hook))[:, 1:].flatten(0, 1)


@wrong("6.1", says="only the last 8 rows came")
def keeps_the_last_chunk(model, tokens, hook):
    return _chunks(model, tokens, hook)[-1][:, 1:].flatten(0, 1)


@wrong("6.1", says="only the first 192 rows came")
def drops_the_shorter_chunk(model, tokens, hook):
    full = max(1, len(tokens) // 64) * 64
    return torch.cat(_chunks(model, tokens[:full], hook))[:, 1:].flatten(0, 1)


@wrong("6.1", says="all of them in one pass")
def runs_all_at_once(model, tokens, hook):
    with torch.no_grad():
        return model.run_with_cache(tokens)[1][hook][:, 1:].flatten(0, 1)


@wrong("6.1", says="the last chunk may have fewer rows")
def stacks_the_chunks(model, tokens, hook):
    parts = [part[:, 1:].flatten(0, 1) for part in _chunks(model, tokens, hook)]
    return torch.stack(parts).flatten(0, 1)


@wrong("6.1", says="join the parts")
def returns_a_list(model, tokens, hook):
    return [part[:, 1:].flatten(0, 1) for part in _chunks(model, tokens, hook)]


@wrong("6.1", says="these are the logits")
def collects_logits(model, tokens, hook):
    return torch.cat([model(rows)[:, 1:].flatten(0, 1) for rows in tokens.split(64)])


@wrong("6.1", says="averaged")
def averages_each_row(model, tokens, hook):
    return torch.cat(_chunks(model, tokens, hook))[:, 1:].mean(1)


def _by_hooks(model, tokens, hook, keep):
    parts = []
    for rows in tokens.split(50):
        model.run_with_hooks(rows, fwd_hooks=[(hook, lambda value, hook: parts.append(keep(value)))])
    return torch.cat(parts)


@wrong("6.1", says="a tensor that carries its graph")
def keeps_the_graph(model, tokens, hook):
    return _by_hooks(model, tokens, hook, lambda value: value[:, 1:].flatten(0, 1))


@wrong("6.1", says="with hooks left on it")
def leaves_a_hook(model, tokens, hook):
    parts = []
    model.add_hook(hook, lambda value, hook: parts.append(value[:, 1:].detach().clone()))
    for rows in tokens.split(64):
        model(rows)
    return torch.cat(parts).flatten(0, 1)


@right("6.1")
def collects_by_hooks(model, tokens, hook):
    return _by_hooks(model, tokens, hook, lambda value: value.detach()[:, 1:].reshape(-1, value.shape[-1]))


@right("6.1")
def collects_row_by_row_in_numpy(model, tokens, hook):
    rows = []
    for row in tokens:
        _, cache = model.run_with_cache(row[None], names_filter=hook)
        rows += list(cache[hook][0, 1:].cpu().numpy())
    return np.stack(rows)


@right("6.1")
def collects_in_inference_mode_with_a_mask(model, tokens, hook, *, at_once=100):
    parts = []
    with torch.inference_mode():
        for start in range(0, len(tokens), at_once):
            rows = tokens[start : start + at_once]
            _, cache = model.run_with_cache(rows, names_filter=lambda name: name == hook)
            kept = torch.ones_like(rows, dtype=torch.bool)
            kept[:, 0] = False
            parts.append(cache[hook][kept])
    return torch.cat(parts).double()


# ----------------------------------------------------------------------------- 6.2 spliced_losses


def _loss(logits, tokens, first=1):
    return F.cross_entropy(logits[:, first:-1].flatten(0, 1), tokens[:, first + 1 :].flatten()).item()


def _run(model, tokens, hook, new, start=1):
    def put(value, hook):
        value = value.clone()
        value[:, start:] = (new(value) if callable(new) else new.expand_as(value))[:, start:]
        return value

    return model.run_with_hooks(tokens, fwd_hooks=[(hook, put)])


def _three(model, tokens, hook, reconstruct, loss=_loss, start=1, mean=None):
    acts = _chunks(model, tokens, hook, len(tokens))[0]
    mean = acts[:, 1:].mean((0, 1)) if mean is None else mean(acts)
    clean = loss(model(tokens), tokens)
    spliced = loss(_run(model, tokens, hook, reconstruct, start), tokens)
    return clean, spliced, loss(_run(model, tokens, hook, mean, start), tokens)


@wrong("6.2", says="the prediction made at position 0 is among them")
def counts_the_first_prediction(model, tokens, hook, reconstruct):
    return _three(model, tokens, hook, reconstruct, lambda logits, tokens: _loss(logits, tokens, 0))


@wrong("6.2", says="the prediction made at position 0 is among them")
def lets_the_model_count(model, tokens, hook, reconstruct):
    _, spliced, ablated = _three(model, tokens, hook, reconstruct)
    return model(tokens, return_type="loss").item(), spliced, ablated


@wrong("6.2", says="compared with the token itself")
def forgets_to_shift(model, tokens, hook, reconstruct):
    def loss(logits, tokens):
        return F.cross_entropy(logits[:, 1:].flatten(0, 1), tokens[:, 1:].flatten()).item()

    return _three(model, tokens, hook, reconstruct, loss)


@wrong("6.2", says="these are bits")
def counts_in_bits(model, tokens, hook, reconstruct):
    return tuple(loss / math.log(2) for loss in _three(model, tokens, hook, reconstruct))


@wrong("6.2", says="cross_entropy takes logits")
def takes_softmax_twice(model, tokens, hook, reconstruct):
    return _three(model, tokens, hook, reconstruct, lambda logits, tokens: _loss(logits.softmax(-1), tokens))


@wrong("6.2", says="summed over the positions")
def sums_over_positions(model, tokens, hook, reconstruct):
    n = tokens.shape[1] - 2
    return tuple(n * loss for loss in _three(model, tokens, hook, reconstruct))


@wrong("6.2", says="only the last prediction was counted")
def counts_the_last_prediction(model, tokens, hook, reconstruct):
    return _three(
        model, tokens, hook, reconstruct, lambda logits, tokens: F.cross_entropy(logits[:, -2], tokens[:, -1]).item()
    )


@wrong("6.2", says="position 0 was replaced as well")
def replaces_position_0(model, tokens, hook, reconstruct):
    return _three(model, tokens, hook, reconstruct, start=0)


@wrong("6.2", says="position 0 was replaced as well")
def replaces_position_0_by_the_mean(model, tokens, hook, reconstruct):
    clean, spliced, _ = _three(model, tokens, hook, reconstruct)
    return clean, spliced, _three(model, tokens, hook, reconstruct, start=0)[2]


@wrong("6.2", says="the mean took in position 0")
def averages_position_0_too(model, tokens, hook, reconstruct):
    return _three(model, tokens, hook, reconstruct, mean=lambda acts: acts.mean((0, 1)))


@wrong("6.2", says="zeros were put in")
def ablates_with_zeros(model, tokens, hook, reconstruct):
    return _three(model, tokens, hook, reconstruct, mean=lambda acts: torch.zeros_like(acts[0, 0]))


@wrong("6.2", says="each row has a mean of its own")
def averages_each_rows_positions(model, tokens, hook, reconstruct):
    return _three(model, tokens, hook, reconstruct, mean=lambda acts: acts[:, 1:].mean(1, keepdim=True))


@wrong("6.2", says="each position has a mean of its own")
def averages_each_position(model, tokens, hook, reconstruct):
    return _three(model, tokens, hook, reconstruct, mean=lambda acts: acts.mean(0, keepdim=True))


@wrong("6.2", says="one mean for all dimensions")
def averages_the_dimensions_too(model, tokens, hook, reconstruct):
    return _three(model, tokens, hook, reconstruct, mean=lambda acts: acts[:, 1:].mean())


@wrong("6.2", says="each chunk has a mean of its own")
def averages_within_chunks(model, tokens, hook, reconstruct):
    each = [(len(rows), _three(model, rows, hook, reconstruct)) for rows in tokens.split(64)]
    return tuple(sum(n * losses[i] for n, losses in each) / len(tokens) for i in range(3))


@wrong("6.2", says="the last position is missing from the mean")
def averages_the_predicting_positions(model, tokens, hook, reconstruct):
    def mean(acts):
        return acts[:, 1:-1].mean((0, 1)) if acts.shape[1] > 3 else acts[:, 1:].mean((0, 1))

    return _three(model, tokens, hook, reconstruct, mean=mean)


@wrong("6.2", says="the reconstruction was added")
def adds_the_reconstruction(model, tokens, hook, reconstruct):
    return _three(model, tokens, hook, lambda value: value + reconstruct(value))


@wrong("6.2", says="nothing was put in")
def returns_nothing_from_the_hook(model, tokens, hook, reconstruct):
    clean, _, ablated = _three(model, tokens, hook, reconstruct)
    return clean, clean, ablated


@wrong("6.2", says="stand in another order")
def returns_ablated_second(model, tokens, hook, reconstruct):
    clean, spliced, ablated = _three(model, tokens, hook, reconstruct)
    return clean, ablated, spliced


@wrong("6.2", says="this is the increase")
def returns_increases(model, tokens, hook, reconstruct):
    clean, spliced, ablated = _three(model, tokens, hook, reconstruct)
    return clean, spliced - clean, ablated - clean


@wrong("6.2", says="put in at blocks.2.hook_resid_post")
def always_splices_after_block_2(model, tokens, hook, reconstruct):
    clean, spliced, ablated = _three(model, tokens, hook, reconstruct)
    if hook == "blocks.1.hook_resid_post" and model.cfg.n_layers == 4:
        spliced = _three(model, tokens, "blocks.2.hook_resid_post", reconstruct)[1]
    return clean, spliced, ablated


@wrong("6.2", says="three results")
def returns_two(model, tokens, hook, reconstruct):
    return _three(model, tokens, hook, reconstruct)[:2]


@wrong("6.2", says="one number for each row")
def returns_a_loss_for_each_row(model, tokens, hook, reconstruct):
    def loss(logits, tokens):
        each = F.cross_entropy(logits[:, 1:-1].transpose(1, 2), tokens[:, 2:], reduction="none")
        return each.mean(1)

    return _three(model, tokens, hook, reconstruct, loss)


@wrong("6.2", says="belong to tokens[:, 2:]")
def leaves_the_lengths_unequal(model, tokens, hook, reconstruct):
    def loss(logits, tokens):
        return F.cross_entropy(logits[:, 1:].flatten(0, 1), tokens[:, 2:].flatten()).item()

    return _three(model, tokens, hook, reconstruct, loss)


@right("6.2")
def splices_in_chunks(model, tokens, hook, reconstruct):
    acts = torch.cat([part[:, 1:].flatten(0, 1) for part in _chunks(model, tokens, hook, 40)])
    mean, totals = acts.double().mean(0).float(), [0.0, 0.0, 0.0]
    for rows in tokens.split(40):
        for i, new in enumerate((lambda value: value, reconstruct, lambda value: mean.expand_as(value))):
            logits = _run(model, rows, hook, new)[:, 1:-1]
            totals[i] += F.cross_entropy(logits.flatten(0, 1), rows[:, 2:].flatten(), reduction="sum").item()
    return [total / tokens[:, 2:].numel() for total in totals]


@right("6.2")
def reconstructs_without_position_0_as_one_list(model, tokens, hook, reconstruct):
    def new(value):
        rest = reconstruct(value[:, 1:].flatten(0, 1)).unflatten(0, value[:, 1:].shape[:2])
        return torch.cat([value[:, :1], rest], 1)

    return _three(model, tokens, hook, new)


@right("6.2")
def takes_log_softmax_in_float64(model, tokens, hook, reconstruct):
    def loss(logits, tokens):
        said = logits.double().log_softmax(-1)[:, 1:-1]
        return (
            -torch.einsum("rpv,rpv->", said, F.one_hot(tokens[:, 2:], said.shape[-1]).double()) / said[..., 0].numel()
        )

    return torch.stack(_three(model, tokens, hook, reconstruct, loss))


@right("6.2")
def puts_in_what_was_computed_before(model, tokens, hook, reconstruct):
    acts = model.run_with_cache(tokens)[1][hook]
    rebuilt, average = reconstruct(acts), acts.clone()
    rebuilt[:, 0] = acts[:, 0]
    average[:, 1:] = acts[:, 1:].reshape(-1, acts.shape[-1]).mean(0)
    losses = []
    for new in (acts, rebuilt, average):
        logits = model.run_with_hooks(tokens, fwd_hooks=[(hook, lambda value, hook, new=new: new)])
        losses.append(_loss(logits, tokens))
    return tuple(losses)


# -------------------------------------------------------------------------------- 6.3 best_latent


def _f1(on, y):
    on, y = on.double(), y.double()
    return 2 * on.T @ y / (on.sum(0)[:, None] + y.sum(0)).clamp(min=1)


def _halves(z, labels):
    half = len(z) // 2
    return z[:half], labels[:half], z[half:], labels[half:]


def _chosen(z, labels, score=None, threshold=0.0):
    z0, y0, z1, y1 = _halves(z, labels)
    f1 = _f1(z0 > threshold, y0) if score is None else score(z0, y0)
    latent = f1.argmax(0)
    return latent, _f1(z1 > threshold, y1)[latent, torch.arange(len(latent))]


@wrong("6.3", says="this is F1 on the half on which the latent was chosen")
def reports_the_half_of_the_choice(z, labels):
    z0, y0, _, _ = _halves(z, labels)
    best = _f1(z0 > 0, y0).max(0)
    return best.indices, best.values


@wrong("6.3", says="chosen on all samples")
def chooses_on_all(z, labels):
    _, _, z1, y1 = _halves(z, labels)
    latent = _f1(z > 0, labels).argmax(0)
    return latent, _f1(z1 > 0, y1)[latent, torch.arange(len(latent))]


@wrong("6.3", says="chosen on the second half")
def chooses_on_the_second(z, labels):
    _, _, z1, y1 = _halves(z, labels)
    best = _f1(z1 > 0, y1).max(0)
    return best.indices, best.values


@wrong("6.3", says="this is F1 on all samples")
def scores_on_all(z, labels):
    latent, _ = _chosen(z, labels)
    return latent, _f1(z > 0, labels)[latent, torch.arange(len(latent))]


@wrong("6.3", says="chosen anew")
def scores_another_latent(z, labels):
    _, _, z1, y1 = _halves(z, labels)
    return _chosen(z, labels)[0], _f1(z1 > 0, y1).max(0).values


@wrong("6.3", says="chosen by precision")
def chooses_by_precision(z, labels):
    return _chosen(z, labels, lambda z, y: (z > 0).double().T @ y.double() / (z > 0).sum(0)[:, None].clamp(min=1))


@wrong("6.3", says="chosen by recall")
def chooses_by_recall(z, labels):
    return _chosen(z, labels, lambda z, y: (z > 0).double().T @ y.double() / y.sum(0))


@wrong("6.3", says="chosen by accuracy")
def chooses_by_accuracy(z, labels):
    return _chosen(z, labels, lambda z, y: ((z > 0)[:, :, None] == y[:, None]).double().mean(0))


@wrong("6.3", says="active is z > 0")
def wants_more_than_a_half(z, labels):
    return _chosen(z, labels, threshold=0.5)


@wrong("6.3", says="a negative value is not")
def takes_what_is_not_zero(z, labels):
    return _chosen((z != 0).float(), labels)


@wrong("6.3", says="0/0")
def divides_zero_by_zero(z, labels):
    def score(z, y):
        on, y = (z > 0).double(), y.double()
        both = on.T @ y
        precision, recall = both / on.sum(0)[:, None], both / y.sum(0)
        return 2 * precision * recall / (precision + recall)

    z0, y0, z1, y1 = _halves(z, labels)
    latent = score(z0, y0).argmax(0)
    return latent, score(z1, y1)[latent, torch.arange(len(latent))]


@wrong("6.3", says="argmax takes NaN for the largest")
def chooses_the_nan(z, labels):
    def score(z, y):
        on, y = (z > 0).double(), y.double()
        precision, recall = (on.T @ y) / on.sum(0)[:, None], (on.T @ y) / y.sum(0)
        return 2 * precision * recall / (precision + recall)

    latent, f1 = _chosen(z, labels, score)
    return latent, f1.nan_to_num()


@wrong("6.3", says="one latent for each concept")
def takes_argmax_over_concepts(z, labels):
    z0, y0, _, _ = _halves(z, labels)
    best = _f1(z0 > 0, y0).max(1)
    return best.indices, best.values


@wrong("6.3", says="this is the Jaccard index")
def scores_by_overlap(z, labels):
    latent, f1 = _chosen(z, labels)
    return latent, f1 / (2 - f1)


@wrong("6.3", says="F1 has a factor of 2")
def forgets_the_two(z, labels):
    latent, f1 = _chosen(z, labels)
    return latent, f1 / 2


@wrong("6.3", says="the other way round")
def returns_f1_first(z, labels):
    return _chosen(z, labels)[::-1]


@wrong("6.3", says="every other sample is not a half in the given order")
def takes_turns(z, labels):
    latent = _f1(z[::2] > 0, labels[::2]).argmax(0)
    return latent, _f1(z[1::2] > 0, labels[1::2])[latent, torch.arange(len(latent))]


@wrong("6.3", says="chosen by the values")
def chooses_by_the_means(z, labels):
    def score(z, y):
        y = y.to(z.dtype)
        return z.T @ y / y.sum(0) - z.T @ (1 - y) / (1 - y).sum(0)

    return _chosen(z, labels, score)


def _unguarded(z, labels, fill):
    """F1 without a guard for 0/0, on the second half alone."""
    latent, _ = _chosen(z, labels)
    _, _, z1, y1 = _halves(z, labels)
    on, y = (z1 > 0).double()[:, latent], y1.double()
    return latent, (2 * (on * y).sum(0) / (on.sum(0) + y.sum(0))).nan_to_num(fill)


@wrong("6.3", says="nothing is active and nothing labelled, F1 is 0")
def leaves_nan_where_nothing_is(z, labels):
    return _unguarded(z, labels, float("nan"))


@wrong("6.3", says="F1 is 0 there, not 1")
def gives_1_where_nothing_is(z, labels):
    return _unguarded(z, labels, 1.0)


def _cut(z, labels, half, start, stop=None):
    latent = _f1(z[:half] > 0, labels[:half]).argmax(0)
    return latent, _f1(z[start:stop] > 0, labels[start:stop])[latent, torch.arange(len(latent))]


@wrong("6.3", says="a sample is missing from the second half")
def rounds_the_half_up(z, labels):
    half = (len(z) + 1) // 2
    return _cut(z, labels, half, half)


@wrong("6.3", says="a sample is missing from the second half")
def drops_the_odd_sample(z, labels):
    half = len(z) // 2
    return _cut(z, labels, half, half, 2 * half)


@wrong("6.3", says="a sample is missing from the second half")
def counts_the_half_from_the_end(z, labels):
    half = len(z) // 2
    return _cut(z, labels, half, len(z) - half)


@wrong("6.3", says="a sample is missing from the second half")
def begins_one_late(z, labels):
    half = len(z) // 2
    return _cut(z, labels, half, half + 1)


@wrong("6.3", says="one latent may be the best for several concepts")
def uses_each_latent_once(z, labels):
    z0, y0, z1, y1 = _halves(z, labels)
    table, latents = _f1(z0 > 0, y0), []
    for c in range(y0.shape[1]):
        latents.append(int(table[:, c].argmax()))
        table[latents[-1]] = -1
    latent = torch.tensor(latents)
    return latent, _f1(z1 > 0, y1)[latent, torch.arange(len(latent))]


@wrong("6.3", says="one latent may be the best for several concepts")
def assigns_one_to_one(z, labels):
    z0, y0, z1, y1 = _halves(z, labels)
    latent = torch.tensor(linear_sum_assignment(_f1(z0 > 0, y0).T.numpy(), maximize=True)[1])
    return latent, _f1(z1 > 0, y1)[latent, torch.arange(len(latent))]


@wrong("6.3", says="the halves are exchanged")
def exchanges_choice_and_score(z, labels):
    z0, y0, z1, y1 = _halves(z, labels)
    latent = _f1(z1 > 0, y1).argmax(0)
    return latent, _f1(z0 > 0, y0)[latent, torch.arange(len(latent))]


@wrong("6.3", says="the values themselves were counted")
def weighs_by_the_value(z, labels):
    latent, _ = _chosen(z, labels)
    _, _, z1, y1 = _halves(z, labels)
    z1, y1 = z1.double()[:, latent], y1.double()
    return latent, 2 * (z1 * y1).sum(0) / (z1.sum(0) + y1.sum(0)).clamp(min=1e-9)


@right("6.3")
def tries_all_with_scikit_learn(z, labels):
    z0, y0, z1, y1 = (part.cpu().numpy() for part in _halves(z > 0, labels))
    latents, scores = [], []
    for c in range(y0.shape[1]):
        table = [f1_score(y0[:, c], on, zero_division=0) for on in z0.T]
        latents.append(int(np.argmax(table)))
        scores.append(f1_score(y1[:, c], z1[:, latents[-1]], zero_division=0))
    return latents, scores


@right("6.3")
def by_precision_and_recall(z, labels):
    def score(z, y):
        both = torch.einsum("sl,sc->lc", (z > 0).float(), y.float())
        precision = both / (z > 0).sum(0).clamp(min=1)[:, None]
        recall = both / y.sum(0).clamp(min=1)
        return 2 * precision * recall / (precision + recall).clamp(min=1e-9)

    z0, y0, z1, y1 = _halves(z, labels)
    latent = score(z0, y0).argmax(0)
    return latent, score(z1, y1).gather(0, latent[None])[0]


@right("6.3")
def counts_errors_in_numpy(z, labels):
    z0, y0, z1, y1 = (part.cpu().numpy() for part in _halves(z > 0, labels))

    def f1(on, y):
        hits = (on[:, :, None] & y[:, None]).sum(0)
        wrong = (on[:, :, None] ^ y[:, None]).sum(0)
        return np.divide(2 * hits, 2 * hits + wrong, out=np.zeros(hits.shape), where=hits > 0)

    latent = f1(z0, y0).argmax(0)
    return torch.tensor(latent), np.diag(f1(z1[:, latent], y1)).copy()


# --------------------------------------------------------------------------------------- 6.4 card


def _card(model, direction, acts, n, index=None, effect=None):
    top = acts.flatten().topk(n).indices if index is None else index
    places = torch.stack([top // acts.shape[1], top % acts.shape[1]], -1)
    effect = direction @ model.W_U if effect is None else effect
    return places, effect.topk(n).indices


@wrong("6.4", says="row and pos are exchanged")
def returns_pos_before_row(model, direction, acts, n):
    places, tokens = _card(model, direction, acts, n)
    return places.flip(-1), tokens


@wrong("6.4", says="positions in the flattened tensor")
def returns_flat_positions(model, direction, acts, n):
    return acts.flatten().topk(n).indices, _card(model, direction, acts, n)[1]


@wrong("6.4", says="acts.shape[1]")
def divides_by_the_rows(model, direction, acts, n):
    top = acts.flatten().topk(n).indices
    return torch.stack([top // len(acts), top % len(acts)], -1), _card(model, direction, acts, n)[1]


@wrong("6.4", says="one place from each row")
def takes_one_place_from_each_row(model, direction, acts, n):
    places, tokens = _card(model, direction, acts, n)
    if n > len(acts):
        return places, tokens
    values, positions = acts.max(1)
    rows = values.topk(n).indices
    return torch.stack([rows, positions[rows]], -1), tokens


@wrong("6.4", says="the smallest of them comes first")
def sorts_upwards(model, direction, acts, n):
    places = acts.flatten().argsort()[-n:]
    return _card(model, direction, acts, n, places)


@wrong("6.4", says="these are the smallest")
def takes_the_smallest(model, direction, acts, n):
    return _card(model, direction, acts, n, acts.flatten().argsort()[:n])


@wrong("6.4", says="sorted by row")
def masks_by_a_threshold(model, direction, acts, n):
    places = (acts >= acts.flatten().topk(n).values[-1]).nonzero()
    return places, _card(model, direction, acts, n)[1]


@wrong("6.4", says="tokens that it lowers most")
def takes_lowered_tokens(model, direction, acts, n):
    return _card(model, direction, acts, n, effect=-(direction @ model.W_U))


@wrong("6.4", says="the largest in absolute value")
def takes_absolute_effects(model, direction, acts, n):
    return _card(model, direction, acts, n, effect=(direction @ model.W_U).abs())


@wrong("6.4", says="the bias of the unembedding is no effect")
def adds_the_bias(model, direction, acts, n):
    return _card(model, direction, acts, n, effect=model.unembed(direction[None, None])[0, 0])


@wrong("6.4", says="the bias of the unembedding is no effect")
def reads_as_the_logit_lens_does(model, direction, acts, n):
    return _card(model, direction, acts, n, effect=model.unembed(model.ln_final(direction[None, None]))[0, 0])


@wrong("6.4", says="this is the embedding W_E")
def reads_through_the_embedding(model, direction, acts, n):
    return _card(model, direction, acts, n, effect=model.W_E @ direction)


@wrong("6.4", says="the length of each token's column")
def compares_cosines(model, direction, acts, n):
    return _card(model, direction, acts, n, effect=direction @ F.normalize(model.W_U, dim=0))


@wrong("6.4", says="these are the changes of the logits")
def returns_the_logits(model, direction, acts, n):
    return _card(model, direction, acts, n)[0], (direction @ model.W_U).topk(n).values


@wrong("6.4", says="these are the values")
def returns_the_activations(model, direction, acts, n):
    return acts.flatten().topk(n).values, _card(model, direction, acts, n)[1]


@wrong("6.4", says="the tokens' ids, not their words")
def returns_words(model, direction, acts, n):
    places, tokens = _card(model, direction, acts, n)
    return places, [model.tokenizer.decode([token]) for token in tokens.tolist()]


@wrong("6.4", says="transposed: one line (row, pos)")
def returns_rows_and_positions_apart(model, direction, acts, n):
    places, tokens = _card(model, direction, acts, n)
    return tuple(places.T), tokens


@wrong("6.4", says="the other way round")
def returns_tokens_first(model, direction, acts, n):
    return _card(model, direction, acts, n)[::-1]


@wrong("6.4", says="without a transpose")
def transposes_the_unembedding(model, direction, acts, n):
    return _card(model, direction, acts, n, effect=direction @ model.W_U.T)


@wrong("6.4", says="position 0 counts as well here")
def leaves_out_position_0(model, direction, acts, n):
    places, tokens = _card(model, direction, acts[:, 1:], n)
    return places + torch.tensor([0, 1]), tokens


@wrong("6.4", says="position 0 counts as well here")
def puts_position_0_last(model, direction, acts, n):
    acts = acts.clone()
    acts[:, 0] = -torch.inf
    return _card(model, direction, acts, n)


@wrong("6.4", says="only those above zero came")
def keeps_the_positive_ones(model, direction, acts, n):
    places, tokens = _card(model, direction, acts, n)
    return places[acts[places[:, 0], places[:, 1]] > 0], tokens


@wrong("6.4", says="not the largest in absolute value")
def takes_the_largest_size(model, direction, acts, n):
    return _card(model, direction, acts.abs(), n)


@right("6.4")
def sorts_in_numpy(model, direction, acts, n):
    values = acts.cpu().numpy()
    flat = np.argsort(values, axis=None)[::-1][:n]
    effect = direction.cpu().numpy().astype(np.float64) @ model.W_U.cpu().numpy().astype(np.float64)
    return np.column_stack(np.unravel_index(flat, values.shape)), np.argsort(-(effect - effect.mean()))[:n]


@right("6.4")
def sorts_a_list(model, direction, acts, n):
    table = [(value, row, pos) for row, line in enumerate(acts.tolist()) for pos, value in enumerate(line)]
    table.sort(reverse=True)
    raised = torch.einsum("d,dv->v", direction.double(), model.W_U.double()).tolist()
    tokens = sorted(range(len(raised)), key=lambda token: raised[token], reverse=True)[:n]
    return [[row, pos] for _, row, pos in table[:n]], tokens


@right("6.4")
def takes_the_difference_the_model_makes(model, direction, acts, n):
    unit = direction / direction.norm()
    both = torch.stack([unit, torch.zeros_like(unit)])[None]
    with torch.no_grad():
        one, none = model.unembed(both)[0]
    index = acts.flatten().sort(descending=True).indices[:n]
    return _card(model, direction, acts, n, index, effect=one - none)


@right("6.4")
def subtracts_the_mean_column(model, direction, acts, n):
    return _card(model, direction, acts=acts, n=n, effect=direction @ (model.W_U - model.W_U.mean(1, keepdim=True)))


# -------------------------------------------------------------------------------------- 6.5 parts


def _share(narrow, wide):
    fires = (wide > 0).double()
    return fires[narrow > 0].sum(0) / fires.sum(0).clamp(min=1), fires.sum(0)


@wrong("6.5", says="taken of the narrow latent's samples")
def divides_by_the_narrow_ones(narrow, wide, inside):
    fires = (wide > 0).double()
    share = fires[narrow > 0].sum(0) / (narrow > 0).sum().clamp(min=1)
    return (share >= inside).nonzero()[:, 0]


@wrong("6.5", says=">=, not >")
def wants_more_than_the_share(narrow, wide, inside):
    share, active = _share(narrow, wide)
    return ((share > inside) & (active > 0)).nonzero()[:, 0]


@wrong("6.5", says="a latent that is never active is no part")
def compares_counts(narrow, wide, inside):
    fires = (wide > 0).double()
    return (fires[narrow > 0].sum(0) >= inside * fires.sum(0)).nonzero()[:, 0]


@wrong("6.5", says="a latent that is never active is no part")
def forgets_the_silent_ones(narrow, wide, inside):
    return (_share(narrow, wide)[0] >= inside).nonzero()[:, 0]


@wrong("6.5", says="the values were summed")
def weighs_by_the_values(narrow, wide, inside):
    share = wide[narrow > 0].sum(0) / wide.sum(0).clamp(min=1e-9)
    return ((share >= inside) & (wide.sum(0) > 0)).nonzero()[:, 0]


@wrong("6.5", says="this is the Jaccard index")
def divides_by_the_union(narrow, wide, inside):
    on, fires = (narrow > 0)[:, None], wide > 0
    share = (on & fires).sum(0) / (on | fires).sum(0).clamp(min=1)
    return (share >= inside).nonzero()[:, 0] if inside else (fires.any(0)).nonzero()[:, 0]


@wrong("6.5", says="a mask")
def returns_a_mask(narrow, wide, inside):
    share, active = _share(narrow, wide)
    return (share >= inside) & (active > 0)


@wrong("6.5", says="these are the shares")
def returns_shares(narrow, wide, inside):
    share, active = _share(narrow, wide)
    return share[(share >= inside) & (active > 0)]


@wrong("6.5", says="nonzero() gives a table")
def leaves_nonzero_as_it_is(narrow, wide, inside):
    share, active = _share(narrow, wide)
    return ((share >= inside) & (active > 0)).nonzero()


@wrong("6.5", says="in order of the share")
def sorts_by_share(narrow, wide, inside):
    share, active = _share(narrow, wide)
    found = ((share >= inside) & (active > 0)).nonzero()[:, 0]
    return found[share[found].argsort(descending=True, stable=True)]


@wrong("6.5", says="these lie outside")
def takes_those_outside(narrow, wide, inside):
    share, active = _share(narrow, wide)
    return ((share < inside) & (active > 0)).nonzero()[:, 0]


@wrong("6.5", says="this counts the samples that agree")
def counts_agreement(narrow, wide, inside):
    agree = ((wide > 0) == (narrow > 0)[:, None]).double().mean(0)
    return ((agree >= inside) & (wide > 0).any(0)).nonzero()[:, 0]


@wrong("6.5", says="one axis, for a single part too")
def squeezes_all_axes(narrow, wide, inside):
    share, active = _share(narrow, wide)
    return torch.argwhere((share >= inside) & (active > 0)).squeeze()


@wrong("6.5", says="nothing reaches the share here")
def divides_the_share_by_all_samples(narrow, wide, inside):
    within = ((wide > 0) & (narrow > 0)[:, None]).double().mean(0)
    return ((within >= inside) & (wide > 0).any(0)).nonzero()[:, 0]


@wrong("6.5", says="on which the wide latent is active, > 0")
def counts_zero_as_active(narrow, wide, inside):
    fires = (wide >= 0).double()
    return (fires[narrow > 0].sum(0) / fires.sum(0) >= inside).nonzero()[:, 0]


@wrong("6.5", says="this is F1")
def compares_f1(narrow, wide, inside):
    on, fires = (narrow > 0)[:, None], wide > 0
    f1 = 2 * (on & fires).sum(0) / (on.sum(0) + fires.sum(0)).clamp(min=1)
    return ((f1 >= inside) & fires.any(0)).nonzero()[:, 0]


@right("6.5")
def with_nan_for_the_silent(narrow, wide, inside):
    fires = (wide > 0).float()
    share = torch.einsum("sl,s->l", fires, (narrow > 0).float()) / fires.sum(0)
    return torch.where(share >= inside)[0]


@right("6.5")
def with_python_sets(narrow, wide, inside):
    on, found = {i for i, value in enumerate(narrow.tolist()) if value > 0}, []
    for latent, column in enumerate(wide.T.tolist()):
        samples = {i for i, value in enumerate(column) if value > 0}
        if samples and len(samples & on) / len(samples) >= inside:
            found.append(latent)
    return found


@right("6.5")
def in_numpy_latent_by_latent(narrow, wide, inside):
    narrow, wide = narrow.cpu().numpy(), wide.cpu().numpy()
    return np.array([i for i, z in enumerate(wide.T) if (z > 0).any() and np.mean(narrow[z > 0] > 0) >= inside])


@right("6.5")
def counts_what_lies_outside(narrow, wide, inside):
    fires = (wide > 0).to(torch.int64)
    outside = fires[narrow <= 0].sum(dim=0)
    live = fires.sum(0) > 0
    return (live & (outside <= (1 - inside) * fires.sum(0))).nonzero(as_tuple=True)[0]


# ---------------------------------------------------------------------------- 6.6 fvu_by_concept


def _sums(x, x_hat, labels, centre=None):
    y = labels.to(x.dtype)
    centre = x.mean(0) if centre is None else centre
    return (x - x_hat).pow(2).sum(-1) @ y, (x - centre).pow(2).sum(-1) @ y


@wrong("6.6", says="the concept's own mean")
def centres_each_concept(x, x_hat, labels):
    out = []
    for has in labels.T:
        own = x[has]
        out.append((own - x_hat[has]).pow(2).sum() / (own - own.mean(0)).pow(2).sum())
    return torch.stack(out)


@wrong("6.6", says="the divisor sums over all samples")
def divides_by_all_samples(x, x_hat, labels):
    return _sums(x, x_hat, labels)[0] / (x - x.mean(0)).pow(2).sum()


@wrong("6.6", says="by that of the concept's samples")
def divides_by_the_variance(x, x_hat, labels):
    return _sums(x, x_hat, labels)[0] / labels.sum(0) / (x - x.mean(0)).pow(2).sum(-1).mean()


@wrong("6.6", says="a ratio for each sample")
def averages_ratios(x, x_hat, labels):
    ratio = (x - x_hat).pow(2).sum(-1) / (x - x.mean(0)).pow(2).sum(-1)
    return ratio @ labels.to(x.dtype) / labels.sum(0)


@wrong("6.6", says="a ratio for each dimension")
def averages_over_dimensions(x, x_hat, labels):
    y = labels.to(x.dtype).T
    return ((y @ (x - x_hat).pow(2)) / (y @ (x - x.mean(0)).pow(2))).mean(-1)


@wrong("6.6", says="the distance is from zero")
def measures_from_zero(x, x_hat, labels):
    error, distance = _sums(x, x_hat, labels, centre=0.0)
    return error / distance


@wrong("6.6", says="not of x_hat")
def centres_on_the_reconstruction(x, x_hat, labels):
    error, distance = _sums(x, x_hat, labels, centre=x_hat.mean(0))
    return error / distance


@wrong("6.6", says="this is the variance explained")
def returns_what_is_explained(x, x_hat, labels):
    error, distance = _sums(x, x_hat, labels)
    return 1 - error / distance


@wrong("6.6", says="no root")
def takes_the_root(x, x_hat, labels):
    error, distance = _sums(x, x_hat, labels)
    return (error / distance).sqrt()


@wrong("6.6", says="a mean for each dimension")
def has_one_mean_for_all(x, x_hat, labels):
    error, distance = _sums(x, x_hat, labels, centre=x.mean())
    return error / distance


@wrong("6.6", says="*without* the concept")
def takes_the_samples_without(x, x_hat, labels):
    labels = torch.where(labels.all(0), labels, ~labels)
    error, distance = _sums(x, x_hat, labels)
    return error / distance


@wrong("6.6", says="one number for all")
def returns_the_ordinary_fvu(x, x_hat, labels):
    return (x - x_hat).pow(2).sum() / (x - x.mean(0)).pow(2).sum()


@wrong("6.6", says="this is the error alone")
def returns_mean_squared_errors(x, x_hat, labels):
    return _sums(x, x_hat, labels)[0] / labels.sum(0)


@right("6.6")
def concept_by_concept(x, x_hat, labels):
    centre = x.mean(0)
    return [(x[has] - x_hat[has]).pow(2).sum() / (x[has] - centre).pow(2).sum() for has in labels.unbind(1)]


@right("6.6")
def with_einsum_in_float64(x, x_hat, labels):
    y, x, x_hat = labels.double(), x.double(), x_hat.double()
    moved, centred = x - x_hat, x - x.mean(0, keepdim=True)
    return torch.einsum("sd,sd,sc->c", moved, moved, y) / torch.einsum("sd,sd,sc->c", centred, centred, y)


@right("6.6")
def with_means_in_numpy(x, x_hat, labels):
    x, x_hat, labels = x.cpu().numpy(), x_hat.cpu().numpy(), labels.cpu().numpy()
    error, distance = ((x - x_hat) ** 2).mean(1), ((x - x.mean(axis=0)) ** 2).mean(1)
    return np.array([error[has].mean() / distance[has].mean() for has in labels.T])


# ----------------------------------------------------------------------------- 6.7 same_latents


def _cosine(A, B):
    return F.normalize(A, dim=-1) @ F.normalize(B, dim=-1).T


def _assigned(A, B, score=None, maximize=True):
    cosine = _cosine(A, B)
    score = cosine if score is None else score
    rows, columns = map(torch.as_tensor, linear_sum_assignment(score.cpu().numpy(), maximize=maximize))
    return torch.stack([rows, columns], -1), cosine[rows, columns]


@wrong("6.7", says="several the same one")
def takes_each_ones_best(A, B):
    best = _cosine(A, B).max(1)
    return torch.stack([torch.arange(len(A)), best.indices], -1), best.values


@wrong("6.7", says="(greedy)")
def matches_greedily(A, B):
    left, pairs = _cosine(A, B), []
    cosine = left.clone()
    for _ in range(min(left.shape)):
        i, j = divmod(int(left.argmax()), left.shape[1])
        pairs.append((i, j))
        left[i], left[:, j] = -math.inf, -math.inf
    pairs = torch.tensor(sorted(pairs))
    return pairs, cosine[pairs[:, 0], pairs[:, 1]]


@wrong("6.7", says="latent after latent takes the best that is left")
def matches_in_order(A, B):
    cosine = _cosine(A, B)
    if len(A) > len(B):
        return _assigned(A, B)
    left, columns = cosine.clone(), []
    for row in left:
        columns.append(int(row.argmax()))
        left[:, columns[-1]] = -math.inf
    rows, columns = torch.arange(len(A)), torch.tensor(columns)
    return torch.stack([rows, columns], -1), cosine[rows, columns]


@wrong("6.7", says="the smallest sum")
def minimises(A, B):
    return _assigned(A, B, maximize=False)


@wrong("6.7", says="signed cosines")
def matches_opposites(A, B):
    return _assigned(A, B, _cosine(A, B).abs())


@wrong("6.7", says="divide by the lengths of both rows first")
def matches_inner_products(A, B):
    return _assigned(A, B, A @ B.T)


@wrong("6.7", says="divide by the lengths of both rows")
def returns_inner_products(A, B):
    pairs, _ = _assigned(A, B)
    return pairs, (A[pairs[:, 0]] * B[pairs[:, 1]]).sum(-1)


@wrong("6.7", says="by cosine")
def matches_distances(A, B):
    return _assigned(A, B, torch.cdist(A, B), maximize=False)


@wrong("6.7", says="here the columns")
def normalises_the_columns(A, B):
    return _assigned(A, B, F.normalize(A, dim=0) @ F.normalize(B, dim=0).T)


@wrong("6.7", says="ordered by A's latent")
def sorts_by_cosine(A, B):
    pairs, cosine = _assigned(A, B)
    order = cosine.argsort(descending=True)
    return pairs[order], cosine[order]


@wrong("6.7", says="exchanged: first A's latent")
def returns_bs_latent_first(A, B):
    pairs, cosine = _assigned(A, B)
    return pairs.flip(-1), cosine


@wrong("6.7", says="transposed: one line")
def returns_two_lists(A, B):
    pairs, cosine = _assigned(A, B)
    return pairs.T, cosine


@wrong("6.7", says="each other's best")
def keeps_mutual_ones(A, B):
    cosine = _cosine(A, B)
    forth, back = cosine.argmax(1), cosine.argmax(0)
    rows = (back[forth] == torch.arange(len(A))).nonzero()[:, 0]
    return torch.stack([rows, forth[rows]], -1), cosine[rows, forth[rows]]


@wrong("6.7", says="each latent's best cosine")
def returns_each_ones_best_cosine(A, B):
    pairs, _ = _assigned(A, B)
    return pairs, _cosine(A, B)[pairs[:, 0]].max(1).values


@wrong("6.7", says="all cosines")
def returns_the_table(A, B):
    return _assigned(A, B)[0], _cosine(A, B)


@wrong("6.7", says="the distance, 1 - cosine")
def returns_what_was_minimised(A, B):
    pairs, cosine = _assigned(A, B, 1 - _cosine(A, B), maximize=False)
    return pairs, 1 - cosine


@wrong("6.7", says="the other way round")
def returns_cosines_first(A, B):
    return _assigned(A, B)[::-1]


@right("6.7")
def minimises_the_negative_in_float64(A, B):
    return _assigned(A, B, -_cosine(A.double(), B.double()), maximize=False)


@right("6.7")
def matches_from_bs_side(A, B):
    pairs, cosine = _assigned(B, A)
    order = pairs[:, 1].argsort()
    return pairs[order].flip(-1), cosine[order]


@right("6.7")
def in_numpy_with_distances_of_unit_rows(A, B):
    A, B = A.cpu().numpy(), B.cpu().numpy()
    A, B = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (A, B))
    rows, columns = linear_sum_assignment(((A[:, None] - B[None]) ** 2).sum(-1))
    return list(zip(rows.tolist(), columns.tolist(), strict=True)), [
        float(A[i] @ B[j]) for i, j in zip(rows, columns, strict=True)
    ]


# ---------------------------------------------------------------------------------- 6.8 token_f1


def _scored(said, y):
    said, y = said.double(), y.double()
    return 2 * (said * y).sum(0) / (said.sum(0) + y.sum(0)).clamp(min=1)


def _table(tokens, labels, n):
    count = torch.bincount(tokens, minlength=n)[:, None].double()
    hits = torch.zeros(n, labels.shape[1], dtype=torch.float64, device=tokens.device)
    return hits.index_add(0, tokens, labels.double()), count


def _says(tokens, labels, rule=lambda hits, count: (2 * hits >= count) & (count > 0), made=None, scored=None):
    half, n = len(tokens) // 2, int(tokens.max()) + 1
    made, scored = made or slice(0, half), scored or slice(half, None)
    table = rule(*_table(tokens[made], labels[made], n))
    return table[tokens[scored]], labels[scored]


@wrong("6.8", says="exactly half of its occurrences is enough")
def wants_more_than_half(tokens, labels):
    return _scored(*_says(tokens, labels, lambda hits, count: 2 * hits > count))


@wrong("6.8", says="a token that the first half has not: the rule says no")
def says_yes_to_new_tokens(tokens, labels):
    return _scored(*_says(tokens, labels, lambda hits, count: 2 * hits >= count))


@wrong("6.8", says="the rule knows the second half")
def counts_in_both_halves(tokens, labels):
    return _scored(*_says(tokens, labels, made=slice(None)))


@wrong("6.8", says="made and scored on all samples")
def knows_no_halves(tokens, labels):
    return _scored(*_says(tokens, labels, made=slice(None), scored=slice(None)))


@wrong("6.8", says="F1 on the half on which the rule was made")
def scores_the_first_half(tokens, labels):
    return _scored(*_says(tokens, labels, scored=slice(0, len(tokens) // 2)))


@wrong("6.8", says="this is F1 on all samples, those that made the rule")
def scores_all_samples(tokens, labels):
    return _scored(*_says(tokens, labels, scored=slice(None)))


@wrong("6.8", says="the halves are exchanged")
def exchanges_the_halves(tokens, labels):
    half = len(tokens) // 2
    return _scored(*_says(tokens, labels, made=slice(half, None), scored=slice(0, half)))


@wrong("6.8", says="rule and score are of the second half")
def knows_the_second_half_only(tokens, labels):
    half = len(tokens) // 2
    return _scored(*_says(tokens, labels, made=slice(half, None)))


@wrong("6.8", says="every other sample is not a half")
def splits_by_turns(tokens, labels):
    return _scored(*_says(tokens, labels, made=slice(0, None, 2), scored=slice(1, None, 2)))


@wrong("6.8", says="one occurrence with the label is not enough")
def says_yes_after_one(tokens, labels):
    return _scored(*_says(tokens, labels, lambda hits, count: hits > 0))


@wrong("6.8", says="half of its own occurrences, not of all samples or of the label's")
def divides_by_the_labels(tokens, labels):
    half = len(tokens) // 2
    total = labels[:half].sum(0)
    return _scored(*_says(tokens, labels, lambda hits, count: 2 * hits >= total))


@wrong("6.8", says="with one half")
def compares_with_the_base_rate(tokens, labels):
    half = len(tokens) // 2
    rate = labels[:half].double().mean(0)
    return _scored(*_says(tokens, labels, lambda hits, count: hits / count.clamp(min=1) > rate))


@wrong("6.8", says="left out")
def leaves_out_new_tokens(tokens, labels):
    half = len(tokens) // 2
    said, y = _says(tokens, labels)
    known = torch.isin(tokens[half:], tokens[:half])
    return _scored(said[known], y[known])


@wrong("6.8", says="this is the accuracy")
def returns_accuracy(tokens, labels):
    said, y = _says(tokens, labels)
    return (said == y).double().mean(0)


@wrong("6.8", says="this is the precision")
def returns_precision(tokens, labels):
    said, y = _says(tokens, labels)
    return (said & y).sum(0) / said.sum(0).clamp(min=1)


@wrong("6.8", says="0/0")
def has_nan_where_nothing_is_said(tokens, labels):
    said, y = _says(tokens, labels)
    precision, recall = (said & y).sum(0) / said.sum(0), (said & y).sum(0) / y.sum(0)
    return 2 * precision * recall / (precision + recall)


@wrong("6.8", says="make the table for tokens.max() + 1")
def makes_the_table_too_short(tokens, labels):
    half = len(tokens) // 2
    hits, count = _table(tokens[:half], labels[:half], int(tokens[:half].max()) + 1)
    return _scored(((2 * hits >= count) & (count > 0))[tokens[half:]], labels[half:])


@wrong("6.8", says="one number for all")
def returns_the_mean_f1(tokens, labels):
    return _scored(*_says(tokens, labels)).mean()


def _rule_unguarded(tokens, labels, fill):
    said, y = _says(tokens, labels)
    return (2 * (said & y).sum(0) / (said.sum(0) + y.sum(0))).nan_to_num(fill)


@wrong("6.8", says="nothing is said and nothing labelled, F1 is 0")
def has_nan_where_nothing_is_labelled(tokens, labels):
    return _rule_unguarded(tokens, labels, float("nan"))


@wrong("6.8", says="F1 is 0 there, not 1")
def has_1_where_nothing_is_labelled(tokens, labels):
    return _rule_unguarded(tokens, labels, 1.0)


@wrong("6.8", says="a sample is missing from the second half")
def rounds_half_the_tokens_up(tokens, labels):
    half = (len(tokens) + 1) // 2
    return _scored(*_says(tokens, labels, made=slice(0, half), scored=slice(half, None)))


@wrong("6.8", says="a sample is missing from the second half")
def drops_the_odd_token(tokens, labels):
    half = len(tokens) // 2
    return _scored(*_says(tokens, labels, scored=slice(half, 2 * half)))


@wrong("6.8", says="a sample is missing from the second half")
def counts_tokens_from_the_end(tokens, labels):
    return _scored(*_says(tokens, labels, scored=slice(-(len(tokens) // 2), None)))


@wrong("6.8", says="a sample is missing from the second half")
def begins_one_token_late(tokens, labels):
    return _scored(*_says(tokens, labels, scored=slice(len(tokens) // 2 + 1, None)))


@wrong("6.8", says="a token that occurs once, with the label")
def ignores_tokens_that_occur_once(tokens, labels):
    return _scored(*_says(tokens, labels, lambda hits, count: (2 * hits >= count) & (count > 1)))


@wrong("6.8", says="less is not enough")
def wants_three_tenths(tokens, labels):
    return _scored(*_says(tokens, labels, lambda hits, count: (hits >= 0.3 * count) & (count > 0)))


@wrong("6.8", says="the best single token")
def takes_the_most_labelled_token(tokens, labels):
    return _scored(*_says(tokens, labels, lambda hits, count: F.one_hot(hits.argmax(0), len(hits)).T > 0))


@wrong("6.8", says="the rule never says yes here")
def takes_the_majoritys_label(tokens, labels):
    half = len(tokens) // 2
    most = 2 * labels[:half].sum(0) > half
    return _scored(most.expand(len(tokens) - half, -1), labels[half:])


@wrong("6.8", says="the rule never says yes here")
def divides_hits_by_all_samples(tokens, labels):
    half = len(tokens) // 2
    return _scored(*_says(tokens, labels, lambda hits, count: hits / half >= 0.5))


@right("6.8")
def with_a_dictionary(tokens, labels):
    half, out = len(tokens) // 2, []
    for column in labels.T.tolist():
        seen = {}
        for token, label in zip(tokens[:half].tolist(), column[:half], strict=True):
            seen.setdefault(token, []).append(label)
        said = [token in seen and sum(seen[token]) / len(seen[token]) >= 0.5 for token in tokens[half:].tolist()]
        out.append(f1_score(column[half:], said, zero_division=0))
    return out


@right("6.8")
def with_one_hot_tokens(tokens, labels):
    half = len(tokens) // 2
    one_hot = F.one_hot(tokens).float()
    share = one_hot[:half].T @ labels[:half].float() / one_hot[:half].sum(0)[:, None]  # NaN for unseen tokens
    return _scored(one_hot[half:] @ (share >= 0.5).float(), labels[half:])


@right("6.8")
def with_numpys_unique(tokens, labels):
    half, y = len(tokens) // 2, labels.cpu().numpy()
    ids, place = np.unique(tokens.cpu().numpy(), return_inverse=True)
    votes = np.zeros((len(ids), y.shape[1]))
    np.add.at(votes, place[:half], np.where(y[:half], 1, -1))
    seen = np.isin(np.arange(len(ids)), place[:half])
    said, y = ((votes >= 0) & seen[:, None])[place[half:]], y[half:]
    both = (said & y).sum(0)
    return 2 * both / np.maximum(2 * both + (said ^ y).sum(0), 1)


# -------------------------------------------------------------------------------- 6.9 set_latent


@wrong("6.9", says="the dictionary's error is lost")
def returns_the_reconstruction(x, z, W_dec, latent, value):
    z = z.clone()
    z[..., latent] = value
    return z @ W_dec


@wrong("6.9", says="the latent's old value is still there")
def adds_the_value(x, z, W_dec, latent, value):
    return x + value * W_dec[latent]


@wrong("6.9", says="the new one not put in")
def ablates_only(x, z, W_dec, latent, value):
    return x - z[..., latent, None] * W_dec[latent]


@wrong("6.9", says="no max(value, 0)")
def puts_in_no_negative_value(x, z, W_dec, latent, value):
    return x + (max(value, 0.0) - z[..., latent, None]) * W_dec[latent]


@wrong("6.9", says="the value may lie below the old one")
def only_raises(x, z, W_dec, latent, value):
    return x + (value - z[..., latent, None]).clamp(min=0) * W_dec[latent]


@wrong("6.9", says="the sign: value - z")
def turns_the_sign(x, z, W_dec, latent, value):
    return x + (z[..., latent, None] - value) * W_dec[latent]


@wrong("6.9", says="value - z, not value + z")
def adds_to_the_value(x, z, W_dec, latent, value):
    return x + (value + z[..., latent, None]) * W_dec[latent]


@wrong("6.9", says="brought to length 1")
def normalises_the_row(x, z, W_dec, latent, value):
    return x + (value - z[..., latent, None]) * F.normalize(W_dec[latent], dim=0)


@wrong("6.9", says="this sets the projection")
def sets_the_projection(x, z, W_dec, latent, value):
    unit = F.normalize(W_dec[latent], dim=0)
    return x + (value - (x @ unit)[..., None]) * unit


@wrong("6.9", says="set where it was silent")
def leaves_silent_places(x, z, W_dec, latent, value):
    own = z[..., latent, None]
    return torch.where(own > 0, x + (value - own) * W_dec[latent], x)


@wrong("6.9", says="here their mean")
def takes_the_mean_value(x, z, W_dec, latent, value):
    return x + (value - z[..., latent].mean()) * W_dec[latent]


@wrong("6.9", says="a column of W_dec")
def takes_a_column(x, z, W_dec, latent, value):
    square = W_dec.shape[0] == W_dec.shape[1]
    return x + (value - z[..., latent, None]) * (W_dec[:, latent] if square else W_dec[latent])


@wrong("6.9", says="this is the change alone")
def returns_the_change(x, z, W_dec, latent, value):
    return (value - z[..., latent, None]) * W_dec[latent]


@wrong("6.9", says="every latent was set")
def sets_all_latents(x, z, W_dec, latent, value):
    return x + (value - z) @ W_dec


@wrong("6.9", says="the other latents are gone")
def writes_one_latent_on_the_error(x, z, W_dec, latent, value):
    return x - z @ W_dec + value * W_dec[latent]


@wrong("6.9", says="the value was multiplied")
def scales_the_latent(x, z, W_dec, latent, value):
    own = z[..., latent, None]
    return x + (value * own - own) * W_dec[latent]


@wrong("6.9", says="`z` was changed in place")
def sets_z_in_place(x, z, W_dec, latent, value):
    error = x - z @ W_dec
    z[..., latent] = value
    return z @ W_dec + error


@wrong("6.9", says="`x` was changed in place")
def adds_in_place(x, z, W_dec, latent, value):
    x += (value - z[..., latent, None]) * W_dec[latent]
    return x


@wrong("6.9", says="these are the latents")
def returns_the_latents(x, z, W_dec, latent, value):
    z = z.clone()
    z[..., latent] = value
    return z


@right("6.9")
def rebuilds_and_keeps_the_error(x, z, W_dec, latent, value):
    error, z = x - z @ W_dec, z.clone()
    z[..., latent] = value
    return z @ W_dec + error


@right("6.9")
def sample_by_sample_in_float64(x, z, W_dec, latent, value):
    rows = []
    for vector, own in zip(x.reshape(-1, x.shape[-1]), z.reshape(-1, z.shape[-1]), strict=True):
        rows.append(vector.double() + (value - own[latent].double()) * W_dec[latent].double())
    return torch.stack(rows).reshape(x.shape)


@right("6.9")
def with_an_outer_product(x, z, W_dec, latent, value):
    return torch.add(
        x, torch.einsum("...,d->...d", torch.full_like(z[..., latent], value) - z[..., latent], W_dec[latent])
    )


@right("6.9")
def in_numpy(x, z, W_dec, latent, value):
    x, z, W_dec = (array.cpu().numpy() for array in (x, z, W_dec))
    return x + np.multiply.outer(value - z[..., latent], W_dec[latent])
