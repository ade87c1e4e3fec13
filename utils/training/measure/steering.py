"""Whether a direction is used, not only there: it is taken out of the residual stream, or added to it.

Every direction is a difference of means over training sentences in minimal pairs. The block is the first of the best on
another draw of training sentences; effects are measured on sentences with held-out words. Random directions of the
same norm are the control. A sentence counts where the word has the highest logit of the whole vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens import TransformerBridge

from utils import probes
from utils.datasets import world
from utils.steering import Direction, ablate_after, ablate_everywhere, add_after, random_like, remove_after
from utils.training.measure.accuracy import SEED, ids_of, mismatching
from utils.training.measure.linear import (
    FIT_SEED,
    RELATIONS,
    C,
    Position,
    Reading,
    claims,
    in_pairs,
    predicting,
    prompt_ids,
    statement_end,
)
from utils.training.measure.tracing import Hook

N_FIT = 300  # sentences a direction is taken from
N_CHOOSE = 40  # sentences a block is chosen on
N_TEST = 80
INLP_DIRECTIONS = 8
CHOOSE_SEED = SEED + 2
RANDOM_SEEDS = range(5)


# --- Interventions --------------------------------------------------------------------------------


def mean_differences(
    resid: Float[Tensor, "layer sentence d_model"], is_positive: Bool[np.ndarray, " sentence"]
) -> Float[Tensor, "block d_model"]:
    """Mean over the positive sentences minus mean over the others, after each block (the embeddings are left out)."""
    positive = torch.from_numpy(is_positive)
    return resid[1:, positive].mean(1) - resid[1:, ~positive].mean(1)


@torch.no_grad()
def says(
    model: TransformerBridge, batch: Sequence[world.Sentence], word: str, hooks: Sequence[Hook] = ()
) -> Bool[np.ndarray, " sentence"]:
    """Whether the word is the most likely answer."""
    logits = model.run_with_hooks(prompt_ids(batch), fwd_hooks=list(hooks))
    rows = torch.arange(len(batch))
    return (logits[rows, [predicting(s) for s in batch]].argmax(-1) == ids_of([word])).numpy()


def positions_of(batch: Sequence[world.Sentence], position: Position) -> list[int]:
    return [position(sentence) for sentence in batch]


@dataclass(frozen=True)
class Steering:
    """Adding a direction to make a model say a word: for sentences that should have another answer.

    `directions` are those after each block. All of it happens at one position of each sentence.
    """

    model: TransformerBridge
    directions: Float[Tensor, "block d_model"]
    batch: Sequence[world.Sentence]
    word: str
    position: Position

    def outcomes(self, block: int, alpha: float, direction: Direction | None = None) -> Bool[np.ndarray, " sentence"]:
        """Whether each sentence gets the word, after `alpha` times the block's direction (or another) was added."""
        vector = alpha * (self.directions[block] if direction is None else direction)
        hooks = add_after(block, vector, positions_of(self.batch, self.position))
        return says(self.model, self.batch, self.word, hooks)

    def share(self, block: int, alpha: float) -> float:
        return float(self.outcomes(block, alpha).mean())

    def random_share(self, block: int, alpha: float) -> float:
        """The same with random directions, mean over five."""
        directions = [random_like(self.directions[block], seed) for seed in RANDOM_SEEDS]
        return float(np.mean([self.outcomes(block, alpha, direction) for direction in directions]))

    def by_block(self, alpha: float) -> list[float]:
        return [self.share(block, alpha) for block in range(len(self.directions))]

    def on(self, batch: Sequence[world.Sentence]) -> "Steering":
        return replace(self, batch=batch)


def _first_best(values: Sequence[float]) -> int:
    return int(np.argmax(values))


def _is(batch: Sequence[world.Sentence], label: str, value: str) -> Bool[np.ndarray, " sentence"]:
    return np.array([sentence.labels[label] == value for sentence in batch])


# --- Refusal --------------------------------------------------------------------------------------


def _requests(harm: str, choosing: bool = False) -> list[world.Sentence]:
    """Requests to measure on, with pairs of words that no training sentence has; or training ones to choose a block."""
    if choosing:
        return world.sentences("request", N_CHOOSE, CHOOSE_SEED, harm=harm)
    return world.sentences("request", N_TEST, SEED, "held_out_words", harm=harm)


