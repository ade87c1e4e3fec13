# ---
# title: Probing with care
# ---

# %% [markdown]
# # 02 · Probing with care
#
# **Does the model *use* what the probe finds?**

# %%
import math
import torch
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Tensor
from transformer_lens import TransformerBridge

from utils import models, plots, probes, progress, session, steering
from utils.checks import probing_with_care as checks
from utils.datasets import world

# %% [markdown]
# `world` reads reviews and gives its verdict behind the last colon. Two places in such a review invite a probe: the
# **end of the statement** (its full stop), where all has been said, and the **colon**, where the verdict is about to
# come.

# %%
model, twin = models.load("world"), models.untrained_twin("world")
review = "Review : I think the plot of the movie was dull . Sentiment :"
model.to_string(model(review)[0, -1].argmax())

# %% [markdown]
# Some small helpers. `pairs` draws sentences together with their minimal pairs, so that both labels are equally
# frequent. `streams` reads the residual stream at one place of each sentence: index 0 is the embedding, index $l$ the
# stream after the $l$-th block (whose own number is $l - 1$).


# %%
def pairs(type: str, n: int, seed: int, split: str = "train", **fixed) -> list[world.Sentence]:
    drawn = world.sentences(type, n, seed, split, **fixed)
    return [*drawn, *(sentence.corrupted for sentence in drawn)]


def streams(model: TransformerBridge, batch: Sequence, place: Callable) -> Float[Tensor, "layer n d_model"]:
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers))]
    _, cache = model.run_with_cache(model.to_tokens([s.text for s in batch]), names_filter=names)
    where = [place(sentence) for sentence in batch]
    return torch.stack([cache[name][torch.arange(len(batch)), where] for name in names])


def labels(batch: Sequence, name: str, value: str) -> Bool[Tensor, "n"]:
    return torch.tensor([sentence.labels[name] == value for sentence in batch], device=session.device())


# %%
def end_of_statement(s: world.Sentence) -> int:
    return s.answer_position - 3


def before_answer(s: world.Sentence) -> int:
    return s.answer_position - 1


places = {"end of the statement": end_of_statement, "colon": before_answer}

# %% [markdown]
# A probe of chapter 01 (logistic regression on standardised activations), fitted on reviews and tested on others. All
# are *plain* (`form="plain"`): only adjectives say what the reviewer thinks, and none is negated.

# %%
fit = partial(probes.fit_logistic, C=0.1, standardize=True)
reviews, new_reviews = pairs("review", 200, seed=1, form="plain"), pairs("review", 100, seed=2, form="plain")
is_positive, new_positive = (labels(batch, "sentiment", "positive") for batch in (reviews, new_reviews))
at_reviews = {name: streams(model, reviews, place) for name, place in places.items()}
accuracy = {
    name: fit(at_reviews[name], is_positive).accuracy(streams(model, new_reviews, place), new_positive)
    for name, place in places.items()
}

# %% [markdown]
# And the other half of the experiment: add the probe's direction (here the difference of the two class means) to the
# stream after block 1, at one of the two places, in reviews that are negative. `steering.add_after(block, vector,
# positions)` gives the hooks that do so, each text at its own position. How many does the model now call positive?

# %%
push = {name: x[1:, is_positive].mean(1) - x[1:, ~is_positive].mean(1) for name, x in at_reviews.items()}  # per block
negative = world.sentences("review", 60, seed=3, form="plain", sentiment="negative")
negative_tokens, colon = model.to_tokens([s.text for s in negative]), [before_answer(s) for s in negative]


def share_called_positive(name: str, multiple: float) -> Float[Tensor, ""]:
    hooks = steering.add_after(1, multiple * push[name][1], [places[name](s) for s in negative])
    verdicts = model.run_with_hooks(negative_tokens, fwd_hooks=hooks)[range(60), colon].argmax(-1)
    return (verdicts == model.to_single_token("positive")).float().mean()


# %%
multiples = torch.linspace(0, 2, 9)
called = {name: torch.stack([share_called_positive(name, m) for m in multiples]) for name in places}
after_block_1 = {
    "accuracy of the probe": torch.stack([accuracy[name][2] for name in places]),
    "negative reviews that turn positive": torch.stack([called[name][4] for name in places]),  # pushed once
}
plots.bars(
    after_block_1,
    list(places),
    title="After block 1: what can be read, and what it does",
    xlabel="place",
    ylabel="share",
)

# %% role="result"
{name: {"read": bool(accuracy[name][2] > 0.98), "turned": bool(called[name][4] > 0.5)} for name in places}

# %% [markdown]
# At both places the probe is right every time. At the colon the push turns every verdict; at the end of the statement
# it turns none. Pushing harder does not help:

# %%
plots.lines(
    called,
    multiples.tolist(),
    title="Pushing negative reviews towards positive",
    xlabel="multiples of the difference of the class means",
    ylabel="share called positive",
)

# %%
ratio = push["colon"][1].norm() / push["end of the statement"][1].norm()
print(f"The push at the colon is {ratio:.1f} times as long as that at the end of the statement.")

# %% [markdown]
# The comparison is not fair yet: the push at the end of the statement is much shorter. Section 4 comes back to this,
# with a fair one. The sentiment is *there* at the end of the statement, and it seems that the model does nothing with
# it. An accuracy cannot tell you that. This chapter is about what can.
#
# **You will be able to**
#
# - measure what a label *costs* a probe, in bits, where accuracies tie;
# - take a concept out of activations by a closed formula, and say what is left;
# - ask by removal and by steering whether the model uses what was found, with random controls;
# - tell a probe of truth from a probe of one topic, and from one that found what is *salient* (stands out most);
# - read syntax trees from distances, beside baselines that know no syntax.
#
# **Time**: about three hours. **You need**: chapters 00 and 01. Terms and calls are in the [reference](reference.md).
# What is said of `world` was measured in three trainings of it; where they differ, the text says so, and a table at the
# end has the numbers.

# %% [markdown]
# ## 1 What a label costs
#
# Chapter 00 had a warning: an untrained model "explains" things too. Here it is for probes. Is a noun singular or
# plural, read at the noun itself after block 1, in the trained model and in its untrained twin?


# %%
def subject(s: world.Sentence) -> int:
    return s.roles["subject"]


nouns = world.sentences("agreement", 1500, seed=4)
plural = labels(nouns, "number", "plural")
at_noun = {name: streams(m, nouns, subject) for name, m in {"trained": model, "untrained twin": twin}.items()}
x_trained, x_twin = (x[2] for x in at_noun.values())  # after block 1

# %%
late = torch.arange(1500, device=plural.device) >= 1200
tie = [fit(x[~late], plural[~late]).accuracy(x[late], plural[late]).item() for x in (x_trained, x_twin)]
print("trained {:.3f}, untrained twin {:.3f}".format(*tie))

# %% role="result"
{"both read it": min(tie) > 0.99, "forms of nouns": len({s.tokens[subject(s)] for s in nouns})}

# %% [markdown]
# A tie. The twin's vectors are random, but each noun always has nearly the same one, and there are only 48 forms: with
# 1200 examples a probe learns them one by one, as with the control tasks of chapter 01. It did the work itself. (So it
# went in the field: Voita & Titov, 2020, report that accuracy does "not substantially favour pretrained representations
# over randomly initialized ones".) To see work, measure *effort*.
#
# Alice has the activations $x_1, \dots, x_n$ and the labels; Bob has the activations alone. She sends the labels, in
# blocks. For the first $t_1$ labels there is no probe yet: each costs $\log_2 K$ bits, for $K$ classes. Then both fit
# the same probe on everything sent so far, and a label to which that probe gives the probability $p$ costs $-\log_2 p$
# bits. After the next block both fit again. The sum is the **online codelength** (Voita & Titov, 2020):
#
# $$L = t_1 \log_2 K \;-\; \sum_{i} \;\sum_{j = t_i + 1}^{t_{i+1}} \log_2 p_{i}(y_j \mid x_j),
#   \qquad p_i \text{ fitted on rows } 1, \dots, t_i .$$
#
# A probe that needs many examples pays for all the labels that came before it was good.