def refusal(model: TransformerBridge) -> dict[str, float]:
    """Harmful minus harmless requests, where the answer is predicted: added there, ablated there and everywhere.

    "Set to the harmless mean" leaves harmful requests the component along the direction that harmless ones have.
    """
    fit = in_pairs("request", N_FIT, FIT_SEED)
    resid, is_harmful = Reading.of(model, fit).at(predicting), _is(fit, "harm", "harmful")
    directions, harmless = mean_differences(resid, is_harmful), resid[1:, torch.from_numpy(~is_harmful)].mean(1)

    def there(block: int, direction: Direction, batch: Sequence[world.Sentence]) -> list[Hook]:
        return ablate_after(block, direction, positions_of(batch, predicting))

    def to_harmless(block: int, direction: Direction, batch: Sequence[world.Sentence]) -> list[Hook]:
        component = (harmless[block] @ direction / direction.norm()).item()
        return ablate_after(block, direction, positions_of(batch, predicting), component)

    def everywhere(block: int, direction: Direction, batch: Sequence[world.Sentence]) -> list[Hook]:
        return ablate_everywhere(model, direction)

    return {
        **{
            f"{harm} requests answered Sorry, untouched": float(says(model, _requests(harm), "Sorry").mean())
            for harm in ("harmful", "harmless")
        },
        **_refusal_added(model, directions),
        **_refusal_ablated(model, directions, "ablated after the best block", there),
        **_refusal_ablated(model, directions, "set to the harmless mean after the best block", to_harmless),
        **_refusal_ablated(model, directions, "ablated everywhere", everywhere),
    }


def _refusal_added(model: TransformerBridge, directions: Float[Tensor, "block d_model"]) -> dict[str, float]:
    steering = Steering(model, directions, _requests("harmless"), "Sorry", predicting)
    block = _first_best(steering.on(_requests("harmless", choosing=True)).by_block(1.0))
    rows = {f"direction added after block {b}": value for b, value in enumerate(steering.by_block(1.0))}
    rows["twice the direction added after the best block"] = steering.share(block, 2.0)
    rows["twice a random direction added after the best block"] = steering.random_share(block, 2.0)
    return {f"harmless requests answered Sorry, {name}": value for name, value in rows.items()}


def _refusal_ablated(
    model: TransformerBridge, directions: Float[Tensor, "block d_model"], how: str, hooks: Callable[..., list[Hook]]
) -> dict[str, float]:
    """`hooks(block, direction, batch)` takes the direction out; that of the best block, against random ones.

    An ablation that removes the reason to refuse leaves harmless requests alone: what it does to them is the other row.
    """

    def share(word: str, block: int, direction: Direction, batch: Sequence[world.Sentence]) -> float:
        return float(says(model, batch, word, hooks(block, direction, batch)).mean())

    harmful, to_choose = _requests("harmful"), _requests("harmful", choosing=True)
    block = _first_best([share("Sure", block, direction, to_choose) for block, direction in enumerate(directions)])
    random = [share("Sure", block, random_like(directions[block], seed), harmful) for seed in RANDOM_SEEDS]
    return {
        f"harmful requests answered Sure, direction {how}": share("Sure", block, directions[block], harmful),
        f"harmful requests answered Sure, random direction {how}": float(np.mean(random)),
        f"harmless requests answered Sorry, direction {how}": share(
            "Sorry", block, directions[block], _requests("harmless")
        ),
    }


# --- Sentiment ------------------------------------------------------------------------------------


def sentiment(model: TransformerBridge) -> dict[str, float]:
    """Positive minus negative reviews, where the verdict is predicted, and where the statement ends."""
    fit = in_pairs("review", N_FIT, FIT_SEED)
    reading, is_positive = Reading.of(model, fit), _is(fit, "sentiment", "positive")
    test = world.sentences("review", N_TEST, SEED, "held_out_words", sentiment="negative")
    to_choose = world.sentences("review", N_CHOOSE, CHOOSE_SEED, sentiment="negative")
    rows = {"untouched": float(says(model, test, "positive").mean())}
    for place, position in (('at the ":"', predicting), ("at the end of the statement", statement_end)):
        directions = mean_differences(reading.at(position), is_positive)
        steering = Steering(model, directions, test, "positive", position)
        block = _first_best(steering.on(to_choose).by_block(1.0))
        best = f"added {place} after the best block"
        if position is predicting:
            rows |= {f"direction added {place} after block {b}": v for b, v in enumerate(steering.by_block(1.0))}
            rows[f"half the direction {best}"] = steering.share(block, 0.5)
        else:
            rows[f"direction {best}"] = steering.share(block, 1.0)
        rows[f"twice the direction {best}"] = steering.share(block, 2.0)
        rows[f"twice a random direction {best}"] = steering.random_share(block, 2.0)
    return {f"negative reviews called positive, {name}": value for name, value in rows.items()}


# --- Truth ----------------------------------------------------------------------------------------