# %% [markdown] exercise="2.1" role="task"
# ### Exercise 2.1 · Online codelength
#
# `ends[i]` says how many labels have been sent, in all, when block $i$ is through; the last is the number of rows.
# Blocks are sent in the order of the rows. `fit(x, y)` fits a probe on the rows it is given; `probe.log_prob(x)` gives
# `[n, class]`, the *natural* logarithms of all classes' probabilities. The labels are integers from 0 to `n_classes -
# 1` (not every class need occur).
#
# **Return** what each block costs, in bits, `[block]`: first entry the first block (no probe), then one entry for each
# further block.

# %% exercise="2.1" role="answer" minutes=20 difficulty=2 importance=3
def online_codelength(
    x: Float[Tensor, "n d_model"], y: Int[Tensor, "n"], fit: Callable, ends: list[int], n_classes: int
) -> Float[Tensor, "block"]:
    """Bits that each block of labels costs by the online code."""
    ### BEGIN SOLUTION
    blocks = [torch.tensor(ends[0] * math.log2(n_classes))]
    for start, end in pairwise(ends):
        log_prob = fit(x[:start], y[:start]).log_prob(x[start:end])
        own = log_prob[torch.arange(end - start), y[start:end]]
        blocks.append(-own.sum().cpu() / math.log(2))
    return torch.stack(blocks)
    ### END SOLUTION