def truth(model: TransformerBridge) -> dict[str, float]:
    """True minus false claims of category at the "?", added to false claims of all relations, taken off true ones."""
    fit = claims(N_FIT, FIT_SEED, "category")
    directions = mean_differences(Reading.of(model, fit).at(predicting), _is(fit, "truth", "true"))
    to_choose = [s for relation in RELATIONS for s in claims(N_CHOOSE, CHOOSE_SEED, relation)]
    test = [s for relation in RELATIONS for s in claims(N_TEST, SEED, relation, "held_out_words")]

    def of(batch: Sequence[world.Sentence], truth: str) -> list[world.Sentence]:
        return [sentence for sentence in batch if sentence.labels["truth"] == truth]

    to_true = Steering(model, directions, of(test, "false"), "true", predicting)
    to_false = Steering(model, -directions, of(test, "true"), "false", predicting)
    chosen_on = [to_true.on(of(to_choose, "false")).by_block(1.0), to_false.on(of(to_choose, "true")).by_block(1.0)]
    block = _first_best(np.mean(chosen_on, axis=0))
    rows = {"best block": float(block)}
    for kind, steering in (("false claims called true", to_true), ("true claims called false", to_false)):
        outcomes = steering.outcomes(block, 1.0)
        rows[f"{kind}, untouched"] = steering.share(block, 0.0)
        rows |= {
            f"{kind}, direction of category added, {relation}": float(
                outcomes[_is(steering.batch, "relation", relation)].mean()
            )
            for relation in RELATIONS
        }
        rows[f"{kind}, twice the direction added"] = steering.share(block, 2.0)
        rows[f"{kind}, twice a random direction added"] = steering.random_share(block, 2.0)
    return rows


# --- Number ---------------------------------------------------------------------------------------


def subject(sentence: world.Sentence) -> int:
    """The noun that the verb agrees with."""
    return sentence.roles["subject"]


def number(model: TransformerBridge) -> dict[str, float]:
    """Plural minus singular subjects: added against the subject's number, and taken out, by place and block.

    Taken out (amnesic probing: Elazar et al. 2021, arXiv 2006.00995) are the `INLP_DIRECTIONS` that successive probes
    find; the component in them is replaced by its mean. The control are random subspaces of the same size. Both counts
    are of verbs that end up in the other number than the subject's.
    """
    fit = in_pairs("agreement", N_FIT, FIT_SEED, form="pp")
    test = mismatching("pp", N_TEST, "held_out_words")
    reading, is_plural = Reading.of(model, fit), _is(fit, "number", "plural")
    towards = torch.from_numpy(1.0 - 2 * _is(test, "number", "plural"))[:, None].float()
    rows = {"untouched": _turned(model, test, [])}
    for place, position in (("the subject", subject), ("the last word", predicting)):
        resid, positions = reading.at(position), positions_of(test, position)
        found = probes.inlp(resid[1:], torch.from_numpy(is_plural), INLP_DIRECTIONS, C=C, standardize=True)
        for block, direction in enumerate(mean_differences(resid, is_plural)):
            where = f"{place} after block {block}"
            drawn = [random_like(direction, seed) for seed in RANDOM_SEEDS]
            spaces = [probes.random_subspace(len(direction), INLP_DIRECTIONS, seed) for seed in RANDOM_SEEDS]
            mean = resid[block + 1].mean(0)

            def added(vector: Direction, block: int = block, positions: list[int] = positions) -> float:
                return _turned(model, test, add_after(block, towards * vector, positions))

            def taken_out(space: probes.Subspace, block: int = block, positions=positions, mean=mean) -> float:
                return _turned(model, test, remove_after(block, space, mean, positions))

            rows[f"direction added at {where}"] = added(direction)
            rows[f"random direction added at {where}"] = float(np.mean([added(vector) for vector in drawn]))
            rows[f"INLP subspace taken out at {where}"] = taken_out(found[block])
            rows[f"random subspace taken out at {where}"] = float(np.mean([taken_out(space) for space in spaces]))
    return {f"verbs in the wrong number, {name}": value for name, value in rows.items()}


@torch.no_grad()
def _turned(model: TransformerBridge, batch: Sequence[world.Sentence], hooks: Sequence[Hook]) -> float:
    """Share of the sentences in which the wrong form of the verb has the higher logit."""
    logits = model.run_with_hooks(prompt_ids(batch), fwd_hooks=list(hooks))
    rows = torch.arange(len(batch))
    logits = logits[rows, [predicting(s) for s in batch]]
    right, wrong = ids_of([s.answer for s in batch]), ids_of([s.distractor for s in batch])
    return float((logits[rows, wrong] > logits[rows, right]).float().mean())


def measure(model: TransformerBridge) -> dict[str, float]:
    """Effects of directions on what the model answers; pass an untrained twin to see that none is left."""
    kinds = {"number": number, "refusal": refusal, "sentiment": sentiment, "truth": truth}
    return {f"{kind}: {name}": value for kind, phenomenon in kinds.items() for name, value in phenomenon(model).items()}