# %% exercise="2.1" role="check" points=2
checks.online_codelength(online_codelength)
### BEGIN HIDDEN TESTS
checks.online_codelength(online_codelength, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The library's version, on the true labels for the trained model, its embeddings alone, and the twin. Beside them a
# control task for both models: each form of a noun has a label drawn at random, once and for all. One drawing is an
# accident, so take the mean over six.

# %%
forms = [s.tokens[subject(s)] for s in nouns]
arbitrary = [probes.control_labels(forms, plural.long(), seed).to(plural.device) for seed in range(6)]
to_send = {
    "trained": (x_trained, [plural.long()]),
    "trained, embeddings": (at_noun["trained"][0], [plural.long()]),
    "untrained twin": (x_twin, [plural.long()]),
    "trained, arbitrary labels": (x_trained, arbitrary),
    "untrained twin, arbitrary labels": (x_twin, arbitrary),
}

# %%
send = partial(probes.online_codelength, fit=fit, fractions=(0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1))
costs = {name: [send(x, y) for y in drawn] for name, (x, drawn) in to_send.items()}
plots.lines(
    {name: torch.stack([cost.bits_per_row for cost in each]).mean(0) for name, each in costs.items()},
    [f"to row {end}" for end in costs["trained"][0].ends],
    title="Number of a noun: what a label costs",
    xlabel="block",
    ylabel="bits per label",
)

# %%
bits = {name: torch.stack([cost.bits for cost in each]).cpu() for name, each in costs.items()}
for name, drawn in bits.items():
    spread = f" (from {drawn.min():.0f} to {drawn.max():.0f})" if len(drawn) > 1 else ""
    print(f"{name:<33} {drawn.mean():4.0f} of 1500 bits{spread}")
assert bits["trained"] < 60 and bits["trained, embeddings"] < 90 and 180 < bits["untrained twin"] < 330

# %% role="result"
mean_bits = {name: drawn.mean().item() for name, drawn in bits.items()}
{
    "true labels are cheap in the trained model": mean_bits["untrained twin"] > 4 * mean_bits["trained"],
    "arbitrary ones are expensive there": mean_bits["trained, arbitrary labels"] > 8 * mean_bits["trained"],
}

# %% [markdown]
# In the trained model the probe has the number after one block (the first 30 labels, at one bit each, are most of the
# bill). In the twin it learns form by form, and there the true labels are only somewhat cheaper than arbitrary ones.
# That is the control: to the twin *any* grouping of the forms is nearly arbitrary. In the trained model arbitrary
# labels cost more than ten times what the true ones do, and on average more than they cost in the twin: the forms of
# one number lie close together, which is now in the way. The difference is the model's own work.
#
# Whose work in the model? The embeddings alone are nearly as cheap: the number is a property of the word, and the
# embedding table has it before any block has run.
#
# But a short code still speaks about the probe's task, not about the model's. Whether the number is *used* takes an
# intervention.

# %% [markdown]
# ## 2 Take it out
#
# If the model uses a concept, taking it out must show. To take something out well means: no linear probe finds it any
# more, and everything else stays as it was, as far as possible. Write $\mu$ for the mean of $x$, $\Sigma_{xx}$ for its
# covariance matrix and $\Sigma_{xz}$ for the covariances of $x$ with the label $z$ (a column of zeros and ones, several
# of them, or numbers). Measured by a convex loss such as cross-entropy, a linear probe can beat a constant guess
# only if $\Sigma_{xz} \neq 0$. Of all affine
# maps that make it zero, the one that moves $x$ least (in the mean square) is **LEACE** (Belrose et al., 2023):
#
# $$r(x) = x - M (x - \mu), \qquad M = W^{+}\, P\, W, \qquad W = \big(\Sigma_{xx}^{1/2}\big)^{+},$$
#
# where $P$ is the orthogonal projection on the columns of $W \Sigma_{xz}$, and $^{+}$ the pseudo-inverse. In words:
# whiten, project out, undo the whitening. With eigenvectors $V$ and eigenvalues $\lambda_i$ of $\Sigma_{xx}$,
#
# $$W = V\, \operatorname{diag}(\lambda_i^{-1/2})\, V^{\top}, \qquad W^{+} = V\, \operatorname{diag}(\lambda_i^{1/2})\, V^{\top},$$
#
# both over those $\lambda_i$ that are not zero (to rounding). And for any matrix $A$, the projection on its columns is
# $A A^{+}$.

# %% [markdown] exercise="2.2" role="task"
# ### Exercise 2.2 · LEACE
#
# Rows are examples, so the erased rows will be `x - (x - mean) @ M.T`. Covariances divide by $n$. `x` may have
# directions without variance (to rounding), and `z` columns that never vary: leave out what belongs to an eigenvalue of
# $\Sigma_{xx}$, or to a singular value of $W \Sigma_{xz}$, below $10^{-6}$ of the largest. (`torch.linalg.pinv` takes
# such a bound as `rtol`.)
#
# **Return** a pair `(M, mean)`: `[d_model d_model]`, what is taken out as in the formula, and `[d_model]`.

# %% exercise="2.2" role="answer" minutes=25 difficulty=3 importance=3
def leace(
    x: Float[Tensor, "n d_model"], z: Float[Tensor, "n k"]
) -> tuple[Float[Tensor, "d_model d_model"], Float[Tensor, "d_model"]]:
    """The matrix M of least-squares concept erasure and the mean of x."""
    ### BEGIN SOLUTION
    mean = x.mean(0)
    centred = (x - mean).double()
    sigma_xx = centred.T @ centred / len(x)
    sigma_xz = centred.T @ (z - z.mean(0)).double() / len(x)
    value, vector = torch.linalg.eigh(sigma_xx)
    keep = value > 1e-6 * value.max()
    value, vector = value[keep], vector[:, keep]
    w, w_plus = vector * value**-0.5 @ vector.T, vector * value**0.5 @ vector.T
    a = w @ sigma_xz
    return (w_plus @ a @ torch.linalg.pinv(a, rtol=1e-6) @ w).to(x.dtype), mean
    ### END SOLUTION


# %% exercise="2.2" role="check" points=3
checks.leace(leace)
### BEGIN HIDDEN TESTS
checks.leace(leace, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Erase the number from the nouns, fitted on the first 1200 sentences. Then fit *fresh* probes on the erased
# activations, a linear one and an MLP with one hidden layer. (A probe fitted before the erasure would also fail if the
# erasure had merely rotated the space; only a fresh one shows what is left.) Test them on the other 300 sentences, and
# on `held_out_words`: nouns that are never the subject of such a sentence in the model's training, though it knows them
# from other places.

# %%
unseen_nouns = world.sentences("agreement", 300, seed=4, split="held_out_words")
unseen_plural = labels(unseen_nouns, "number", "plural")
unseen_trained, unseen_twin = (streams(m, unseen_nouns, subject)[2] for m in (model, twin))
erase, erase_twin = (probes.fit_leace(x[~late], plural[~late]) for x in (x_trained, x_twin))


def readable(x: Float[Tensor, "n d_model"], unseen: Float[Tensor, "n d_model"]) -> Float[Tensor, "4"]:
    """Accuracies of fresh probes: linear on known and on unseen nouns, MLP on known and on unseen nouns."""
    fresh = fit(x[~late], plural[~late]), probes.fit_mlp(x[~late], plural[~late].long(), steps=200)
    tests = (x[late], plural[late].long()), (unseen, unseen_plural.long())
    return torch.stack([probe.accuracy(*test) for probe in fresh for test in tests])


# %%
versions = {
    "trained, as it is": readable(x_trained, unseen_trained),
    "trained, erased": readable(erase(x_trained), erase(unseen_trained)),
    "twin, erased": readable(erase_twin(x_twin), erase_twin(unseen_twin)),
}
plots.bars(
    versions,
    ["linear, known nouns", "linear, unseen nouns", "MLP, known nouns", "MLP, unseen nouns"],
    title="Number of a noun, before and after LEACE",
    xlabel="fresh probe",
    ylabel="accuracy",
)

# %% role="result"
assert (versions["trained, erased"][:2] < 0.58).all() and (versions["trained, as it is"] > 0.99).all()
assert versions["trained, erased"][2] > 0.95 and versions["trained, erased"][3] > 0.65
assert versions["twin, erased"][2] > 0.95 and versions["twin, erased"][3] < 0.62
{"directions taken out": int(erase.rank)}

# %% [markdown]
# One direction of 128 is gone, and a linear probe is left with guessing. The MLP still reads the number of known nouns
# without an error. Before you say "so it is still there, nonlinearly": the twin's MLP does too. It knows the forms by
# heart. Unseen nouns decide. In the twin the MLP guesses; in the trained model it is well above that. But these 300
# sentences have only six nouns in two forms, and a form is often read right in all its sentences:


# %%
def by_form(eraser: probes.Eraser) -> dict[str, float]:
    """For each unseen form, the share of its sentences in which a fresh MLP reads its number after the erasure."""
    mlp = probes.fit_mlp(eraser(x_trained[~late]), plural[~late].long(), steps=200)
    hits = mlp.predict(eraser(unseen_trained)) == unseen_plural.long()
    forms = [s.tokens[subject(s)] for s in unseen_nouns]
    return {form: hits[[f == form for f in forms]].float().mean().item() for form in sorted(set(forms))}


# %%
print(", ".join(f"{form} {share:.2f}" for form, share in by_form(erase).items()))

# %% [markdown]
# Ten of the twelve forms are read right more often than not, one of them barely. Were the forms independent, a coin
# would do as well in one case of fifty; they come in pairs. So this is a hint, and no more, that something has been
# left which no linear probe can see (in the other two trainings it is ten and eight). Keep it in mind when a paper says
# that a concept "was removed". The model itself is full of MLPs.

# %% [markdown]
# ## 3 Does anybody miss it?
#
# LEACE is exact. Its forerunner **INLP** (Ravfogel et al., 2020) goes step by step: fit a probe, take its direction
# out, fit another on what is left, and so on until probes fail. It takes out more directions than LEACE, and hides
# less. You will meet it in many papers, so build it once and see how far it gets.

# %% [markdown] exercise="2.3" role="task"
# ### Exercise 2.3 · Iterative nullspace projection
#
# `fit(x, y)` returns a direction `[d_model]`, of any length, and not always quite perpendicular to the directions you
# have taken out before. Each round: call `fit` on the rows *without their components along all directions found so far*
# (take them out of the rows as they are, no centring); make what it returns perpendicular to the earlier directions;
# give it length 1.
#
# **Return** the directions, `[direction d_model]`, in the order found (with either sign): `n_directions` rows,
# perpendicular, of length 1.

# %% exercise="2.3" role="answer" minutes=20 difficulty=2 importance=3
def inlp(
    x: Float[Tensor, "n d_model"], y: Int[Tensor, "n"], fit: Callable, n_directions: int
) -> Float[Tensor, "direction d_model"]:
    """An orthonormal basis of the directions that successive probes have used."""
    ### BEGIN SOLUTION
    basis = x.new_zeros(0, x.shape[1])
    for _ in range(n_directions):
        direction = fit(x - x @ basis.T @ basis, y)
        direction = direction - direction @ basis.T @ basis
        basis = torch.cat([basis, direction[None] / direction.norm()])
    return basis
    ### END SOLUTION


# %% exercise="2.3" role="check" points=2
checks.inlp(inlp)
### BEGIN HIDDEN TESTS
checks.inlp(inlp, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# How far do eight rounds get?


# %%
def after_rounds(x: Float[Tensor, "n d_model"], basis: Float[Tensor, "k d_model"]) -> Float[Tensor, "round"]:
    """Accuracy of a fresh linear probe when 0, 1, ..., k of the directions have been taken out."""
    left = torch.stack([probes.Subspace(basis[:k]).remove(x) for k in range(len(basis) + 1)])
    return fit(left[:, ~late], plural[~late]).accuracy(left[:, late], plural[late])


def share_of_variance(x: Float[Tensor, "n d_model"], remove: Callable) -> float:
    """The share of the variance of `x` that `remove` takes out."""
    return ((x - remove(x)).pow(2).sum() / (x - x.mean(0)).pow(2).sum()).item()


# %%
after_block = {block: at_noun["trained"][block + 1] for block in (0, 1, 2)}
spaces = {b: probes.inlp(x[~late], plural[~late], 8, C=0.1, standardize=True) for b, x in after_block.items()}
left_readable = {f"INLP, after block {b}": after_rounds(x, spaces[b].basis) for b, x in after_block.items()}
left_readable["LEACE (one direction), after block 1"] = versions["trained, erased"][0].expand(9)
plots.lines(
    left_readable,
    title="Number of a noun: what a fresh linear probe still reads",
    xlabel="directions that INLP has taken out",
    ylabel="accuracy on new sentences",
)

# %%
for block, x_block in after_block.items():
    eight = spaces[block], probes.random_subspace(128, 8, seed=0)
    by_inlp, at_random = (share_of_variance(x_block, partial(s.remove, center=x_block.mean(0))) for s in eight)
    print(f"after block {block}, variance taken out: by INLP {by_inlp:.0%}, by eight random directions {at_random:.0%}")
assert left_readable["INLP, after block 2"][8] > 0.85

# %% [markdown]
# In eight rounds INLP does not reach what LEACE does in one step, and after block 2 it has hidden hardly anything. Look
# at the variances too: a random subspace of the same *size* is a weak control. The number is one of the largest things
# in these vectors, and random directions hit almost nothing.
#
# Now the real question (**amnesic probing**; Elazar et al., 2021, who used INLP). In "The king near the dogs is old"
# the verb must agree with "king", not with "dogs". Does `world` get that right?

# %%
sentence_forms = ("pp", "object_relative", "subject_relative")
probed = [s for form in sentence_forms for s in pairs("agreement", 150, seed=5, form=form)]
tested = [s for form in sentence_forms for s in pairs("agreement", 40, seed=6, form=form)]
number, tested_number = (labels(batch, "number", "plural") for batch in (probed, tested))
mixed = next(s for s in tested if s.labels["number"] != s.labels["attractor_number"])
print(mixed.prompt, "...", mixed.answer, "/", mixed.distractor)

# %%
prompts, rows = model.to_tokens([s.text for s in tested]), range(len(tested))
verb_is_due = [before_answer(s) for s in tested]
answers, distractors = ([model.to_single_token(getattr(s, name)) for s in tested] for name in ("answer", "distractor"))


def changed(batch: Sequence, place: Callable, block: int, change: Callable) -> list[tuple[str, Callable]]:
    """Hooks that apply `change` to the stream after a block, at one place of each sentence."""

    def hook(value, hook):
        value, here = value.clone(), (range(len(batch)), [place(s) for s in batch])
        value[here] = change(value[here])
        return value

    return [(f"blocks.{block}.hook_resid_post", hook)]


def margins(hooks: list[tuple[str, Callable]]) -> Float[Tensor, "n"]:
    """logit(right form) - logit(wrong form) of the verb."""
    logits = model.run_with_hooks(prompts, fwd_hooks=hooks)
    return logits[rows, verb_is_due, answers] - logits[rows, verb_is_due, distractors]


# %%
intact = margins([])
print(f"verbs that are right: {(intact > 0).float().mean():.0%}, mean margin {intact.mean():.1f}")

# %% [markdown]
# Now erase the number with LEACE *while the model runs*: at the noun (after block 0 or 2), at the last word before the
# verb (after block 2 or 3), and at both. Two controls. LEACE takes out one direction, so take out a random one. And,
# stricter, because a random one has hardly any variance: eight random directions among the 16 largest principal
# components, a third to two thirds of the variance.


# %%
def number_out(x: Float[Tensor, "n d_model"]) -> Callable:
    return probes.fit_leace(x, number)


def random_out(x: Float[Tensor, "n d_model"]) -> Callable:
    return partial(probes.random_subspace(128, 1, seed=0).remove, center=x.mean(0))


def large_out(x: Float[Tensor, "n d_model"]) -> Callable:
    components = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:16]
    basis = probes.random_subspace(16, 8, seed=0).basis.to(x) @ components
    return partial(probes.Subspace(basis).remove, center=x.mean(0))


removals = {"number (LEACE)": number_out, "random direction": random_out, "eight large random directions": large_out}

# %%
sites = {
    "noun, after block 0": [(subject, 0)],
    "noun, after block 2": [(subject, 2)],
    "last word, after block 2": [(before_answer, 2)],
    "both, after block 2": [(subject, 2), (before_answer, 2)],
    "last word, after block 3": [(before_answer, 3)],
}
single_sites = {name: site[0] for name, site in sites.items() if len(site) == 1}
before_verb, before_tested_verb = (
    {place: streams(model, batch, place) for place in (subject, before_answer)} for batch in (probed, tested)
)

# %%
for name, (place, block) in single_sites.items():
    probe = fit(before_verb[place][block + 1], number)
    print(f"{name:<25} probe {probe.accuracy(before_tested_verb[place][block + 1], tested_number):.2f}")

# %% [markdown]
# **Predict first.** At the *last word* the verb is due, and after block 2, with one block to go, the probe there reads
# the number without an error. Erase it there. How often is the verb still right?
#
# - (a) about half of the time: the number is gone
# - (b) about three quarters of the time
# - (c) practically always

# %% exercise="2.A" role="predict"
guess_last_word = None  # "a", "b" or "c"
### BEGIN SOLUTION
guess_last_word = "a"  # a guess, and a wrong one: that is fine
### END SOLUTION

# %%
without = {
    name: torch.stack(
        [
            margins([hook for place, b in site for hook in changed(tested, place, b, out(before_verb[place][b + 1]))])
            for site in sites.values()
        ]
    ).cpu()
    for name, out in removals.items()
}
right_form = {name: (values > 0).float().mean(-1) for name, values in without.items()}

# %%
plots.bars(
    right_form,
    list(sites),
    title="How often the verb is right when this has been taken out",
    xlabel="place",
    ylabel="share of verbs that are right",
)

# %% role="result"
assert (right_form["random direction"] > 0.99).all() and (right_form["eight large random directions"] > 0.93).all()
{site: "needed" if share < 0.9 else "spared" for site, share in zip(sites, right_form["number (LEACE)"])}

# %%
checks.prediction(
    guess_last_word,
    {"a": "about half of the time", "b": "about three quarters of the time", "c": "practically always"},
    outcome="c",
    because=f"Right in {right_form['number (LEACE)'][2]:.0%}; after block 3 it would be "
    f"{right_form['number (LEACE)'][4]:.0%}.",
)

# %% [markdown]
# At the noun after block 0, and at the last word after block 3, the verb becomes a coin without the number (or nearly:
# see the table at the end); under the controls nearly every verb stays right. In between, after block 2, the probe
# reads the number at either place, and either can be spared. Take it out at *both*, and the verb is a coin again. There
# were two copies: if the last word has lost the number, block 3 fetches it from the noun; if the noun has lost it, the
# last word already has it. (In one of the three trainings most verbs survive even this, and all do when both vectors
# are replaced whole by their means: there other words hold copies too.)
#
# *A removal at one place that changes nothing does not show that the place is unused.* It shows that the place can be
# spared. And the accuracy of the probe was no guide here: it is the same at all these places. (Elazar et al. came to
# the same conclusion about BERT.)
#
# The margins say a little more than the counts, and the variances say how strict the control is:

# %%
for name, (place, block) in single_sites.items():
    x_site, i = before_verb[place][block + 1], list(sites).index(name)
    print(f"{name}:")
    for what, out in removals.items():
        share = share_of_variance(x_site, out(x_site))
        print(f"    without {what:<30} margin {without[what][i].mean():4.1f}, {share:.0%} of the variance taken out")
assert without["number (LEACE)"][2].mean() < without["eight large random directions"][2].mean() - 0.3

# %% [markdown]
# The controls hardly change a verb, but they do cost margin: any large removal does. At the last word after block 2 the
# number costs more than a control that takes out more variance, though no verb changes: that copy *is* used. And for
# the noun after block 2 no control of the same size exists: the number is most of what varies there at all.

# %% [markdown]
# ## 4 Put it in
#
# Back to the reviews. The first figure counted verdicts that turned; a logit difference says more. Measure how far it
# moves when a vector is added at a place of your choice.

# %% [markdown] exercise="2.4" role="task"
# ### Exercise 2.4 · The effect of a push
#
# Row $i$ of `tokens` is a text (padded behind with tokens that play no part). Add `vector` to the stream *after block*
# `layer` (hook `blocks.{layer}.hook_resid_post`), in row $i$ at position `where[i]` and nowhere else. Read the logits
# of row $i$ at position `read[i]`, and take logit(`right`) − logit(`wrong`) there.
#
# **Return** by how much the push changes this difference (with the push minus without), `[batch]`.

# %% exercise="2.4" role="answer" minutes=20 difficulty=2 importance=3
def steering_effect(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    where: Int[Tensor, "batch"],
    read: Int[Tensor, "batch"],
    layer: int,
    vector: Float[Tensor, "d_model"],
    right: int,
    wrong: int,
) -> Float[Tensor, "batch"]:
    """Change of logit(right) - logit(wrong) when `vector` is added at one position of each row."""
    ### BEGIN SOLUTION
    rows = torch.arange(len(tokens))

    def push(value, hook):
        value = value.clone()
        value[rows, where] += vector
        return value

    steered = model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.hook_resid_post", push)])
    change = (steered - model(tokens))[rows, read]
    return change[:, right] - change[:, wrong]
    ### END SOLUTION


# %% exercise="2.4" role="check" points=3
checks.steering_effect(steering_effect)
### BEGIN HIDDEN TESTS
checks.steering_effect(steering_effect, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Now the fair comparison. The difference of the means is three to four times as long at the colon: perhaps the push at
# the other place is merely too weak. So push there with *the colon's own vector* as well. And push at the colon with a
# random vector of the same length. (`steering.add_after` does what you have just written.)


# %%
def verdict(hooks: list[tuple[str, Callable]]) -> Float[Tensor, ""]:
    """logit(positive) - logit(negative) at the colon, mean over the negative reviews."""
    logits = model.run_with_hooks(negative_tokens, fwd_hooks=hooks)[range(60), colon]
    return (logits[:, model.to_single_token("positive")] - logits[:, model.to_single_token("negative")]).mean()


untouched = verdict([])


def moved_by(place: str, vectors: Float[Tensor, "block d_model"]) -> Float[Tensor, "block"]:
    """How far the verdict moves when each block's vector is added after that block."""
    positions = [places[place](s) for s in negative]
    return torch.stack([verdict(steering.add_after(b, v, positions)) - untouched for b, v in enumerate(vectors)])


# %%
moved = {
    "colon, its own vector": moved_by("colon", push["colon"]),
    **{
        f"colon, random vector {seed + 1}": moved_by("colon", steering.random_like(push["colon"], seed))
        for seed in range(3)
    },
    "end of statement, its own vector": moved_by("end of the statement", push["end of the statement"]),
    "end of statement, the colon's vector": moved_by("end of the statement", push["colon"]),
}

# %%
plots.lines(
    moved,
    [f"block {block}" for block in range(4)],
    title="What a push does to the verdict",
    xlabel="pushed after",
    ylabel="change of logit(positive) - logit(negative)",
)

# %% role="result"
at_random = torch.stack([change for name, change in moved.items() if "random" in name]).abs()
assert (moved["colon, its own vector"] > 20).all() and at_random.max() < 20 and at_random.mean() < 8
{name: "moved" if (change.abs() > 20).any() else "not moved" for name, change in moved.items() if "random" not in name}

# %% [markdown]
# The colon's vector moves the verdict by more than 20 logits at the colon, after any block. Random vectors of the same
# length move it too, by much less, and some up, some down. And the *same vector* at the end of the statement does next
# to nothing. (After block 3 that is so by construction: no attention comes after it. After the others it is a finding.)
#
# And the removal? Erase the sentiment with LEACE at either place:

# %%
erased_verdict = {
    name: torch.stack(
        [
            verdict(changed(negative, place, block, probes.fit_leace(at_reviews[name][block + 1], is_positive)))
            for block in range(4)
        ]
    )
    for name, place in places.items()
}
print(f"untouched: {untouched:.1f}")
for name, values in erased_verdict.items():
    print(f"sentiment erased at the {name}, after blocks 0 to 3:", " ".join(f"{v:.1f}" for v in values))

# %% role="result"
assert (erased_verdict["colon"] > 0.4 * untouched).all()
{name: "needed" if ((v - untouched).abs() > 5).all() else "spared" for name, v in erased_verdict.items()}

# %% [markdown]
# At the colon most of the verdict is gone, or all. At the end of the statement it stays what it was, to a fraction of a
# logit. From the removal alone you could not conclude (section 3: there might be a second copy); but a place that is
# read, copy or not, should let a push through, and this one does not. As far as these two directions tell, nothing on
# the way to the verdict reads the sentiment there; what the colon needs, it fetches elsewhere.
#
# *A probe says what can be read. A removal says what cannot be spared. A push says what is obeyed.*

# %% [markdown]
# ## 5 Which label did the probe learn?
#
# `world` also judges claims: "Claim : Angola is a country in Asia ? false". A probe that tells true claims from false
# ones: is it a probe of *truth*? Three relations (category, gender, continent), and at two places: at the claimed word
# ("Asia"), and at the question mark, where the verdict is predicted. If it is truth, a probe fitted on one relation
# must work on the others, and on entities it has not seen.

# %% [markdown] exercise="2.5" role="task"
# ### Exercise 2.5 · A transfer matrix
#
# `x`, `y` and `train` have one entry for each relation: activations, labels, and which rows may be fitted on. `fit(x,
# y)` gives a probe, `probe.predict(x)` its labels `[n]`. Fit one probe on each relation's rows in `train`. Test each of
# them on every relation, always on the rows that are *not* in `train`: also when the probe was fitted on another
# relation, so that all entries of a column are measured on the same rows.
#
# **Return** the accuracies, `[fitted tested]`: row = relation fitted on, column = relation tested on, in the order of
# `x`.

# %% exercise="2.5" role="answer" minutes=20 difficulty=2 importance=3
def transfer_matrix(
    x: dict[str, Float[Tensor, "n d_model"]],
    y: dict[str, Bool[Tensor, "n"]],
    train: dict[str, Bool[Tensor, "n"]],
    fit: Callable,
) -> Float[Tensor, "fitted tested"]:
    """Accuracy of the probe of each relation on the held-out rows of each relation."""
    ### BEGIN SOLUTION
    fitted = [fit(x[name][train[name]], y[name][train[name]]) for name in x]
    hits = [[probe.predict(x[name][~train[name]]) == y[name][~train[name]] for name in x] for probe in fitted]
    return torch.stack([torch.stack([hit.float().mean() for hit in row]) for row in hits])
    ### END SOLUTION


# %% exercise="2.5" role="check" points=2
checks.transfer_matrix(transfer_matrix)
### BEGIN HIDDEN TESTS
checks.transfer_matrix(transfer_matrix, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# On `world`'s claims, after the last block. `known` are claims about entities that the model was trained to judge,
# `unseen` (`held_out_words`) about entities of which no claim was ever made in its training.

# %%
relations = list(world.ENTITIES)
claims = {r: pairs("claim", 200, seed=7, relation=r) for r in relations}
known = {r: pairs("claim", 100, seed=8, relation=r) for r in relations}
unseen = {r: pairs("claim", 100, seed=8, split="held_out_words", relation=r) for r in relations}


def transfer(tests: dict[str, list], place: Callable, model: TransformerBridge = model) -> Tensor:
    """Accuracies [fitted tested] after the last block: fitted on `claims`, tested on `tests`."""
    of = {r: streams(model, claims[r], place)[-1] for r in relations}
    on = {r: streams(model, tests[r], place)[-1] for r in relations}
    fitted = [fit(of[r], labels(claims[r], "truth", "true")) for r in relations]
    is_true = {r: labels(tests[r], "truth", "true") for r in relations}
    return torch.stack([torch.stack([probe.accuracy(on[r], is_true[r]) for r in relations]) for probe in fitted])


def claimed(s: world.Sentence) -> int:
    return s.roles["claimed"]


# %%
panels = {
    "claimed word, known": transfer(known, claimed),
    "claimed word, new": transfer(unseen, claimed),
    '"?", new': transfer(unseen, before_answer),
    'twin: "?", known': transfer(known, before_answer, twin),
}
plots.heatmap(
    torch.stack(list(panels.values())),
    relations,
    relations,
    facets=list(panels),
    title="Is it truth? Probes of one relation, tested on all (known or new entities)",
    xlabel="tested on",
    ylabel="fitted on",
    value="accuracy (colours from 0.5)",
    diverging=False,
    zmax=1,
    text=".2f",
).update_traces(zmin=0.5)

# %% role="result"
across = ~torch.eye(3, dtype=torch.bool, device=session.device())
at_claimed, at_question = panels["claimed word, known"], panels['"?", new']
assert at_question.mean() > 0.9 and at_claimed.diagonal().mean() > 0.75 and at_claimed[across].max() < 0.62
{name: "transfers" if panel[across].mean() > 0.75 else "does not" for name, panel in panels.items()}

# %% [markdown]
# At the claimed word (first panel) each probe looks quite good at its own relation. For the others it is a coin. With
# new entities it loses a part of its own lead as well. Whatever it has learned is about *one relation*, and partly
# about the words it has seen. The diagonal of the first panel is what a paper without these controls would have
# reported.
#
# At the question mark, a probe of one relation judges the others, with entities about which nothing was ever claimed.
# That deserves the name *truth*, or at least "this model's verdict", which is due at that very place. (In another
# training one transfer is weaker, 0.68.) In the twin, last panel, a probe at the question mark cannot even judge its
# own relation. (The panels are
# read after the last block. At the claimed word the picture is the same after every block. At the question mark it is
# not: after blocks 0 and 1 most of the transfer is missing, after block 2 it is there.)

# %% [markdown]
# ## 6 Without labels: what does it find?
#
# **Contrast-consistent search** (Burns et al., 2022) looks for truth without being told any. Put each question in two
# ways, of which exactly one is true: "Angola is a country in Asia", "Angola is a country in Africa". Whoever knows the
# truth gives the two halves of a pair probabilities that add up to 1, and is sure. So look for a direction $w$ that
# does:
#
# $$p^{\pm} = \operatorname{sigmoid}\!\big(w \cdot (x^{\pm} - \mu^{\pm}) + b\big), \qquad
#   L = \frac1n \sum_i \Big[ \underbrace{\big(p_i^{+} - (1 - p_i^{-})\big)^2}_{\text{consistent}} + \underbrace{\min(p_i^{+}, p_i^{-})^2}_{\text{sure}} \Big].$$
#
# $\mu^{+}$ and $\mu^{-}$ are the means of the two halves over the pairs: subtracting them hides which half a row comes
# from. (Burns et al. divide by the standard deviation as well; not here.)

# %% [markdown] exercise="2.6" role="task"
# ### Exercise 2.6 · The loss of CCS
#
# Row $i$ of `x_pos` and row $i$ of `x_neg` are a pair. Centre each of the two by its own mean over the pairs, then
# compute $L$ as above. `bias` is a tensor without axes.
#
# **Return** the loss, one number.

# %% exercise="2.6" role="answer" minutes=10 difficulty=1 importance=2
def ccs_loss(
    x_pos: Float[Tensor, "n d_model"],
    x_neg: Float[Tensor, "n d_model"],
    weight: Float[Tensor, "d_model"],
    bias: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Consistency plus confidence, averaged over the pairs."""
    ### BEGIN SOLUTION
    p_pos, p_neg = (torch.sigmoid((x - x.mean(0)) @ weight + bias) for x in (x_pos, x_neg))
    return ((p_pos + p_neg - 1) ** 2 + torch.minimum(p_pos, p_neg) ** 2).mean()
    ### END SOLUTION


# %% exercise="2.6" role="check" points=2
checks.ccs_loss(ccs_loss)
### BEGIN HIDDEN TESTS
checks.ccs_loss(ccs_loss, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Does this loss know what truth is? Plant two features that are both opposite in the two halves of a pair: truth, with
# strength 2, and something that has nothing to do with it (say, which of the two halves mentions a banana), with a
# strength from 0 to 4.
#
# **Predict first.** The distractor is twice as strong as the truth. How well does the probe with the lowest loss
# predict the truth?
#
# - (a) nearly perfectly: the loss asks for it
# - (b) half-way: it mixes both
# - (c) like a coin

# %% exercise="2.B" role="predict"
guess_ccs = None  # "a", "b" or "c"
### BEGIN SOLUTION
guess_ccs = "b"
### END SOLUTION


# %%
def planted_pairs(strength: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs x_pos and x_neg, [n 16], and the labels of truth and distractor, [n]."""
    generator = torch.Generator().manual_seed(0)
    truth, banana = torch.randint(0, 2, (2, 600), generator=generator)
    axes = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0]
    signal = 2 * (2 * truth - 1)[:, None] * axes[0] + strength * (2 * banana - 1)[:, None] * axes[1]
    half = 3 * axes[2]  # the same in all pairs, as the word "Asia" itself: the centring is there to remove it
    noise = torch.randn(2, 600, 16, generator=generator)
    return signal + half + noise[0], -signal - half + noise[1], truth, banana


def agreement(probe: probes.CCSProbe, x_pos: Tensor, x_neg: Tensor, y: Tensor) -> Tensor:
    """Accuracy up to the sign, which CCS leaves open."""
    share = probe.accuracy(x_pos, x_neg, y)
    return torch.maximum(share, 1 - share)


def truth_and_distractor(strength: float) -> Float[Tensor, "2"]:
    """What the probe with the lowest loss agrees with."""
    x_pos, x_neg, *both_labels = planted_pairs(strength)
    probe = probes.fit_ccs(x_pos, x_neg, steps=400, standardize=False)
    return torch.stack([agreement(probe, x_pos, x_neg, y) for y in both_labels])


# %%
distractor_strengths = [0, 1, 1.8, 2, 2.2, 3, 4]
by_strength = torch.stack([truth_and_distractor(strength) for strength in distractor_strengths], 1)
plots.lines(
    by_strength,
    distractor_strengths,
    names=["truth", "distractor"],
    title="What CCS finds (truth has strength 2)",
    xlabel="strength of the distractor",
    ylabel="agreement of the best probe",
)

# %% role="result"
{
    "no distractor": "truth" if by_strength[0, 0] > 0.95 else "not the truth",
    "distractor twice as strong": "distractor" if by_strength[1, -1] > 0.95 and by_strength[0, -1] < 0.6 else "not it",
}

# %%
checks.prediction(
    guess_ccs,
    {"a": "nearly perfectly", "b": "half-way", "c": "like a coin"},
    outcome="c",
    because=f"Agreement with the truth {by_strength[0, -1]:.2f}, with the distractor {by_strength[1, -1]:.2f}.",
)

# %% [markdown]
# It finds the more salient of the two, and never mixes them. Where they are equally strong (at 2) both are as good,
# and which has the slightly lower loss is an accident of the sample. Nothing in the loss speaks of truth. Farquhar et
# al. (2023) "first prove theoretically that arbitrary features (not just knowledge) satisfy the consistency structure",
# then find that such methods "seem to discover whatever feature of the activations is most prominent".
#
# And in `world`? Claims of gender make natural pairs: the same claim with "woman" and with "man". There are two
# wordings:


# %%
def with_claim(s: world.Sentence, word: str) -> str:
    return " ".join(word if i == s.roles["claimed"] else t for i, t in enumerate(s.tokens) if 0 < i < s.answer_position)


gender = claims["gender"]
woman, man = world.ENTITIES["gender"]
is_first_wording = torch.tensor([s.template == gender[0].template for s in gender], device=session.device())
woman_is_true = labels(gender, "value", woman)
for s in (gender[0], next(s for s in gender if s.template != gender[0].template)):
    print(f"{with_claim(s, woman)}    {with_claim(s, man)}    (the ? stands at position {before_answer(s)})")


# %%
def contrast(model: TransformerBridge) -> list[Float[Tensor, "block n d_model"]]:
    """The stream after every block at the question mark of both halves."""
    names, sides = [f"blocks.{i}.hook_resid_post" for i in range(4)], []
    for noun in (woman, man):
        _, cache = model.run_with_cache(model.to_tokens([with_claim(s, noun) for s in gender]), names_filter=names)
        where = [before_answer(s) for s in gender]
        sides.append(torch.stack([cache[name][range(len(gender)), where] for name in names]))
    return sides


# %%
agreements, losses = {}, {}
for name, m in {"trained": model, "untrained twin": twin}.items():
    woman_and_man = contrast(m)
    ccs = probes.fit_ccs(*woman_and_man, steps=400, tries=5)
    losses[name] = ccs.loss
    agreements[name] = {
        "truth": agreement(ccs, *woman_and_man, woman_is_true),
        "wording": agreement(ccs, *woman_and_man, is_first_wording),
    }

# %%
for name, by_label in agreements.items():
    for block in (0, 3):
        told = ", ".join(f"the {label} {values[block]:.2f}" for label, values in by_label.items())
        print(f"{name:<15} after block {block}: loss {losses[name][block]:.4f}, agrees with {told}")

# %% role="result"
assert (losses["trained"][[0, 3]] < 0.01).all() and (losses["untrained twin"] > 0.02).all()
{f"after block {b}": [label for label, v in agreements["trained"].items() if v[b] > 0.95] for b in (0, 3)}

# %% [markdown]
# After the last block CCS finds the truth, and no label was needed. After block 0 its loss is as good as zero too, and
# what it has found is not the truth: its answer goes with the *wording*. How can that be, if both halves of a pair have
# the same wording? What flips between them is a combination: "woman" in the first wording, "man" in the second. (The
# position of the question mark alone tells the wordings apart.) That is consistent, it is sure, and it has nothing to
# do with truth. The loss does not tell the two findings apart: somebody with labels has to look. (So it is in two of
# three trainings; in the third CCS finds the truth after block 0 already. In the twin CCS finds the wording as well,
# which takes no training to be there, but no loss comes near zero.)

# %% [markdown]
# ## 7 Trees from distances
#
# Not everything is a label. A sentence has a *tree*: each word hangs on its head. The **structural probe** (Hewitt &
# Manning, 2019) asks whether a linear map $B$ exists under which squared distances between words, $\|B(h_i - h_j)\|^2$,
# are the numbers of edges between them in the tree. To score it, draw the minimum spanning tree (the tree over all
# words whose edges have the smallest sum of distances) and count how many of its edges are right: the undirected
# unlabelled attachment score, **UUAS**.

# %% [markdown] exercise="2.7" role="task"
# ### Exercise 2.7 · UUAS
#
# `distance` is symmetric and holds the distance between any two positions of one sentence. `heads[i]` is the position
# of word $i$'s head; it is 0 for the root, and for position 0 itself, which is `<bos>`. Positions in `skip`
# (punctuation, anywhere in the sentence) and `<bos>` take no part: neither in the spanning tree nor among the true
# edges. The true edges are those between a word that takes part and its head (no head is in `skip`); the root has none,
# and every sentence has at least one. Edges have no direction. You may use `minimum_spanning_tree` from
# `scipy.sparse.csgraph` (imported above). It reads a 0 as "no edge", while two words may well lie at the same point, at
# distance 0: no two are nearer.
#
# **Return** the share of true edges that are in the minimum spanning tree, one number.

# %% exercise="2.7" role="answer" minutes=20 difficulty=2 importance=2
def uuas(distance: Float[Tensor, "pos pos"], heads: tuple[int, ...], skip: set[int]) -> float:
    """Share of a tree's edges that the minimum spanning tree of the distances has found."""
    ### BEGIN SOLUTION
    words = [i for i in range(1, len(heads)) if i not in skip]
    gold = {frozenset((i, heads[i])) for i in words if heads[i] != 0}
    among = distance.detach().cpu().double()[words][:, words]
    tree = minimum_spanning_tree((among - among.min() + 1).numpy()).tocoo()  # scipy reads 0 as "no edge"
    edges = {frozenset((words[i], words[j])) for i, j in zip(tree.row, tree.col)}
    return len(edges & gold) / len(gold)
    ### END SOLUTION


# %% exercise="2.7" role="check" points=2
checks.uuas(uuas)
### BEGIN HIDDEN TESTS
checks.uuas(uuas, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Five types of `world`'s sentences come with their trees. Fit $B$ (32 rows) on 500 sentences; test on new sentences of
# known templates, and on templates that the model has never seen (`held_out_templates`). The baselines: the chain (each
# word hangs on its neighbour), the untrained twin, and the *embeddings* of both models, which know every word but no
# context.


# %%
def with_trees(n: int, seed: int, split: str = "train") -> list[world.Sentence]:
    types = ("fact", "two_hop", "person", "indirect_object", "agreement")
    return [s for type in types for s in world.sentences(type, n, seed, split)]


def trees_of(batch: Sequence) -> probes.Trees:
    return probes.Trees.of([s.heads for s in batch], [probes.punctuation(s.tokens) for s in batch])


def word_streams(model: TransformerBridge, batch: Sequence) -> Float[Tensor, "site n pos d_model"]:
    """The embeddings and the stream after block 1, at every position."""
    names = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_post"]
    _, cache = model.run_with_cache(model.to_tokens([s.text for s in batch]), names_filter=names)
    return torch.stack([cache[name] for name in names])


# %%
parsed, new_templates = with_trees(100, seed=9), with_trees(40, seed=10, split="held_out_templates")
test_sets = {
    "new sentences": with_trees(40, seed=10),
    "new templates": new_templates,
    "new templates, agreement only": [s for s in new_templates if s.type == "agreement"],
}


def uuas_of_chain(batch: Sequence) -> float:
    stops = [probes.punctuation(s.tokens) for s in batch]
    return probes.uuas([probes.chain(mask) for mask in trees_of(batch).mask], [s.heads for s in batch], stops)


def uuas_of_model(model: TransformerBridge) -> Float[Tensor, "test site"]:
    """One probe for the embeddings and one for the stream after block 1, scored on each test set."""
    trees = trees_of(parsed)
    probe = probes.fit_distance_probe(word_streams(model, parsed), trees.distances, trees.mask, 32, steps=200)
    batches = test_sets.values()
    return torch.stack([probes.tree_scores(probe.distances(word_streams(model, b)), trees_of(b)).uuas for b in batches])


# %%
chain = torch.tensor([[uuas_of_chain(batch)] for batch in test_sets.values()])
compared = torch.cat([chain, uuas_of_model(twin).cpu(), uuas_of_model(model).cpu()], 1)
plots.bars(
    compared,
    ["chain", "twin, embeddings", "twin, block 1", "trained, embeddings", "trained, block 1"],
    names=list(test_sets),
    title="Syntax trees from distances",
    xlabel="distances from",
    ylabel="UUAS",
)

# %% role="result"
baselines, over_embeddings = compared[:, :3].amax(1), compared[:, 4] - compared[:, 3]
assert over_embeddings[0] > 0.01 and over_embeddings[1].abs() < 0.05 and (compared[:, 3] - compared[:, 1] > 0.05).all()
{
    "far above chain and twin": bool((compared[:, 4] - baselines > 0.05).all()),
    "far above its embeddings": [name for name, lead in zip(test_sets, over_embeddings) if lead > 0.08],
}

# %% [markdown]
# The trained model after block 1 (last group of bars) is far above the chain and above its twin, on all three sets. A
# paper could end here. But the group beside it is the model's *embeddings*, where no word has seen another yet, and
# they are nearly as good; on new templates the stream after block 1 has no lead over them on average (what it gains in
# the agreement sentences it loses in others). Most of what the
# probe reads is *what kind of word* each is and where it stands: a noun hangs on a verb, an article on the noun behind
# it. (The twin's embeddings tell the words apart too, but similar words have nothing in common there: they do worse.)
#
# Context shows where the kinds of words do not suffice: in the agreement sentences ("the pilot with the doctor ...")
# the stream after block 1 leads the embeddings clearly, on new templates too. (Only the words in front of the main
# clause are new there.) Whether the model *uses* that geometry, a structural probe does not say. You know by now how
# one would ask.

# %% [markdown]
# ## How this can fool you
#
# **Right answer, wrong coordinate.** Plant a small world model: a board square is black or white, and the model, whose
# turn changes, keeps it as *mine* or *yours*: mine when the stone's colour is the colour that moves. It writes "mine"
# along one direction and the colour that moves along another.

# %%
dice = torch.Generator().manual_seed(0)
black, black_moves = torch.randint(0, 2, (2, 2000), generator=dice).bool()
mine = black == black_moves
directions = torch.linalg.qr(torch.randn(16, 16, generator=dice))[0]
board = (2.0 * mine - 1)[:, None] * directions[0] + (2.0 * black_moves - 1)[:, None] * directions[1]
board = board + 0.3 * torch.randn(2000, 16, generator=dice)
fitted_on = torch.arange(2000) < 1000

# %% [markdown]
# The second case is our untrained twin, which knows nothing at all: claims of gender, at the question mark. A claim is
# true if the name's gender is the one claimed.

# %%
twin_claims = [streams(twin, batch["gender"], before_answer)[2] for batch in (claims, known, unseen)]
twin_truth = [labels(batch["gender"], "truth", "true") for batch in (claims, known, unseen)]


def linear_and_mlp(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor) -> list[float]:
    """Accuracy of a linear probe and of an MLP probe."""
    linear, mlp = fit(x, y), probes.fit_mlp(x, y.long())
    return [linear.accuracy(x_test, y_test).item(), mlp.accuracy(x_test, y_test.long()).item()]


# %%
on_board = {"black?": black, "mine?": mine}
cases = {
    f"board: {question}": linear_and_mlp(board[fitted_on], y[fitted_on], board[~fitted_on], y[~fitted_on])
    for question, y in on_board.items()
}
cases["twin: true?"] = linear_and_mlp(twin_claims[0], twin_truth[0], twin_claims[1], twin_truth[1])
cases["twin: true? (new names)"] = linear_and_mlp(twin_claims[0], twin_truth[0], twin_claims[2], twin_truth[2])
plots.bars(
    torch.tensor(list(cases.values())).T,
    list(cases),
    names=["linear probe", "MLP probe"],
    title="The same signature, two causes",
    xlabel="question",
    ylabel="accuracy",
)

# %% role="result"
{name: [kind for kind, share in zip(("linear", "MLP"), shares) if share > 0.8] for name, shares in cases.items()}

# %% [markdown]
# Look at the first and the third pair of bars: a linear probe fails, an MLP succeeds. One could write twice: "the model
# keeps it, but not linearly". On the board that would be wrong because the model keeps *another variable*, perfectly
# linearly (second pair): the question was asked in the wrong coordinate, as happened for a while with a model that
# plays Othello (Li et al., 2023; Nanda et al., 2023, found the linear coordinate). In the twin it is wrong because
# *nobody* keeps it: the name and the claimed word are both there, and the MLP compared them itself. New names give it
# away (fourth pair).
#
# A nonlinear probe that works is a reason to look for another coordinate, and for held-out words. It is no finding yet.

# %% [markdown]
# ## On a real model
#
# Your `online_codelength` and `leace` on GPT-2 (Radford et al., 2019), with sentences of our generators, which it can
# read: the number of the subject where the verb is due, the sentiment of a review at the colon, the truth of a
# statement at its full stop. Without a network the next cells print one line and go on.

# %%
gpt2, fit_real = session.real_model("gpt2"), partial(probes.fit_logistic, C=0.1, standardize=True)


# %%
def last_token_streams(model: TransformerBridge, texts: list[str]) -> Float[Tensor, "layer n d_model"]:
    """The stream after each block at the last token of every text."""
    names = [f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers)]
    caches = [model.run_with_cache(text, names_filter=names)[1] for text in texts]
    return torch.stack([torch.stack([cache[name][0, -1] for cache in caches]) for name in names])


def texts_and_labels(n: int) -> dict[str, tuple[list[str], list[bool]]]:
    """`n` texts for each question, with labels; in random order (the generator draws them independently)."""
    sentences, opinions = world.sentences("agreement", n, seed=11, form="pp"), world.sentences("review", n, seed=11)
    statements = world.sentences("claim", n, seed=11, relation="continent", template="continent/0")
    return {
        "number": ([s.prompt for s in sentences], [s.labels["number"] == "plural" for s in sentences]),
        "sentiment": ([s.prompt for s in opinions], [s.labels["sentiment"] == "positive" for s in opinions]),
        "truth": (
            [f"{s.labels['entity']} is a country in {s.labels['claimed']}." for s in statements],
            [s.labels["truth"] == "true" for s in statements],
        ),
    }


# %%
if gpt2 is not None:
    gpt2_data = {
        name: (last_token_streams(gpt2, texts), torch.tensor(values, device=session.device()).long())
        for name, (texts, values) in texts_and_labels(160).items()
    }


def times_shorter(layers: Float[Tensor, "layer n d_model"], y: Int[Tensor, "n"]) -> Float[Tensor, "layer"]:
    """Uniform code over online code, at every layer."""
    return torch.stack([len(y) / online_codelength(x, y, fit_real, [20, 40, 80, 160], 2).sum().cpu() for x in layers])


# %%
if gpt2 is not None:
    order = torch.randperm(160, generator=torch.Generator().manual_seed(0))
    shorter = {name: times_shorter(layers, y) for name, (layers, y) in gpt2_data.items()}
    shorter |= {f"{name}, shuffled": times_shorter(layers, y[order]) for name, (layers, y) in gpt2_data.items()}
    figure = plots.lines(
        shorter,
        [str(layer) for layer in range(gpt2.cfg.n_layers)],
        title="GPT-2: how much shorter a code its stream allows",
        xlabel="after block",
        ylabel="uniform code / online code",
    )
    display(figure)

# %%
if gpt2 is not None:
    for name, (layers, y) in gpt2_data.items():
        middle = layers[len(layers) // 2]
        taken_out, mean = leace(middle, y[:, None].float())
        without_it = middle - (middle - mean) @ taken_out.T
        before, after = (fit_real(rows, y).accuracy(rows, y).item() for rows in (middle, without_it))
        print(f"{name:<10} linear accuracy on the fitted rows: {before:.2f}, after LEACE {after:.2f}")

# %% [markdown]
# What to look for: shuffled labels should stay near 1 or below it. The last cell erases and tests on the *same* rows,
# where LEACE promises that a linear probe fitted by cross-entropy finds nothing: with 160 rows and 768 dimensions new
# rows would be no test of it. Which label is cheapest, and after which block? GPT-2 has never been asked about
# `world`'s claims. Does its stream know the continents nevertheless, and how would you tell that from words that go
# together (section 5)?
#
# *This section has been tested on a model of GPT-2's architecture with random weights, not yet on GPT-2 itself.*

# %% [markdown]
# ## Over three trainings
#
# The main numbers of this chapter for three trainings of `world` from different seeds (you have seen seed 0), measured
# with the cells above:
#
# | | | seed 0 | seed 1 | seed 2 |
# |---|---|---|---|---|
# | 1 | bits for the number of 1500 nouns: after block 1 / embeddings (twin 255) | 39 / 56 | 39 / 54 | 39 / 59 |
# | 1 | bits for arbitrary labels, mean of six drawings (twin 355) | 525 | 645 | 510 |
# | 2 | unseen nouns, MLP after LEACE (twin 0.52) | 0.82 | 0.74 | 0.73 |
# | 3 | verbs right without the number: noun, after block 0 | 0.56 | 0.72 | 0.55 |
# | | noun, after block 2 | 1.00 | 1.00 | 1.00 |
# | | last word, after block 2 | 1.00 | 1.00 | 0.98 |
# | | both, after block 2 | 0.50 | 0.56 | 0.82 |
# | | last word, after block 3 | 0.46 | 0.52 | 0.52 |
# | 3 | margin (intact 7.6 to 7.8) without it after block 2: noun / last word | 4.3 / 5.0 | 7.3 / 2.8 | 7.8 / 2.8 |
# | 4 | largest effect of the colon's vector: colon / end of statement | 37.9 / −1.4 | 36.6 / −0.4 | 35.5 / −0.4 |
# | 4 | verdict, intact | −17.2 | −16.8 | −18.4 |
# | | with the sentiment erased at the end of the statement | −17.3 to −17.2 | −16.9 to −16.8 | −18.5 to −18.3 |
# | | with the sentiment erased at the colon | −1.8 to 2.9 | 1.9 to 4.2 | −6.8 to −1.6 |
# | 5 | claimed word, known entities: own relation (others at most 0.54) | 0.80 to 0.94 | 0.76 to 0.99 | 0.72 to 0.91 |
# | 5 | "?", new entities: mean (lowest) | 0.96 (0.87) | 0.93 (0.68) | 0.98 (0.95) |
# | 6 | CCS after block 0 finds | wording | wording | truth |
# | 7 | UUAS, agreement, new templates: block 1 / embeddings | 0.67 / 0.56 | 0.76 / 0.57 | 0.76 / 0.60 |

# %% [markdown]
# ## What you have now
#
# - **Codelength** counts the probe's effort, and separates trained from untrained where accuracies tie (2.1).
# - **LEACE** takes out all that is linear, in one step, and only that (2.2); **INLP** makes a subspace round by round
#   (2.3).
# - **Removal** asks what cannot be spared, with controls that match in size or in variance; one place alone proves
#   little where there are copies (section 3). A **push** asks what is obeyed (2.4). That a label can be decoded shows neither.
# - **Transfer** to other relations and new entities asks *which* label a probe has learned (2.5).
# - Without labels a probe finds what is **salient** (2.6).
# - A structural probe needs **baselines** that know words but no syntax (2.7).
#
# **Open questions**
#
# - An erasure that is linear leaves what is not; one that is complete would destroy the activation. What should "the
#   concept is gone" mean?
# - After removal the stream is somewhere it has never been. How much of an effect is the concept, how much the
#   strangeness? The random controls answer a part.
# - Sentiment at the end of the statement seems to play no part in the verdict. Why did training put it there? (Other sentences read on
#   after a full stop.)
#
# **Next**: chapter 03 reads the stream with the model's own unembedding instead of a probe.

# %%
progress.table()

# %% [markdown]
# ## References
#
# - Belrose et al. (2023), *LEACE: Perfect linear concept erasure in closed form*,
#   [arXiv 2306.03819](https://arxiv.org/abs/2306.03819).
# - Burns et al. (2022), *Discovering Latent Knowledge in Language Models Without Supervision*,
#   [arXiv 2212.03827](https://arxiv.org/abs/2212.03827).
# - Elazar et al. (2021), *Amnesic Probing: Behavioral Explanation with Amnesic Counterfactuals*,
#   [arXiv 2006.00995](https://arxiv.org/abs/2006.00995).
# - Farquhar et al. (2023), *Challenges with unsupervised LLM knowledge discovery*,
#   [arXiv 2312.10029](https://arxiv.org/abs/2312.10029).
# - Hewitt & Liang (2019), *Designing and Interpreting Probes with Control Tasks*,
#   [arXiv 1909.03368](https://arxiv.org/abs/1909.03368).
# - Hewitt & Manning (2019), *A Structural Probe for Finding Syntax in Word Representations*, NAACL.
# - Li et al. (2023), *Emergent World Representations: Exploring a Sequence Model Trained on a Synthetic Task*,
#   [arXiv 2210.13382](https://arxiv.org/abs/2210.13382): Othello, with nonlinear probes.
# - Nanda et al. (2023), *Emergent Linear Representations in World Models of Self-Supervised Sequence Models*,
#   [arXiv 2309.00941](https://arxiv.org/abs/2309.00941).
# - Radford et al. (2019), *Language Models are Unsupervised Multitask Learners*: GPT-2.
# - Ravfogel et al. (2020), *Null It Out: Guarding Protected Attributes by Iterative Nullspace Projection*,
#   [arXiv 2004.07667](https://arxiv.org/abs/2004.07667).
# - Voita & Titov (2020), *Information-Theoretic Probing with Minimum Description Length*,
#   [arXiv 2003.12298](https://arxiv.org/abs/2003.12298).
