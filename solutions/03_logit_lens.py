# ---
# title: The logit lens
# ---

# %% [markdown]
# # 03 · The logit lens
#
# **When, on its way up, does the model make up its mind?**

# %%
import math
import torch
import pandas as pd
from collections.abc import Sequence
from itertools import permutations
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache, TransformerBridge, patching
from transformer_lens.tools.analysis import direct_logit_attribution, logit_lens

from utils import lens, models, planted, plots, progress, session, steering
from utils.checks import logit_lens as checks
from utils.datasets import world

# %% [markdown]
# A transformer reads its answer off the last state of the residual stream: norm, unembedding, softmax. Nothing stops
# you from reading an earlier state in the same way. Here is `world` on its way to "Paris". Each cell shows the word
# that would be likeliest if the model stopped there. (Point at a cell to see more.)

# %%
model, twin = models.load("world"), models.untrained_twin("world")
prompt = "The capital of France is"
said = lens.trajectory(model, lens.resid_stack(model, prompt))
lens.heat_map(
    model,
    said,
    model.to_tokens(prompt)[0],
    title="What world would say if it stopped here",
    caption="For each word read and each state of the stream, the likeliest next word and its probability. "
    "At the last word: 02, Madrid, Lisbon, Tokyo, and at the top Paris.",
)

# %% role="result"
assert torch.allclose(said.probability[1:3, 0, -1].cpu(), torch.tensor([0.60, 0.82]), atol=0.02)
[model.to_string(word) for word in said.top[:, 0, -1]]  # at "is", from the embeddings upwards

# %% [markdown]
# Read the column of "is" upwards. First a number, which is nonsense. After block 0 "Madrid", with a probability of
# .60; after block 1 "Lisbon", with .82; after block 2 "Tokyo", with only .36; and only block 3 makes it "Paris".
#
# Does the model think of Madrid first, then of Lisbon, of Tokyo, and change its mind? It is a good story. The picture
# alone cannot tell whether it is true. By the end of the chapter you will have tested it in three ways.
#
# **You will be able to**
#
# - read any state of the stream with the logit lens, and know what the final norm does in it;
# - say when different kinds of answers are decided, and what "decided" can mean;
# - fit a tuned lens, and check that what it says was not put in by the fitting;
# - set the lens beside direct attribution and patching, and explain why the three disagree;
# - build the case in which the lens reads, with certainty, what has no bearing on the output.
#
# **Time**: three to four hours. **You need**: [chapter 00](00_inside_a_transformer.ipynb) (the stream, hooks, direct
# attribution, patching). Terms and calls are in the [reference](reference.md). What is said of `world` was measured
# in three trainings of it; where they differ, the text says so, and a table at the end has the numbers.

# %% [markdown]
# ## 1 The lens
#
# A model of $L$ blocks has $L + 1$ **states**: state 0 is the embeddings, state $l$ the residual stream after block
# $l - 1$. The model itself reads state $L$. The **logit lens** (nostalgebraist, 2020) reads any state $x$ the same
# way:
#
# $$\log p(x) = \operatorname{log\,softmax}\big(\operatorname{LN}(x)\, W_U + b_U\big), \qquad
#   \operatorname{LN}(x) = \frac{x - \bar x}{\sqrt{\operatorname{var}(x) + \epsilon}},$$
#
# where $\bar x$ and $\operatorname{var}(x)$ are the mean and the variance of the state's `d_model` numbers.
# (LayerNorm has weights of its own, too. `models.load` has multiplied them into $W_U$ and $b_U$.)

# %% [markdown] exercise="3.1" role="task"
# ### Exercise 3.1 · Read a state
#
# Write the formula. `resid` can have any number of axes; the last one is `d_model`. The variance is the biased one
# (divided by `d_model`), and $\epsilon$ is `model.cfg.eps`. You also need `model.W_U` and `model.b_U`.
#
# **Return** natural log-probabilities, `[... d_vocab]`.


# %% exercise="3.1" role="answer" minutes=15 difficulty=1 importance=3
def read_out(model: TransformerBridge, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_vocab"]:
    """Log-probabilities of the next token that the logit lens reads from a state."""
    ### BEGIN SOLUTION
    centred = resid - resid.mean(-1, keepdim=True)
    scale = (centred.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()
    return (centred / scale @ model.W_U + model.b_U).log_softmax(-1)
    ### END SOLUTION


# %% exercise="3.1" role="check" points=2
checks.read_out(read_out)
### BEGIN HIDDEN TESTS
checks.read_out(read_out, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# TransformerLens has it in one call. `utils.lens` adds what we need often: `resid_stack` gives all states of a
# prompt, `[state batch pos d_model]`, and `read` is the lens for any vectors.

# %%
theirs = logit_lens(model, prompt, return_type="log_probs")
ours = lens.read(model, lens.resid_stack(model, prompt)[:, :, -1])
print("labels of its states:", *theirs.labels)
assert torch.allclose(theirs.values, ours, atol=1e-4)

# %% [markdown]
# One prompt is one sample. Here are all 49 countries, at "is": how much of the probability lies on *some* capital,
# and how often is the likeliest word the *right* one?

# %%
countries = list(world.COUNTRIES)
capitals = torch.tensor([model.to_single_token(world.COUNTRIES[c].capital) for c in countries], device=session.device())
at_is = lens.resid_stack(model, [f"The capital of {c} is" for c in countries])[:, :, -1]  # [state country d_model]
log_probs = lens.read(model, at_is)
STATES = lens.state_names(4)  # "embeddings", "after block 0", ...

# %%
first = {
    "probability of some capital": log_probs[..., capitals].exp().sum(-1).mean(1),
    "the likeliest word is the right one": (log_probs.argmax(-1) == capitals).float().mean(1),
}
plots.lines(
    first,
    STATES,
    title="The capital of ... is: some capital, and the right one",
    xlabel="state",
    ylabel="probability, or share of countries",
    caption="Two curves over the five states, for 49 countries. Some capital has .75 after block 0 and rises slowly; the "
    "right capital is on top for about half of the countries after block 0 and 1, for most after block 2, for all at the "
    "end.",
)

# %%
words, counts = log_probs[2].argmax(-1).unique(return_counts=True)
print(f"likeliest word after block 1: {model.to_string(words[counts.argmax()])}, for {counts.max()} of 49 countries")
assert abs(first["probability of some capital"][1] - 0.75) < 0.02 and model.cfg.d_vocab == 789

# %% [markdown]
# After block 0 the lens says "a capital" with .75, though only 49 of 789 words are one, and it names the right one
# for half of the countries. nostalgebraist (2020) described such a sequence for GPT-2: sometimes nonsense in very
# early layers, then "shallow guesses (words that are the right part of speech / register / etc)", then "better
# guesses". How clear the middle stage is depends on the training: in the two others .49 and .40 lie on some capital
# after block 0.
#
# And look at the line below the figure. After block 1 the lens says "Lisbon" of *twenty* countries. So it is hardly
# about France. Keep that in mind.

# %% [markdown]
# ## 2 When is it decided?
#
# To compare kinds of sentences we need numbers. Two are usual. How far is the lens from what the model says in the
# end,
#
# $$\mathrm{KL}(p_L \,\|\, p_l) = \sum_w p_L(w) \log_2 \frac{p_L(w)}{p_l(w)} \quad \text{bits},$$
#
# and on which *rank* does the lens have the model's final word (0: on top)?

# %% [markdown] exercise="3.2" role="task"
# ### Exercise 3.2 · Distance and rank
#
# `log_probs` holds natural log-probabilities for every state; the last state is what the model says. There can be any
# number of axes between `state` and `d_vocab`. The rank counts the words that are *strictly* likelier than the final
# word in this state's reading; the final word is the likeliest one of the last state.
#
# **Return** a pair `(kl, rank)`, both `[state *place]`: the divergence in bits, and the rank.


# %% exercise="3.2" role="answer" minutes=15 difficulty=2 importance=3
def against_final(
    log_probs: Float[Tensor, "state *place d_vocab"],
) -> tuple[Float[Tensor, "state *place"], Int[Tensor, "state *place"]]:
    """KL(final || lens) in bits and the rank of the final top token, for every state."""
    ### BEGIN SOLUTION
    final = log_probs[-1]
    kl = (final.exp() * (final - log_probs)).sum(-1) / math.log(2)
    top = final.argmax(-1).expand(log_probs.shape[:-1])
    own = log_probs.gather(-1, top[..., None])
    return kl, (log_probs > own).sum(-1)
    ### END SOLUTION


# %% exercise="3.2" role="check" points=2
checks.against_final(against_final)
### BEGIN HIDDEN TESTS
checks.against_final(against_final, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# `lens.trajectory` computes both, and more. Four kinds of sentences, each read where the answer is due: capitals in
# many wordings; verbs whose nearest noun has the other number ("The king above the dogs ..."); indirect objects ("...
# John gave a drink to"); and random words that are repeated.

# %%
verbs = world.sentences("agreement", 400, seed=1, form="pp")
kinds = {
    "capital": world.sentences("fact", 150, seed=1, relation="capital"),
    "agreement": [s for s in verbs if s.labels["number"] != s.labels["attractor_number"]][:150],
    "indirect object": world.sentences("indirect_object", 150, seed=1),
    "repeated words": world.sentences("repeat", 150, seed=1),
}


def tokens_for(words: list[str]) -> Int[Tensor, "n"]:
    return torch.tensor([model.to_single_token(word) for word in words], device=session.device())


def before_answer(model: TransformerBridge, batch: Sequence[world.Sentence]) -> Float[Tensor, "state n d_model"]:
    """The states at the word before the answer."""
    states = lens.resid_stack(model, model.to_tokens([s.text for s in batch]))
    return states[:, range(len(batch)), [s.answer_position - 1 for s in batch]]


# %%
for name, batch in kinds.items():
    print(f"{name}: {' '.join(batch[0].tokens[1:][-12 if name == 'repeated words' else 0 :])}")

# %%
states_of = {name: before_answer(model, batch) for name, batch in kinds.items()}


def kl_to_final(states: Float[Tensor, "state n d_model"]) -> Float[Tensor, "state n"]:
    """The library's KL for one state per sentence (it wants an axis of positions: one of length 1 is put in)."""
    return lens.trajectory(model, states[:, :, None]).kl[:, :, 0]


kl = torch.stack([kl_to_final(states) for states in states_of.values()])  # [kind state n]
low, middle, high = torch.quantile(kl, torch.tensor([0.25, 0.5, 0.75], device=kl.device), dim=-1)
plots.lines(
    middle,
    STATES,
    names=list(kinds),
    band=(low, high),
    title="How far the lens is from the end (median and quartiles)",
    xlabel="state",
    ylabel="KL(final || lens) in bits",
    caption="Indirect objects and repeated words stay above 9 bits until after block 0 and are at 0 after block 1. "
    "Agreement comes down block by block. Capitals fall to 3 bits after block 0, rise to 4, and still have about 1 bit "
    "after block 2.",
)

# %% role="result"
assert (middle[2:, :2] > 8).all() and (middle[2:, 2] < 0.2).all() and (middle[:2, 2] > 1.5).all()
{name: STATES[(medians < 1.5).int().argmax()] for name, medians in zip(kinds, middle)}

# %% [markdown]
# Each kind has a curve of its own. Indirect objects and repeated words are off by more than ten bits after block 0,
# and nearly exact after block 1: one jump. Verbs and capitals come in steps, and capitals do not fall at every step: in
# this training the median *rises* from block 0 to block 1.
#
# Is the jump the decision? For three of the kinds there is a tempting wrong answer (the verb in the other number, the
# other name, another capital). Ask only whether the lens prefers the right one to it:


# %%
def prefers_right(model: TransformerBridge, states: Float[Tensor, "state n d_model"], batch) -> Float[Tensor, "state"]:
    """Share of sentences in which the lens has the right answer above the wrong one."""
    right, wrong = tokens_for([s.answer for s in batch]), tokens_for([s.distractor for s in batch])
    log_probs, rows = lens.read(model, states), range(len(batch))
    return (log_probs[:, rows, right] > log_probs[:, rows, wrong]).float().mean(-1)


# %%
paired = {name: batch for name, batch in kinds.items() if name != "repeated words"}
preferred = torch.stack([prefers_right(model, states_of[name], batch) for name, batch in paired.items()])
plots.heatmap(
    preferred,
    STATES,
    list(paired),
    title="The right answer above the wrong one",
    xlabel="state",
    ylabel="kind of sentence",
    value="share of sentences",
    diverging=False,
    text=".2f",
    zmax=1,
    caption="Capitals: about .95 from block 0 on. Agreement: .36 until after block 0, below chance; .6 after block 1; then "
    "1. Indirect objects: 1 from block 0 on.",
)

# %% role="result"
assert (preferred[:, 3] > 0.95).all() and preferred[1, 2] < 0.75
{
    "indirect object, after block 0: right above wrong": bool(preferred[2, 1] > 0.97),
    "far from the end": bool(middle[2, 1] > 8),
}

# %% [markdown]
# After block 0 the lens has the right name above the wrong one in *every* sentence with
# an indirect object. And by the other measure, at the same state, it is 13 bits off. Has the model chosen the right
# name, then? Not necessarily. The right one stands above the wrong one too if only the wrong one was pushed *down*.
# That needs a control: **bystanders**, the names that are not in the sentence.


# %%
def against_bystanders(
    log_probs: Float[Tensor, "state n d_vocab"], batch: Sequence[world.Sentence]
) -> Float[Tensor, "2 state"]:
    """How often the right name is above a bystander, and how often a bystander is above the wrong name."""
    right, wrong = tokens_for([s.answer for s in batch]), tokens_for([s.distractor for s in batch])
    people = torch.cat([right, wrong]).unique()
    texts, rows = model.to_tokens([s.text for s in batch]), range(len(batch))
    away = (texts[:, :, None] != people).all(1)  # [n name]: this name is not in this sentence
    names = log_probs[:, :, people]
    above = log_probs[:, rows, right][:, :, None] > names, names > log_probs[:, rows, wrong][:, :, None]
    return torch.stack([each[:, away].float().mean(-1) for each in above])


# %%
giving = lens.read(model, states_of["indirect object"])
right_above, above_wrong = against_bystanders(giving, kinds["indirect object"])
for i, name in enumerate(STATES[:3]):
    print(f"{name}: right above a bystander {right_above[i]:.2f}, a bystander above the wrong one {above_wrong[i]:.2f}")
rank = lens.trajectory(model, states_of["indirect object"][:, :, None]).rank[:, :, 0]
print("median rank of the right name, by state:", rank.median(-1).values.tolist())
assert abs(right_above[1] - 0.5) < 0.1 and above_wrong[1] > 0.9 and right_above[2] > 0.98

# %% [markdown]
# After block 0 the right name is no better placed than anybody's, and the wrong one, the giver, is below nearly
# everybody. In the reading, block 0 has *put the giver down*. It has not raised the receiver: that name goes from rank
# 74 to the top only in block 1. So "when is it decided" depends on what you ask, and **"right above wrong" cannot tell
# whether the right one was raised or the wrong one put down**. Section 5 takes this apart.

# %% [markdown]
# ## 3 What the norm does
#
# The lens divides each state by its own size. Must it? Leave the final norm out. In a processed model, where every
# state has mean zero, the only effect on the logits (without $b_U$) is that all of them are multiplied by one number.

# %% [markdown] exercise="3.3" role="task"
# ### Exercise 3.3 · The factor
#
# By which number are the logits multiplied when the final norm is left out? Find $f(x)$ such that $x\, W_U = f(x)
# \cdot \operatorname{LN}(x)\, W_U$ for a state $x$ of mean zero. Give the general form with the variance, so that a
# state whose mean is not zero is handled as LayerNorm would.
#
# **Return** the factor for every state given, `[...]`.


# %% exercise="3.3" role="answer" minutes=10 difficulty=1 importance=2
def norm_factor(model: TransformerBridge, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
    """What the final norm divides a state by."""
    ### BEGIN SOLUTION
    return (resid.var(-1, unbiased=False) + model.cfg.eps).sqrt()
    ### END SOLUTION


# %% exercise="3.3" role="check" points=1
checks.norm_factor(norm_factor)
### BEGIN HIDDEN TESTS
checks.norm_factor(norm_factor, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# A factor on all logits is an inverse *temperature*: it changes how sure a distribution is, not the order of the
# words. How large is it? Take 60 rows of the corpus, which we will also use as test texts later on.

# %%
test_tokens = torch.as_tensor(world.corpus(60, seed=2).rows.astype(int))
test_states = lens.resid_stack(model, test_tokens)
factor = test_states.std(-1, unbiased=False).flatten(1).median(-1).values
print("median factor:", ", ".join(f"{name} {f:.2f}" for name, f in zip(STATES, factor)))
assert factor[0] < 0.5 and (factor.diff() > 0).all() and factor[4] > 10

# %%
bare = (test_states @ model.W_U + model.b_U).log_softmax(-1)
final = lens.read(model, test_states[-1])
divergences = {
    "logit lens": lens.trajectory(model, test_states).kl.mean((1, 2)),
    "without the norm": (final.exp() * (final - bare)).sum(-1).mean((1, 2)) / math.log(2),
}
sureness = {
    "logit lens": lens.read(model, test_states).amax(-1).exp().mean((1, 2)),
    "without the norm": bare.amax(-1).exp().mean((1, 2)),
}

# %%
for name, sure in sureness.items():
    print(f"mean probability of the likeliest word, {name}:", *(f"{share:.2f}" for share in sure))

# %%
plots.lines(
    divergences,
    STATES,
    title="How far the lens is from the end, with and without the norm",
    xlabel="state",
    ylabel="mean KL(final || lens), bits",
    caption="The lens falls from 12 bits to exactly 0. Without the norm the divergence is about 30 bits after block 0 and "
    "again at the last state.",
)

# %% role="result"
order_kept = (test_states @ model.W_U).argmax(-1) == (model.ln_final(test_states) @ model.W_U).argmax(-1)
assert (
    order_kept.float().mean() > 0.999
    and divergences["without the norm"][4] > 20
    and sureness["without the norm"][4] > 0.9
)
{
    "order kept, bias aside": bool(order_kept.float().mean() > 0.999),
    "exact at the end": bool(divergences["logit lens"][4] < 1e-4),
}

# %% [markdown]
# Without the norm the embeddings are read too flat, every later state too sure: after block 0 it is .85 sure where the
# lens is .39. At the *last* state, where the lens is exact, the reading is off by 30 bits on average: where the model
# hesitates, this reading is sure of one word. (At the
# embeddings the divergence is *lower* than the lens's. A flat guess costs less than a wrong one: a low divergence
# does not make a good reading.)
#
# The order of the words stays, $b_U$ aside. And with $b_U$? It is not multiplied. At the embeddings, where the factor
# is a third, it weighs three times as much as it should, and from block 0 on five to fourteen times too little. In a
# *raw* model the norm also multiplies each of the 128 numbers by a weight of its own, and adds a bias. How often is
# the likeliest word without the norm the one that it is with it?

# %%
with_bias = bare.argmax(-1) == lens.read(model, test_states).argmax(-1)
raw = models.load("world", processed=False)
raw_states = lens.resid_stack(raw, test_tokens[:20])
same = (raw_states @ raw.W_U).argmax(-1) == (raw.ln_final(raw_states) @ raw.W_U).argmax(-1)
for name, kept in {"processed, with b_U": with_bias, "raw, without b_U": same}.items():
    print(f"{name}:", ", ".join(f"{state} {s:.2f}" for state, s in zip(STATES, kept.float().mean((1, 2)))))
assert with_bias[0].float().mean() < 0.7 and 0.75 < with_bias[4].float().mean() < 0.9 and same[4].float().mean() < 0.8

# %% [markdown]
# Even at the last state, where the lens is exact, about one word in six changes, and in the raw model one in four.
# Leave the norm in.
#
# ## 4 The tuned lens
#
# The lens assumes that an earlier state is written in the language of the last one. Need it be? Representations "may
# be rotated, shifted, or stretched from layer to layer", says the read-me of the library
# [tuned-lens](https://github.com/AlignmentResearch/tuned-lens). The method behind it (Belrose et al., 2023) fits a
# **translator** for every state, an affine map into the basis of the last one,
#
# $$T_l(x) = x + x A_l + b_l, \qquad \text{so that} \quad
#   \mathrm{KL}\big(p_L \,\|\, \operatorname{read}(T_l(x_l))\big) \quad \text{is small on average},$$
#
# and reads through it: the **tuned lens**. The model itself stays as it is. (Yom Din et al., 2023, cast states to the
# last layer by linear maps.)

# %% [markdown] exercise="3.4" role="task"
# ### Exercise 3.4 · Fit a translator
#
# Row $i$ of `resid` is a state somewhere in the model, row $i$ of `final` the last state of the same text and
# position. Find $A$ and $b$ such that reading `resid + resid @ A + b` comes as near as possible to reading `final`:
# minimise the mean over the rows of KL(final ‖ lens). Start both at zero (which *is* the logit lens) and use Adam,
# for `steps` steps on all rows at once; a learning rate of about 0.4 / `d_model` does well. The optimizer gets $A$
# and $b$ alone; the model stays as it is. To read, use `lens.read` or your `read_out`. (A few hundred rows take
# seconds, all of the test rows the better part of a minute.)
#
# **Return** a pair `(weight, bias)`: $A$, `[d_model d_model]`, and $b$, `[d_model]`. With no steps both are zero.


# %% exercise="3.4" role="answer" minutes=25 difficulty=3 importance=3
def fit_translator(
    model: TransformerBridge, resid: Float[Tensor, "n d_model"], final: Float[Tensor, "n d_model"], steps: int = 300
) -> tuple[Float[Tensor, "d_model d_model"], Float[Tensor, "d_model"]]:
    """The affine change of a state after which the lens says what the model says in the end."""
    ### BEGIN SOLUTION
    wanted = model.unembed(model.ln_final(final)).log_softmax(-1).detach()
    weight = torch.zeros(resid.shape[-1], resid.shape[-1], device=resid.device, requires_grad=True)
    bias = torch.zeros(resid.shape[-1], device=resid.device, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=0.4 / resid.shape[-1])
    for _ in range(steps):
        said = model.unembed(model.ln_final(resid + resid @ weight + bias)).log_softmax(-1)
        loss = (wanted.exp() * (wanted - said)).sum(-1).mean()
        weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
        optimizer.step()
    return weight.detach(), bias.detach()
    ### END SOLUTION


# %% exercise="3.4" role="check" points=3
checks.fit_translator(fit_translator)
### BEGIN HIDDEN TESTS
checks.fit_translator(fit_translator, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The library fits all states side by side, on random batches, here on 300 rows of the corpus. A fit must be judged on
# texts that it has not seen: the 60 test rows.

# %%
fitting_tokens = torch.as_tensor(world.corpus(300, seed=1).rows.astype(int))
fitting_states = lens.resid_stack(model, fitting_tokens)
tuned = lens.fit_tuned_lens(model, fitting_states)
divergences["tuned lens"] = lens.trajectory(model, test_states, tuned=tuned).kl.mean((1, 2))
plots.lines(
    {name: divergences[name] for name in ("logit lens", "tuned lens")},
    STATES,
    title="New texts: logit lens and tuned lens",
    xlabel="state",
    ylabel="mean KL(final || lens), bits",
    caption="The tuned lens is far below the logit lens at every state but the last: about 3.5 against 12 bits at the "
    "embeddings, 1.8 against 6.5 after block 0.",
)

# %% role="result"
tuned_kl, plain_kl = divergences["tuned lens"], divergences["logit lens"]
assert (tuned_kl[:4] < 0.5 * plain_kl[:4]).all() and (tuned_kl.diff() < 0).all()
{
    "nearer at every state but the last": bool((tuned_kl[:4] < plain_kl[:4]).all()),
    "identity at the last": bool((tuned.weight[4] == 0).all()),
}

# %% [markdown]
# At every state but the last it is much nearer to the end than the logit lens. (At the last state the translator is
# the identity: there is nothing to translate.) But look at the left end. At the embeddings a state holds one word and
# its position, and nothing else of the text. All that a translator can learn there is which words follow which. Then
# a table should do as well: for each word, the mean of what the model says after it in the fitted rows.

# %%
finals, read_words = lens.read(model, fitting_states[-1]).exp().flatten(0, 1), fitting_tokens.flatten().to(final.device)
counts = read_words.bincount(minlength=model.cfg.d_vocab)[:, None]
sums = torch.zeros_like(model.W_U[:1].expand(model.cfg.d_vocab, -1)).index_add(0, read_words, finals)
table = (sums + finals.mean(0)) / (counts + 1)  # [word next word]; a word never read gets the overall mean
from_table = table.log()[test_tokens.to(final.device)]
table_kl = (final.exp() * (final - from_table)).sum(-1).mean() / math.log(2)
print(f"at the embeddings: logit lens {plain_kl[0]:.1f} bits, tuned {tuned_kl[0]:.1f}, a table of words {table_kl:.1f}")
assert table_kl < tuned_kl[0]

# %% [markdown]
# The table is even a little nearer. What the tuned lens gained there may all have been *put in by the fitting*. That
# it comes near the end does not show that the state already had it. Now France again:

# %%
lens.heat_map(
    model,
    lens.trajectory(model, lens.resid_stack(model, prompt), tuned=tuned),
    model.to_tokens(prompt)[0],
    title="The same prompt through the tuned lens",
    caption="At the last word the tuned lens reads Paris from block 0 on, with probabilities of about .3, .8, .8 and 1.",
)

# %% role="result"
through_tuned = torch.stack([lens.read(model, tuned.on(model)(at_is[i], i)) for i in range(5)])
france = countries.index("France")
[model.to_string(word) for word in through_tuned[:, france].argmax(-1)]

# %% [markdown]
# No Madrid, no Lisbon, no Tokyo. From block 0 on the tuned lens reads "Paris".
#
# But whose knowledge is that? A translator has 128 × 128 weights. It could have *learned* capitals from the texts
# that it was fitted on. Which countries stand there in a sentence with their capital, in either order?

# %%
sentences_read = " ".join(model.to_string(row) for row in fitting_tokens).split(" . ")


def is_told(country: str) -> bool:
    both = {country, world.COUNTRIES[country].capital}
    return any(both <= set(sentence.split()) for sentence in sentences_read)


# %%
told = torch.tensor([is_told(country) for country in countries])
right_after_0 = (through_tuned[1].argmax(-1) == capitals).cpu()
for name, group in {"told": told, "not told": ~told}.items():
    share = right_after_0[group].float().mean()
    print(f"{name}: {group.sum()} countries, tuned lens right after block 0 in {share:.2f}")
assert told[france]

# %% [markdown]
# France is told, and the tuned lens does about as well on the countries that are not (in one of the other trainings .80
# against .62: some may have been learned). So take a stricter test, a translator that can learn nothing: a **constant
# shift**, the same 128 numbers whatever the country, and for each country taken from the *other* 48. It adds the mean
# of their last states and takes off the mean of their states here:


# %%
def shifted(states: Float[Tensor, "state n d_model"]) -> Float[Tensor, "state n d_model"]:
    """Each row moved by the mean way to the last state that the other rows have before them."""
    way = states[-1] - states
    others = (way.sum(1, keepdim=True) - way) / (way.shape[1] - 1)
    return states + others


through_shift = lens.read(model, shifted(at_is))
[model.to_string(word) for word in through_shift[:, france].argmax(-1)]

# %%
readings = {"logit lens": log_probs, "tuned lens": through_tuned, "constant shift": through_shift}
named = torch.stack([(reading.argmax(-1) == capitals).float().mean(-1) for reading in readings.values()])
plots.lines(
    named,
    STATES,
    names=list(readings),
    title="The capital of ... is: how often the right one is read",
    xlabel="state",
    ylabel="share of the 49 countries",
    caption="After block 0 the logit lens reads the right capital for half of the countries, the tuned lens for about "
    "three quarters, the constant shift for more than four fifths; after block 1 half against nine tenths.",
)

# %% role="result"
assert (named[2, 1:3] > named[0, 1:3] + 0.2).all() and named[2, 1] > 0.8 and named[1, 2] > 0.8
{"both above the logit lens": bool((named[1:, 1:3] > named[0, 1:3]).all())}

# %% [markdown]
# The shift knows nothing of France, and with it the lens reads "Paris" after block 0, and the right capital for more
# than four fifths of the countries. So what *tells a country from the others* points to its capital from the first
# block on. And what they have *in common*, the mean state of all 49? Read that:

# %%
common = lens.read(model, at_is.mean(1))
[model.to_string(word) for word in common[1:4].argmax(-1)]

# %%
own_parts = at_is - at_is.mean(1, keepdim=True)  # what a country has beyond the mean of all
for i, words in {1: ("Madrid", "Paris"), 2: ("Lisbon", "Paris"), 3: ("Lisbon", "Tokyo", "Paris")}.items():
    for word in words:  # the logit (without b_U) is a sum of two parts
        towards = model.W_U[:, model.to_single_token(word)] / at_is[i, france].std(unbiased=False)  # as the norm does
        parts = at_is[i].mean(0) @ towards, own_parts[i, france] @ towards
        print(f"{STATES[i]}, {word}: common part {parts[0]:.1f}, France's own part {parts[1]:.1f}")

# %%
highest = (own_parts @ model.W_U[:, capitals]).argmax(-1) == torch.arange(49, device=capitals.device)
print("own part highest for the right capital, of all capitals:", *(f"{n} of 49," for n in highest[1:4].sum(-1)))

# %% [markdown]
# "Madrid" and "Lisbon" are what is common to all countries, and say nothing of any: that is why "Lisbon" came twenty
# times. "Tokyo" is not. After block 2 the common part still says Lisbon; France's own part is strongest for Paris, but
# it supports Tokyo too, and Tokyo has the highest *sum*. A reading can name a word that neither part would name. And
# the own part alone knows the capital: of all capitals it is highest for the right one.
#
# This is particular to one training. In the second the common part reads "Madrid" after every block, but France
# "Paris", "Moscow", "Moscow"; in the third the common part reads nothing for sure. What holds in all three: the own
# part is highest for the right capital in 44 of 49 countries or more, and the shift is right for .84 to .88 of the
# countries after block 0, where the lens has half at most. It is no oracle, and neither is the tuned lens, though
# Belrose et al. (2023) find it "more predictive, reliable and unbiased" than the logit lens: in the third training both
# name wrong capitals for France. And a better reading is still a reading. Whether anything in the model *reads*
# "Madrid" has to be tested (section 7).

# %% [markdown]
# ## 5 Who writes it?
#
# The lens says *when*. Chapter 00 had two tools that say *who*: **direct attribution** and **patching**. First the
# attribution, for a whole batch and down to single heads. The last state is a sum of writes; the norm divides all of
# them by the same scale $s$; so the logit difference is a sum too. A head $h$ writes $z_h W_O^h$, where $z_h$ is what
# it has collected (`hook_z`).

# %% [markdown] exercise="3.5" role="task"
# ### Exercise 3.5 · Attribution by head and layer
#
# Row $i$ of the batch has its own right and wrong token. At the *last* position, split logit(right) − logit(wrong)
# into the direct contributions of every head, every MLP, and the rest: the embeddings with the positions, the
# attention layers' biases `model.b_O` (which belong to no head), and `model.b_U`. Hold the scale fixed: it is in the
# cache as `ln_final.hook_scale`, `[batch pos 1]`. Names you need: `blocks.0.attn.hook_z` `[batch pos head d_head]`,
# `blocks.0.hook_mlp_out`, `blocks.0.hook_resid_pre`; `model.W_O` is `[layer head d_head d_model]`. All writes of a
# processed model have mean zero.
#
# **Return** a triple `(heads, mlps, rest)`: `[layer head batch]`, `[layer batch]`, `[batch]`. Together they are the
# model's logit difference, exactly.


# %% exercise="3.5" role="answer" minutes=20 difficulty=2 importance=3
def attribute(
    model: TransformerBridge, cache: ActivationCache, right: Int[Tensor, "batch"], wrong: Int[Tensor, "batch"]
) -> tuple[Float[Tensor, "layer head batch"], Float[Tensor, "layer batch"], Float[Tensor, "batch"]]:
    """Direct contributions to logit(right) - logit(wrong) at the last position."""
    ### BEGIN SOLUTION
    layers = range(model.cfg.n_layers)
    direction = (model.W_U[:, right] - model.W_U[:, wrong]).T / cache["ln_final.hook_scale"][:, -1]
    z = torch.stack([cache[f"blocks.{layer}.attn.hook_z"][:, -1] for layer in layers])
    heads = torch.einsum("lbhe,lhed,bd->lhb", z, model.W_O, direction)
    mlps = torch.stack([(cache[f"blocks.{layer}.hook_mlp_out"][:, -1] * direction).sum(-1) for layer in layers])
    start = cache["blocks.0.hook_resid_pre"][:, -1] + model.b_O.sum(0)
    return heads, mlps, (start * direction).sum(-1) + model.b_U[right] - model.b_U[wrong]
    ### END SOLUTION


# %% exercise="3.5" role="check" points=3
checks.attribute(attribute)
### BEGIN HIDDEN TESTS
checks.attribute(attribute, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The library's call is `direct_logit_attribution`, by `unit="head"` or by component. Take sentences of one wording,
# in which one of two people gives something to the other. The wrong answer is the giver. In the corrupted sentence
# the two have changed places, in the giving clause only.

# %%
sentences = world.sentences("indirect_object", 150, seed=1, template="one_pair/0")
tokens, corrupted = (
    model.to_tokens([s.prompt for s in batch]) for batch in (sentences, [s.corrupted for s in sentences])
)
right, wrong = tokens_for([s.answer for s in sentences]), tokens_for([s.distractor for s in sentences])
print(f"{sentences[0].prompt} ... {sentences[0].answer}\n{sentences[0].corrupted.prompt} ... {sentences[0].distractor}")

# %%
by_head = direct_logit_attribution(model, tokens, right, wrong, unit="head").attribution[:16]  # then comes the rest
by_part = direct_logit_attribution(model, tokens, right, wrong).attribution.mean(-1)
by_mlp = by_part[[3, 5, 7, 9]]  # its order: two embeddings, 0_attn, 0_mlp, 1_attn, ...
written = torch.cat([by_head.mean(-1).reshape(4, 4), by_mlp[:, None]], dim=1) / by_part.sum()
plots.heatmap(
    written,
    [*(f"head {head}" for head in range(4)), "MLP"],
    [f"block {block}" for block in range(4)],
    title="Indirect objects: who writes the right name rather than the wrong one",
    xlabel="part",
    ylabel="block",
    value="direct share of the logit difference",
    text=".2f",
    caption="All sixteen heads are within two hundredths of zero. The MLPs: block 0 about .3, block 1 about .4, block "
    "3 about .2.",
)

# %% role="result"
assert written[:, :4].abs().max() < 0.05
{"written by the MLPs": bool(written[:, 4].sum() > 0.9)}

# %%
print(f"largest mean absolute share of a head: {(by_head.abs().mean(-1) / by_part.sum()).max():.2f}")

# %% [markdown]
# On average no head writes the one name rather than the other (in the single sentence a head may write a tenth of the
# difference, for or against). The MLPs do it all. Yet the names stand many words back, and only attention can fetch
# them. So intervene.

# %% [markdown] exercise="3.6" role="task"
# ### Exercise 3.6 · Patch every layer's output
#
# For each block, take the output of its attention layer (`blocks.0.hook_attn_out`) or of its MLP
# (`blocks.0.hook_mlp_out`) *at the last position* from the run on `corrupted`, put it into the run on `tokens`, and
# see how far the mean logit difference (right − wrong, over the batch, at the last position) falls:
#
# $$\text{effect} = \frac{\text{clean} - \text{patched}}{\text{clean} - \text{corrupted}},$$
#
# 0 if nothing changes, 1 if the model answers as in the corrupted run.
#
# **Return** the effects, `[layer 2]`: attention first, then MLP.


# %% exercise="3.6" role="answer" minutes=20 difficulty=2 importance=3
def patch_effects(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    corrupted: Int[Tensor, "batch pos"],
    right: Int[Tensor, "batch"],
    wrong: Int[Tensor, "batch"],
) -> Float[Tensor, "layer 2"]:
    """How far each layer's output moves the answer when it comes from the corrupted run, at the last position."""
    ### BEGIN SOLUTION
    rows, layers = torch.arange(len(tokens)), range(model.cfg.n_layers)

    def gap(logits):
        return (logits[rows, -1, right] - logits[rows, -1, wrong]).mean()

    logits, cache = model.run_with_cache(corrupted)
    clean, low = gap(model(tokens)), gap(logits)

    def patch(value, hook):
        value = value.clone()
        value[:, -1] = cache[hook.name][:, -1]
        return value

    names = [[f"blocks.{layer}.hook_{part}_out" for part in ("attn", "mlp")] for layer in layers]
    patched = [[gap(model.run_with_hooks(tokens, fwd_hooks=[(name, patch)])) for name in row] for row in names]
    return (clean - torch.stack([torch.stack(row) for row in patched])) / (clean - low)
    ### END SOLUTION


# %% exercise="3.6" role="check" points=3
checks.patch_effects(patch_effects)
### BEGIN HIDDEN TESTS
checks.patch_effects(patch_effects, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Now three answers to "which part matters?", side by side. The lens: by how much does the probability of the right
# answer rise when this part has written? (`incl_mid=True` reads the state between attention and MLP, too.) Direct
# attribution: which share of the logit difference did it write? Patching: which share of it is lost?
# (`layer_pos_patch_setter` is TransformerLens's function that replaces one layer's output at one position.)

# %%
PARTS = [f"{kind} {block}" for block in range(4) for kind in ("attention", "MLP")]


def rises() -> Float[Tensor, "part"]:
    read = logit_lens(model, tokens, incl_mid=True, targets=right, return_type="probs").values
    return read[..., 0].mean(-1).diff()


def direct_shares() -> Float[Tensor, "part"]:
    shares = direct_logit_attribution(model, tokens, right, wrong).attribution.mean(-1)
    return shares[2:] / shares.sum()  # the first two are the embeddings


# %%
def gap(logits: Float[Tensor, "batch pos d_vocab"]) -> Float[Tensor, ""]:
    rows = range(len(logits))
    return (logits[rows, -1, right] - logits[rows, -1, wrong]).mean()


def lost_shares() -> Float[Tensor, "part"]:
    low_logits, other = model.run_with_cache(corrupted)
    clean, low = gap(model(tokens)), gap(low_logits)
    last = pd.DataFrame({"layer": range(4), "pos": tokens.shape[1] - 1})
    options = (model, tokens, other, gap, patching.layer_pos_patch_setter)
    patched = [patching.generic_activation_patch(*options, kind, index_df=last) for kind in ("attn_out", "mlp_out")]
    return ((clean - torch.stack(patched, dim=1)) / (clean - low)).flatten()


# %%
rankings = {
    "lens: rise of the probability": rises(),
    "direct share": direct_shares(),
    "patching: share lost": lost_shares(),
}
plots.bars(
    rankings,
    PARTS,
    title="Indirect objects: three answers to the same question",
    xlabel="part, at the last word",
    ylabel="rise (lens), or share (the others)",
    caption="Lens: attention 1 about .7, MLP 1 about .3, nothing else. Direct share: MLP 1 .4, MLP 0 .3, MLP 3 .2. "
    "Patching: attention 0 and MLP 0 about 1, MLP 1 .6, MLP 3 .2, attention 1 nothing.",
)

# %% role="result"
read, wrote, lost = rankings.values()
assert wrote[2].abs() < 0.05 and lost[2].abs() < 0.05 and read[:2].max() < 0.05 and lost[:2].min() > 0.9
[PARTS[ranking.argmax()] for ranking in (read, wrote, lost)]

# %% [markdown]
# Three methods, three answers, and much the same in all three trainings. To the lens it is attention 1: with it the
# probability jumps. It has written *nothing* of the logit difference, and patching it changes *nothing*. By patching
# it is attention 0 and MLP 0 (a tie), which the lens does not see at all; attention 0 has written next to nothing.
#
# Nobody is wrong. A logit *difference* cannot see what raises both names. And the corrupted sentence has the same two
# names, so what the patch brings raises both again. So compare *each* of the two with the mean of all names.


# %%
people = torch.cat([right, wrong]).unique()
_, cache = model.run_with_cache(tokens)
outputs = [cache[f"blocks.{block}.hook_{kind}_out"][:, -1] for block in range(4) for kind in ("attn", "mlp")]


def above_mean_name(words: Int[Tensor, "batch"]) -> Float[Tensor, "part"]:
    """Mean direct contribution of every part to logit(word) - the mean logit of all names."""
    direction = model.W_U[:, words] - model.W_U[:, people].mean(1, keepdim=True)
    direction = direction.T / cache["ln_final.hook_scale"][:, -1]
    return torch.stack([(output * direction).sum(-1).mean() for output in outputs])


# %%
to_right, to_giver = above_mean_name(right), above_mean_name(wrong)
plots.bars(
    {"right name": to_right, "giver": to_giver},
    PARTS,
    title="Indirect objects: what each part writes for each of the two names",
    xlabel="part, at the last word",
    ylabel="logits, against the mean of all names",
    caption="MLP 0: right name 0, giver minus 5. Attention 1: both plus 5. MLP 1: right name plus 6, giver 0. Attention 2: "
    "both plus 2. MLP 3: right name plus 3, giver 0.",
)

# %% role="result"
assert to_right[1].abs() < 1 and to_giver[1] < -3 and (to_right[2] - to_giver[2]).abs() < 0.5 and to_right[2] > 3
{"raises the right one most": PARTS[to_right.argmax()], "puts the giver down most": PARTS[to_giver.argmin()]}

# %% [markdown]
# Every answer has its place in this picture. MLP 0 writes a difference without raising the right name: it puts the
# giver down. Attention 1 raises both by the same amount, so no difference shows it. Does the answer need that? Take
# from a part what it knows of *this* sentence, by setting its output to the mean over all of them:


# %%
def average_last(value, hook):
    value = value.clone()
    value[:, -1] = value[:, -1].mean(0)
    return value


def averaged(block: int, kind: str, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch d_vocab"]:
    """Logits after the last word when a part's output there has been replaced by its mean over the batch."""
    return model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{block}.hook_{kind}_out", average_last)])[:, -1]


# %%
rows, ahead, on_top, outsider = range(len(tokens)), [], [], []
for block, kind in [(block, kind) for block in range(4) for kind in ("attn", "mlp")]:
    logits = averaged(block, kind, tokens)
    ahead.append((logits[rows, right] > logits[rows, wrong]).float().mean().item())
    on_top.append((logits.argmax(-1) == right).float().mean().item())
    absent = torch.isin(logits.argmax(-1), people) & (logits.argmax(-1) != right) & (logits.argmax(-1) != wrong)
    outsider.append(absent.float().mean().item())
columns = {"right above wrong": ahead, "right on top": on_top, "another person on top": outsider}
pd.DataFrame(columns, index=PARTS).round(2)

# %%
assert ahead[2] > 0.97 and on_top[2] < 0.25 and min(on_top[3:]) > 0.9 and max(ahead[:2]) < 0.8

# %% [markdown]
# Without what attention 1 knows, the right name is still above the wrong one in every sentence, but hardly ever on
# top: a name from outside the sentence is. (Averaging any single part after attention 1 leaves the right name on top.)
# And without block 0 the model all but guesses between the two. Block 0 itself wrote a third of the difference, and
# without it all is gone: so what the later MLPs write must depend on it. So: **block 0 rules out the
# giver; attention 1 raises both names of this sentence by about the same; the later MLPs, 1 and 3, raise the right
# one further.** No tool alone would have told it. (Through which heads? Chapter 08.)

# %% [markdown]
# ## 6 Controls
#
# Section 2 saw the lens approach the final answer. What would that look like in a model that has learned nothing? The
# untrained twin has random weights and is sure of nothing, so all its divergences are small. Take them as a
# share of the one at the embeddings. And take the rank of the word that the twin itself says in the end.
#
# **Predict first.** At the embeddings and after blocks 0, 1 and 2 of the twin,
#
# - (a) the share stays near 1, and the rank stays in the hundreds: no block knows where the next ones go
# - (b) the share falls block by block, and so does the rank, to the first few
# - (c) the share falls block by block, but the rank stays in the hundreds

# %% exercise="3.A" role="predict"
guess_twin = None  # "a", "b" or "c"
### BEGIN SOLUTION
guess_twin = "a"  # a guess, and a wrong one: that is fine
### END SOLUTION

# %%
twin_said = lens.trajectory(twin, lens.resid_stack(twin, test_tokens))
twin_kl, twin_rank = twin_said.kl.mean((1, 2)), twin_said.rank.flatten(1).median(-1).values
checks.prediction(
    guess_twin,
    {"a": "both stay", "b": "both fall", "c": "the share falls, the rank stays"},
    outcome="b",
    because=f"shares: {', '.join(f'{kl / twin_kl[0]:.2f}' for kl in twin_kl)}; median ranks: {twin_rank.tolist()}",
)

# %%
print(f"bits at the embeddings: world {divergences['logit lens'][0]:.1f}, twin {twin_kl[0]:.2f}")
assert (twin_kl.diff() < 0).all() and twin_rank[0] > 50 and twin_rank[2] < 10 and twin_kl[0] < 0.5

# %% [markdown]
# Step by step it "makes up its mind", with no mind at all. Each state is the one before plus something, so it is
# already part of the last one; and the last is the final answer by definition. A second control leaves the trained
# blocks as they are and runs them in another order.

# %% [markdown] exercise="3.7" role="task"
# ### Exercise 3.7 · Shuffled layers
#
# Run the blocks in the given order (a permutation of the block numbers), each on what the one before has left. Start
# with the embeddings as the model has them (`blocks.0.hook_resid_pre`). `model.blocks[i](resid)` runs one block; it
# returns a tuple whose first entry is the stream behind it.
#
# **Return** the states in the order in which they arise, `[state batch pos d_model]`: the embeddings, then the stream
# after each block that was run.


# %% exercise="3.7" role="answer" minutes=15 difficulty=2 importance=2
def states_in_order(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"], order: Sequence[int]
) -> Float[Tensor, "state batch pos d_model"]:
    """The states of the model when its blocks run in another order."""
    ### BEGIN SOLUTION
    _, cache = model.run_with_cache(tokens, names_filter="blocks.0.hook_resid_pre")
    states = [cache["blocks.0.hook_resid_pre"]]
    for block in order:
        states.append(model.blocks[block](states[-1])[0])
    return torch.stack(states)
    ### END SOLUTION


# %% exercise="3.7" role="check" points=2
checks.states_in_order(states_in_order)
### BEGIN HIDDEN TESTS
checks.states_in_order(states_in_order, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# (Remember section 2: "right above wrong" can mislead. Here the wrong capital stands nowhere in the sentence: it is a
# bystander itself.)
#
# All 24 orders of four blocks. (Here another way to the same states: a copy of the model whose blocks have changed
# their weights with each other.) Two curves for each: the divergence from *its own* final answer, on test texts, and
# whether the right capital stands above a wrong one.

# %%
weights, shuffled = model.state_dict(), models.load("world")
facts = [world.fact(country) for country in countries]


def in_order(order: Sequence[int]) -> TransformerBridge:
    """The model with its blocks in this order (always the same copy: the next call changes it again)."""
    changed = dict(weights)
    for name in weights:
        if name.startswith("blocks."):
            _, place, part = name.split(".", 2)
            changed[name] = weights[f"blocks.{order[int(place)]}.{part}"]
    shuffled.load_state_dict(changed)
    return shuffled


def two_curves(model: TransformerBridge) -> Float[Tensor, "2 state"]:
    kl = lens.trajectory(model, lens.resid_stack(model, test_tokens[:10])).kl.mean((1, 2))
    return torch.stack([kl, prefers_right(model, before_answer(model, facts), facts)])


# %%
orders = list(permutations(range(4)))
curves = torch.stack([two_curves(in_order(order)) for order in orders])
block_0_first = torch.tensor([order[0] == 0 for order in orders])
groups = {
    "as trained": curves[0],
    "shuffled, block 0 first": curves[1:][block_0_first[1:]].mean(0),
    "shuffled, another first": curves[~block_0_first].mean(0),
    "untrained twin": two_curves(twin),
}

# %%
plots.lines(
    {name: both[0] / both[0, 0] for name, both in groups.items()},
    ["embeddings", *(f"after {count} block{'s' * (count > 1)}" for count in range(1, 5))],
    title="Trained, shuffled, untrained: all approach their own final answer",
    xlabel="state",
    ylabel="mean KL(own final || lens), start = 1",
    caption="Mean divergence as a share of that at the embeddings (12 bits in world, .16 in the twin). All curves fall to 0: "
    "as trained, shuffled, and the untrained twin.",
)

# %%
plots.lines(
    {name: both[1] for name, both in groups.items()},
    ["embeddings", *(f"after {count} block{'s' * (count > 1)}" for count in range(1, 5))],
    title="The right capital above a wrong one: only if block 0 comes first",
    xlabel="state",
    ylabel="right above wrong (chance .5)",
    caption="49 countries. As trained, and shuffled with block 0 first: above .9 from the first block on. Shuffled with "
    "another block first, and the twin: near .5 throughout (one standard error of 49 coin tosses is .07).",
).update_yaxes(range=[0, 1.03])

# %% role="result"
falling = (curves[1:, 0].diff(dim=-1) < 0).all(-1).sum()
assert falling >= 20 and (groups["shuffled, another first"][1] - 0.5).abs().max() < 0.1
{
    "knows capitals, block 0 first": bool((curves[block_0_first, 1, 4] > 0.9).all()),
    "another first": bool((curves[~block_0_first, 1, 4] > 0.65).any()),
}

# %%
print(f"the divergence falls at every step in {falling} of 23 shuffled orders")
for order in [order for order in orders if order[0] == 0]:
    last = lens.read(in_order(order), before_answer(in_order(order), facts)[-1])
    print("blocks in the order", *order, f": right capital on top {(last.argmax(-1) == capitals).float().mean():.2f}")
facts_read = model.to_tokens([f"The capital of {country} is" for country in countries])
kept = [(averaged(block, "attn", facts_read).argmax(-1) == capitals).float().mean().item() for block in range(4)]
print("as trained, attention 0, 1, 2 or 3 averaged:", *(f"{share:.2f}" for share in kept))
assert kept[0] < 0.1 and min(kept[1:]) > 0.95

# %% [markdown]
# In nearly every shuffled order the divergence falls at every step, as it does in the twin. **That it falls shows
# nothing; where it falls may.** (A divergence of .01 bits after block 1 does say that the blocks behind it change
# next to nothing there.) The curve compares the model with itself. What tells a model that knows from one that does
# not is a comparison with the *truth*: is the right answer above the wrong ones, on which rank is it?
#
# By that measure the five shuffled orders that begin with block 0 still know a good deal: its attention brings the
# country to the last word, and without it next to nothing is left. They rank the right capital above *a wrong one*
# nearly always. To have it *on top* is harder: two orders lose more than a quarter of the countries, in other
# trainings up to six in ten. So the order of the later blocks matters too; and shuffling, as a control, does not
# destroy everything.

# %% [markdown]
# ## 7 How this can fool you
#
# Plant the worst case. `planted.second_thought` has weights set by hand. Its block 0 brings the country to "is" and
# writes a *wrong* capital. Block 3 reads the country and writes the right one. Block 2 does something that we come
# to.

# %%
trick = planted.second_thought(seed=7)
lens.heat_map(
    trick.model,
    lens.trajectory(trick.model, lens.resid_stack(trick.model, prompt)),
    trick.model.to_tokens(prompt)[0],
    title="The planted model on its way to Paris (dark cells: ties)",
    caption="At the last word: Rome with a probability of .995 after block 0 and after block 1, nothing in particular "
    "(a tie of all fifteen words) after block 2, Paris at the end.",
)

# %% role="result"
at_the_end = lens.trajectory(trick.model, lens.resid_stack(trick.model, prompt)).probability[:, 0, -1]
assert abs(at_the_end[2] - 0.995) < 0.001 and abs(at_the_end[3] - 1 / 15) < 0.001
trick.written_in, trick.first_thoughts[0], trick.answers[0]

# %% [markdown]
# (Dark cells are ties. At "is" after block 2 all fifteen words are equally likely, and one has to stand there.) After
# block 1 the lens reads "Rome" with a probability of .995. It is really there: the direction of Rome has been written
# into the stream. Now take it out, right there: set the component of the state along Rome's unembedding to zero, and
# let the rest of the model run.
#
# **Predict first.** Without the "Rome" after block 1, what does the model say?
#
# - (a) Paris, practically as sure as before
# - (b) Paris, but with a probability below .9
# - (c) another capital

# %% exercise="3.B" role="predict"
guess_without = None  # "a", "b" or "c"
### BEGIN SOLUTION
guess_without = "b"  # wrong again: this is what predictions are for
### END SOLUTION

# %% [markdown] exercise="3.8" role="task"
# ### Exercise 3.8 · Take a word out of a state
#
# For each sentence $i$, project the component along the unembedding direction of *its* word, `model.W_U[:,
# words[i]]`, out of the given state at the last position, and let the model run on: with the unit vector $u$ of that
# direction, $x \leftarrow x - (x \cdot u)\, u$. States count as in this chapter, 0 to $L$: state $l < L$ is
# `blocks.{l}.hook_resid_pre`; state $L$ is what the last block leaves, `blocks.{L-1}.hook_resid_post`.
#
# **Return** log-probabilities of the next word after the last position, `[batch d_vocab]`.


# %% exercise="3.8" role="answer" minutes=20 difficulty=2 importance=3
def without_direction(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"], state: int, words: Int[Tensor, "batch"]
) -> Float[Tensor, "batch d_vocab"]:
    """What the model says when a word's unembedding direction has been taken out of a state at the last position."""
    ### BEGIN SOLUTION
    direction = model.W_U[:, words].T
    unit = direction / direction.norm(dim=-1, keepdim=True)

    def remove(value, hook):
        value = value.clone()
        value[:, -1] = value[:, -1] - (value[:, -1] * unit).sum(-1, keepdim=True) * unit
        return value

    n_layers = model.cfg.n_layers
    name = f"blocks.{state}.hook_resid_pre" if state < n_layers else f"blocks.{n_layers - 1}.hook_resid_post"
    return model.run_with_hooks(tokens, fwd_hooks=[(name, remove)])[:, -1].log_softmax(-1)
    ### END SOLUTION


# %% exercise="3.8" role="check" points=3
checks.without_direction(without_direction)
### BEGIN HIDDEN TESTS
checks.without_direction(without_direction, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# You have written your prediction; here is what block 2 does. It is an *eraser*: it takes away exactly as much of
# every capital as there is. For comparison there is the same model without it (`erased=False`).
#
# With the library: `steering.add_after(block, vectors, positions)` adds a vector of its own to each sentence. Add
# what is to be taken out, with a minus. And measure **log-odds**, $\log \frac{p}{1 - p}$ for the right capital: where
# $p$ is nearly 1, it hides every change.


# %%
def part_along(
    states: Float[Tensor, "n d_model"], directions: Float[Tensor, "n d_model"]
) -> Float[Tensor, "n d_model"]:
    """The component of each row along its own direction."""
    unit = directions / directions.norm(dim=-1, keepdim=True)
    return (states * unit).sum(-1, keepdim=True) * unit


def when_added(model: TransformerBridge, prompts: list[str], block: int, vectors: Tensor) -> Float[Tensor, "n d_vocab"]:
    """Logits when a vector has been added to the stream after a block, at each prompt's last word."""
    hooks = steering.add_after(block, vectors, [-1] * len(prompts))
    return model.run_with_hooks(model.to_tokens(prompts), fwd_hooks=hooks)[:, -1]


def log_odds(logits: Float[Tensor, "n d_vocab"], words: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """log(p / (1 - p)) of each row's own word: its logit against all the others together."""
    others = logits.scatter(-1, words[:, None], -math.inf)
    return logits.gather(-1, words[:, None])[:, 0] - others.logsumexp(-1)


# %%
def before_and_after(case: planted.SecondThought) -> Float[Tensor, "2 prompt"]:
    """Log-odds of the right capital: intact, and without the first thought after block 1."""
    model, prompts = case.model, list(case.prompts)
    words = (case.first_thoughts, case.answers)
    thoughts, answers = (torch.tensor([model.to_single_token(w) for w in each]).to(session.device()) for each in words)
    part = part_along(lens.resid_stack(model, prompts)[2, :, -1], model.W_U[:, thoughts].T)
    return torch.stack([log_odds(when_added(model, prompts, 1, vectors), answers) for vectors in (0 * part, -part)])


# %%
with_eraser, without_eraser = before_and_after(trick), before_and_after(planted.second_thought(seed=7, erased=False))
plots.bars(
    torch.stack([with_eraser.mean(-1), without_eraser.mean(-1)], dim=1),
    ["as it is", "without its eraser"],
    names=["intact", "first thought out"],
    title="Does the planted model need its first thought?",
    xlabel="planted model",
    ylabel="log-odds of the right capital",
    caption="As it is: 9.4 intact, 8.9 with the first thought out. Without its eraser: 4 intact, 9.4 with the first "
    "thought out.",
)

# %% role="result"
change, change_without = (both[1] - both[0] for both in (with_eraser, without_eraser))
assert (with_eraser[0] - 9.36).abs().max() < 0.1 and (without_eraser[0] - 4.0).abs().max() < 0.1
{"changed by more than 1": bool(change.abs().max() > 1), "without its eraser": bool(change_without.min() > 1)}

# %%
checks.prediction(
    guess_without,
    {"a": "Paris, practically as sure", "b": "Paris, below .9", "c": "another capital"},
    outcome="a",
    because="The probability of Paris is {:.4f} before and {:.4f} after.".format(*with_eraser[:, 0].sigmoid().tolist()),
)

# %% [markdown]
# Next to nothing changes: there was just less to erase. (The .4: where Rome's direction goes, all other words rise a
# little, and the eraser undoes that for capitals only.) *The lens reads what could be said from a state. Whether it
# will have a say in the answer, the state alone does not tell.* (Where the eraser is missing, the same removal
# changes the output: Rome stood in the way of Paris to the end. So the test can tell the two apart.)
#
# Direct attribution falls for it too:

# %%
trick_shares = direct_logit_attribution(trick.model, prompt, "Rome", "Lima").attribution.squeeze()
plots.bars(
    trick_shares[2:],  # without the embeddings, which write nothing here
    PARTS,
    title='Who wrote "Rome" rather than "Lima", in a model that says Paris',
    xlabel="part",
    ylabel="logits, Rome minus Lima",
    caption="MLP 0 plus 8, MLP 2 minus 8, everything else 0.",
)

# %% role="result"
assert abs(trick_shares[3] - 8) < 0.1 and abs(trick_shares.sum()) < 0.1
{"writes Rome": PARTS[trick_shares[2:].argmax()], "writes against it": PARTS[trick_shares[2:].argmin()]}

# %% [markdown]
# One part writes Rome, another writes against it, and the sum is nothing. Janiak et al. (2023) found heads in a
# trained four-layer model that "consistently remove the output of earlier heads", and attributions that mislead
# because they do not account for it. In GPT-2 small McDougall et al. (2023) describe a head whose main role is this:
# if earlier parts predict a word and the word stands earlier in the text, the head suppresses that word.
#
# ### Back to Madrid
#
# Now the tests that the story of the beginning needs. Call the lens's likeliest word at a state the *first thought*.
# In `world`, for every country whose first thought is wrong, take its direction out of that state. Beside it, in the
# same sentences: a random change of the same size (mean of ten), the direction of *another* country's capital
# taken off in the same size (the mean of eight choices), and the direction of the right answer taken out.
#
# One care is needed. The directions of capitals are not at right angles (Madrid and Paris have a cosine of .35): to
# take out Madrid is to take out some of Paris. So every change but the last *spares* the direction of the right answer.

# %%
country_prompts = [f"The capital of {country} is" for country in countries]
CHANGES = ["intact", "thought out", "random", "another capital", "right out"]
thoughts = log_probs.argmax(-1)  # [state country]
unit_words = torch.nn.functional.normalize(model.W_U.T, dim=-1)  # [word d_model]
own_word = unit_words[capitals]
madrid, paris = (unit_words[model.to_single_token(word)] for word in ("Madrid", "Paris"))
assert abs(madrid @ paris - 0.35) < 0.01


def sparing(
    change: Float[Tensor, "country d_model"], size: Float[Tensor, "country 1"]
) -> Float[Tensor, "country d_model"]:
    """The change without its part along the right answer, in the given size."""
    change = change - part_along(change, own_word)
    return size * torch.nn.functional.normalize(change, dim=-1)


# %%
def odds_under(state: int, changes: list[Float[Tensor, "country d_model"]]) -> Float[Tensor, "country"]:
    """Log-odds of the right capital, the mean over some changes of a state."""
    logits = [when_added(model, country_prompts, state - 1, change) for change in changes]
    return torch.stack([log_odds(each, capitals) for each in logits]).mean(0)


def right_capital(state: int) -> Float[Tensor, "change country"]:
    """Log-odds of the right capital under the five changes."""
    part = part_along(at_is[state], unit_words[thoughts[state]])
    size = (part - part_along(part, own_word)).norm(dim=-1, keepdim=True)
    noise = [sparing(steering.random_like(part, seed), size) for seed in range(10)]
    others = [sparing(-own_word.roll(places, 0), size) for places in range(1, 49, 6)]  # each country gets another's
    out, right_out = [sparing(-part, size)], [-part_along(at_is[state], own_word)]
    return torch.stack([odds_under(state, each) for each in ([0 * part], out, noise, others, right_out)])


# %%
odds = torch.stack([right_capital(state) for state in (1, 2, 3)])  # [state change country]
wrong_first = thoughts[1:4] != capitals  # [state country]
mean_odds = torch.stack([odds[i][:, wrong_first[i]].mean(-1) for i in range(3)], dim=1)
plots.bars(
    mean_odds,
    [f"{STATES[i + 1]} (n = {wrong_first[i].sum()})" for i in range(3)],
    names=CHANGES,
    title="Does the answer need the first thought?",
    xlabel="state that is changed (n countries whose first thought is wrong)",
    ylabel="mean log-odds of the right capital",
    caption="After blocks 0, 1 and 2, for 25, 28 and 8 countries. Intact about 8. First thought out, a random change, another "
    "capital: all about 7. Right answer out 1.6, 1.0, minus 1.3.",
)

# %%
table = pd.DataFrame(odds[:, :, france].T.tolist(), index=CHANGES, columns=STATES[1:4])
table.round(1)  # France alone

# %% role="result"
intact, without, at_random, other, without_right = mean_odds
assert (without > at_random - 0.4).all() and (without < intact).all() and (without_right < 3.2).all()
{"right capital still on top without the first thought": bool((odds[:, 1] > 0)[wrong_first].all())}

# %% [markdown]
# Taken out, the first thought costs about one unit of log-odds. So does a random change of the same size, and so does
# another country's capital. (In the other trainings it costs .1 to 1.0, and again no more than a random change.) In no
# sentence of any training does the right capital lose its place. And the direction of the right answer counts for far
# more, though the lens does not have it on top.
#
# These are means over 25, 28 and only 8 countries, and France is not the mean: after block 0 its first thought costs
# three units, and a random change one on average. Paris stays far ahead (7.1 is a probability of .999), but of France
# alone one could not say that nothing particular is lost.
#
# A third test asks no lens at all. **A patchscope** lets the rest of the model do the reading (Ghandeharioun et al.,
# 2024): put the state into another prompt and see what the model says there. Take the states at "is" and put them in
# the place of the last word of a sentence that has nothing to do with countries. If the state after block 0 "thinks
# of Madrid", what will come out?

# %%
CARRIERS = ["The king above the dogs", "Emily was in the station .", ""]  # the last is the start token <bos> alone
scoped = {}
for carrier in CARRIERS:
    there = [lens.patchscope(model, at_is[i], carrier, position=-1, state=i) for i in range(4)]
    scoped[carrier] = torch.stack(there).argmax(-1)  # [state country]
    words = [model.to_string(word) for word in scoped[carrier][:, france]]
    shares = [f"{share:.2f}" for share in (scoped[carrier] == capitals).float().mean(-1)]
    print(carrier or "<bos>", "| France:", *words, "| right, all countries:", *shares)

# %% role="result"
right_there = {carrier: (said == capitals).float().mean(-1) for carrier, said in scoped.items()}
assert all((right_there[carrier][1:] > 0.9).all() for carrier in CARRIERS[:2]) and right_there[""][1] < 0.9
[model.to_string(word) for word in scoped["The king above the dogs"][1:, france]]

# %% [markdown]
# Put among kings and dogs, the state that reads as "Madrid" makes the model say "Paris", and so with nearly all
# countries, in all three trainings and in both sentences. From block 0 on the sentence about France is no longer
# needed. (*Some* sentence is: alone, in the place of the start token `<bos>`, the state after block 0 gives fewer right
# capitals, here one in five.)
#
# Is that the end of the story? Try the test on a case where you *know* that another capital was written first: the
# planted model. And with it the constant shift of section 4.

# %%
trick_states = lens.resid_stack(trick.model, list(trick.prompts))[:, :, -1]
handed = [lens.patchscope(trick.model, trick_states[i], "The capital of", position=-1, state=i) for i in (1, 2)]
own_reading = lens.read(trick.model, shifted(trick_states))[1:3]
for name, logits in {"patchscope": torch.stack(handed), "constant shift": own_reading}.items():
    words = [" ".join(trick.model.to_string(word) for word in row) for row in logits.argmax(-1)]
    print(f"{name:<15}", " | ".join(words))
print("first thoughts: ", *trick.first_thoughts, "   right:", *trick.answers)

# %% role="result"
thought_ids = torch.tensor([trick.model.to_single_token(word) for word in trick.first_thoughts], device=capitals.device)
{"the shift reads the first thought": bool((own_reading[0].argmax(-1) == thought_ids).all())}

# %% [markdown]
# The patchscope says "Paris" here too, in a model that does write Rome first, because the state holds the *country*,
# and block 3 still has to look its capital up. **A patchscope shows what a state suffices for, not what it says.** The
# shift, however, tells the two models apart: here it reads the first thought, in `world` it does not.
#
# The verdict on Madrid, Lisbon and Tokyo, then:
#
# - Read with care (section 4), Madrid and Lisbon are what is common to all countries, not a thought about France, and
#   Tokyo is a sum of two parts of which neither says Tokyo.
# - Taken out, such first thoughts are missed no more than a random direction. (For France alone, perhaps a little
#   more.)
# - What France has of its own points to Paris after block 0, and handed on, its state suffices for "Paris". In the
#   planted model, where the story is true, what a prompt has of its own reads "Rome".
#
# So there is no sign that the model thinks of Madrid first and of Paris later. What none of the tests shows is that a
# first thought is *never* anything. This was one kind of sentence in small models, one direction at a time.

# %% [markdown]
# ## 8 Further readings
#
# The rest is extra. **Does a state know more than the next word?** Pal et al. (2023) read from a single state of
# GPT-J what the model will say *one word later* (and further), and reached more than 48 % at some layers. A **future
# lens** is a tuned lens with an offset. What matters is the baselines: three tables of what the model itself says in
# the fitted rows, its commonest word (unigram), the commonest after its own next guess (bigram), and the commonest
# after the pair of the word read and that guess.

# %%
future = lens.fit_future_lens(model, fitting_states)
later = lens.trajectory(model, test_states, tuned=future)
hits = (later.top == later.final_top).float().mean((1, 2))


def pairs_said(tokens: Int[Tensor, "row pos"], said: Int[Tensor, "row pos"]) -> pd.DataFrame:
    """Every place but the last of each row: the word read, the model's guess, and its guess one word later."""
    columns = {"word": tokens[:, :-1], "guess": said[:, :-1], "later": said[:, 1:]}
    return pd.DataFrame({name: column.flatten().tolist() for name, column in columns.items()})


# %%
seen = pairs_said(fitting_tokens, lens.read(model, fitting_states[-1]).argmax(-1))
new = pairs_said(test_tokens, final.argmax(-1))


def commonest(group: pd.Series) -> int:
    return group.value_counts().index[0]


after_guess = new.guess.map(seen.groupby("guess").later.agg(commonest))
by_pair = seen.groupby(["word", "guess"], as_index=False).later.agg(commonest)
after_pair = new[["word", "guess"]].merge(by_pair, on=["word", "guess"], how="left").later
tables = {
    "unigram": commonest(seen.later),
    "bigram": after_guess,
    "word and guess": after_pair.fillna(after_guess),  # a pair never seen: the guess alone
}
baselines = {name: (said == new.later).mean() for name, said in tables.items()}

# %%
plots.lines(
    {"future lens": hits, **{name: torch.full((5,), share) for name, share in baselines.items()}},
    STATES,
    title="What the model will say one word later",
    xlabel="state that is read",
    ylabel="share of positions that are right",
    caption="The future lens goes from .29 at the embeddings to about .45 after block 2 and back to .42. Tables: unigram "
    ".10, bigram .39, word and guess .50.",
)

# %% role="result"
assert baselines["bigram"] < hits.max() < baselines["word and guess"] - 0.02
{"best state": STATES[hits.argmax()], "above the table of two words": bool(hits.max() > baselines["word and guess"])}

# %% [markdown]
# From block 0 on the lens beats the first two. But a table of two words, from the same rows, is better than the lens at
# every state. (The tables are given the model's guess; early states do not have it yet.) So "45 %" is no evidence that
# a state looks further ahead than its own next guess.

# %% [markdown] exercise="3.9" role="task"
# ### Exercise 3.9 · A patchscope
#
# Section 7 used the library's; here you write it. Run the prompt `tokens` once for each vector, with the vector in
# the place of the given state (0 to $L - 1$) at the given position. All other positions keep their own states up to
# there.
#
# **Return** log-probabilities after the last token of the prompt, `[n d_vocab]`.


# %% exercise="3.9" role="answer" minutes=15 difficulty=2 importance=2 extra=true
def patchscope(
    model: TransformerBridge,
    vectors: Float[Tensor, "n d_model"],
    tokens: Int[Tensor, "pos"],
    position: int,
    state: int,
) -> Float[Tensor, "n d_vocab"]:
    """What the rest of the model says with each vector in the place of a state of the prompt."""
    ### BEGIN SOLUTION

    def put(value, hook):
        value = value.clone()
        value[:, position] = vectors
        return value

    batch = tokens.expand(len(vectors), -1)
    return model.run_with_hooks(batch, fwd_hooks=[(f"blocks.{state}.hook_resid_pre", put)])[:, -1].log_softmax(-1)
    ### END SOLUTION


# %% exercise="3.9" role="check" points=1
checks.patchscope(patchscope)
### BEGIN HIDDEN TESTS
checks.patchscope(patchscope, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The indirect objects among kings and dogs: is the receiver's name in the state?

# %%
answers, states = tokens_for([s.answer for s in kinds["indirect object"]]), states_of["indirect object"][:4]
handed_on = torch.stack([lens.patchscope(model, states[i], CARRIERS[0], position=-1, state=i) for i in range(4)])
name_said = (handed_on.argmax(-1) == answers).float().mean(-1)
print("right name said, by state:", *(f"{share:.2f}" for share in name_said))
assert name_said[1] < 0.1 and name_said[2] > 0.9

# %% [markdown]
# After block 0 the state holds all that the later blocks need to name the capital. For the receiver it does not: the
# name can be handed on only after block 1, just where the lens reads it.
#
# **Early exit**: if the lens is sure after two blocks, why run the others? Schuster et al. (2022) build on this for
# speed.

# %% [markdown] exercise="3.10" role="task"
# ### Exercise 3.10 · Stop when sure
#
# At each place, stop at the first state whose likeliest token has at least the probability `threshold`; the last
# state always stops. State $l$ costs $l$ blocks.
#
# **Return** a pair `(blocks, token)`, both `[n]`: how many blocks were run, and the token said there.


# %% exercise="3.10" role="answer" minutes=10 difficulty=1 importance=1 extra=true
def early_exit(
    log_probs: Float[Tensor, "state n d_vocab"], threshold: float
) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"]]:
    """Blocks run and token said when the first sure state speaks."""
    ### BEGIN SOLUTION
    likelihood, token = log_probs.max(-1)
    sure = likelihood.exp() >= threshold
    sure[-1] = True
    blocks = sure.int().argmax(0)
    return blocks, token.gather(0, blocks[None])[0]
    ### END SOLUTION


# %% exercise="3.10" role="check" points=1
checks.early_exit(early_exit)
### BEGIN HIDDEN TESTS
checks.early_exit(early_exit, hidden=True)
### END HIDDEN TESTS

# %%
thresholds, rules = [0.5, 0.7, 0.9, 0.99], {}
for name, translators in {"logit lens": None, "tuned lens": tuned}.items():
    rule = lens.early_exit(lens.trajectory(model, test_states, tuned=translators), thresholds)
    rules[name, "blocks run, of 4"], rules[name, "same word as the full model"] = rule.blocks, rule.agreement
rules = pd.DataFrame({key: values.tolist() for key, values in rules.items()}, index=thresholds)
rules.rename_axis("threshold").T.round(2)

# %%
plain_exit, tuned_exit = rules.loc[0.9, "logit lens"], rules.loc[0.9, "tuned lens"]
assert tuned_exit.iloc[1] > plain_exit.iloc[1] > 0.9 and tuned_exit.iloc[0] < plain_exit.iloc[0] < 3.3

# %% [markdown]
# What the table leaves out: where a word was stopped early, the later blocks' keys and values are missing, which
# *later* words would need. Schuster et al. name this as one of three problems to solve.

# %% [markdown]
# ## On a real model
#
# Your `read_out` and `against_final` on the smallest GPT-2. It needs a network once, to fetch the weights; a laptop's
# CPU is enough. Without a network the next cells print one line and go on.

# %%
gpt2 = session.real_model("gpt2")

# %%
if gpt2 is not None:
    real_prompt = "The Eiffel Tower is in the city of"
    real_words = gpt2.to_str_tokens(real_prompt)
    real_names = lens.state_names(gpt2.cfg.n_layers)
    real_said = read_out(gpt2, lens.resid_stack(gpt2, real_prompt)[:, 0])
    likelihood, top = real_said.max(-1)

# %%
if gpt2 is not None:
    display(
        plots.heatmap(
            likelihood.exp().flip(0),
            real_words,
            real_names[::-1],
            text=[[gpt2.to_string(word)[:9] for word in row] for row in top.flip(0)],
            title="GPT-2: what it would say if it stopped here",
            xlabel="token read",
            ylabel="state",
            value="probability of the likeliest token",
            diverging=False,
            zmax=1,
            caption="For each token read and each state, the likeliest next token and its probability.",
        )
    )

# %% [markdown]
# The decision curve, for sentences of our generators that GPT-2 can read, where they end:

# %%
if gpt2 is not None:
    batch = world.sentences("indirect_object", 12, seed=1, template="one_pair/0")
    batch += world.sentences("agreement", 12, seed=1, template="pp/0")
    real_states = torch.stack([lens.resid_stack(gpt2, s.prompt.replace(" ,", ","))[:, 0, -1] for s in batch], dim=1)
    real_kl, real_rank = against_final(read_out(gpt2, real_states))
    display(
        plots.lines(
            {"indirect object": real_kl[:, :12].mean(-1), "agreement": real_kl[:, 12:].mean(-1)},
            real_names,
            title="GPT-2: how far the lens is from the end",
            xlabel="state",
            ylabel="mean KL(final || lens), bits",
            caption="One curve for indirect objects, one for agreement.",
        )
    )
    print("median rank of the final token:", real_rank.median(-1).values.tolist())

# %% [markdown]
# What to compare with: nostalgebraist (2020) saw GPT-2's readings "gradually converge to the final distribution",
# often long before the end, and early layers that "almost never look like the input". Yom Din et al. (2023), with
# their linear maps, find that GPT-2 often predicts its final output already in early layers. Do you see that for both
# kinds of sentence? Is there a jump as in `world`, and is the word on the way one that would have been said of any
# city? (The constant shift of section 4 would tell.) Mind the control: every such curve ends at zero, that of
# `models.untrained_twin("gpt2")` too.
#
# *This section has been tested on a model of GPT-2's architecture with random weights, not yet on GPT-2 itself.*

# %% [markdown]
# ## Over three trainings
#
# The main numbers of this chapter for three trainings of `world` from different seeds (you have seen seed 0),
# measured with the cells above. Four numbers in a row belong to the embeddings and to the states after block 0, 1 and
# 2.
#
# | | | seed 0 | seed 1 | seed 2 |
# |---|---|---|---|---|
# | 0 | "The capital of France is": lens | 02, Madrid, Lisbon, Tokyo | sat, Paris, Moscow, Moscow | France, \<pad\>, late, Paris |
# | 1 | probability of some capital | .20, .75, .79, .87 | .06, .49, .53, .76 | .07, .40, .57, .75 |
# | | the right one on top | .00, .49, .43, .84 | .00, .49, .41, .67 | .00, .41, .55, .86 |
# | | the commonest word after block 1: for how many of 49 countries | 20 | 8 | 5 |
# | 2 | median KL: capital | 14.4, 3.0, 4.1, 1.1 | 22.4, 3.0, 2.9, 1.6 | 16.3, 4.7, 2.6, .8 |
# | | agreement | 8.1, 5.5, 2.3, 1.0 | 10.8, 4.2, 2.5, .8 | 9.6, 12.7, 4.2, .5 |
# | | indirect object | 12.3, 13.1, .01, .01 | 14.3, 13.2, .02, .01 | 18.6, 19.8, .10, .03 |
# | | repeated words | 21.1, 16.4, .04, .02 | 15.9, 18.0, .03, .02 | 18.1, 18.3, .02, .01 |
# | | right above wrong: indirect object | .53, 1, 1, 1 | .55, 1, .99, 1 | .53, 1, 1, 1 |
# | | right above a bystander / a bystander above wrong, after block 0 | .49 / 1.00 | .47 / 1.00 | .45 / 1.00 |
# | 3 | mean KL at the last state, without the norm | 30.2 | 30.6 | 30.1 |
# | | same likeliest word, last state: with $b_U$ / raw | .83 / .73 | .85 / .70 | .84 / .72 |
# | 4 | mean KL on new texts: logit lens | 11.8, 6.5, 1.8, .54 | 11.4, 6.4, 1.9, .53 | 10.5, 9.9, 3.5, .68 |
# | | tuned lens | 3.5, 1.8, .24, .06 | 3.6, 1.8, .25, .05 | 3.4, 1.9, .33, .05 |
# | | table of words, at the embeddings | 3.3 | 3.3 | 3.3 |
# | | right capital read: tuned lens | .00, .73, .98, .98 | .00, .73, .92, 1 | .00, .71, .90, 1 |
# | | after block 0: 25 countries told with their capital / 24 others | .76 / .71 | .76 / .71 | .80 / .62 |
# | | own part highest for the right capital, after blocks 0 to 2 | 49, 49, 49 | 48, 49, 49 | 44, 47, 47 |
# | | constant shift | .00, .84, .90, .98 | .00, .86, .94, 1 | .00, .88, .92, .94 |
# | | common part, after blocks 0 to 2 | Madrid, Lisbon, Lisbon | Madrid, Madrid, Madrid | Beirut, Quito, lovely |
# | | France, tuned lens | that, Paris, Paris, Paris | a, called, Stockholm, Paris | that, Moscow, Moscow, Paris |
# | | France, constant shift | Bucharest, Paris, Paris, Paris | Bangkok, Paris, Paris, Paris | Islamabad, Helsinki, Helsinki, Moscow |
# | 5 | attention 1: lens / direct share / patching | .69 / .00 / −.02 | .68 / .00 / .00 | .54 / −.01 / −.02 |
# | | attention 0: lens / direct share / patching | .01 / .02 / 1.01 | .00 / .01 / 1.00 | .00 / .01 / 1.01 |
# | | logits written for the right name: MLP 0, attention 1, MLP 1, MLP 3 | .1, 4.6, 6.2, 3.3 | .1, 4.8, 7.0, 3.0 | .1, 4.5, 7.6, 2.3 |
# | | for the giver | −4.8, 4.7, −.5, .2 | −4.3, 4.8, −.6, .3 | −3.6, 4.6, .2, .5 |
# | | attention 1 averaged: right above wrong / on top / another person on top | 1.00 / .13 / .87 | 1.00 / .03 / .97 | 1.00 / .04 / .96 |
# | | any later part averaged: on top, at least | 1.00 | 1.00 | .96 |
# | 6 | shuffled orders in which KL falls at every step | 23 of 23 | 23 of 23 | 21 of 23 |
# | | right capital on top, orders 0132, 0213, 0231, 0312, 0321 | 1, 1, .94, .71, .73 | .96, .98, .92, .71, .39 | .98, 1, .80, .71, .51 |
# | 7 | countries whose first thought is wrong (after block 0, 1, 2) | 25, 28, 8 | 25, 29, 16 | 29, 22, 7 |
# | | mean log-odds: intact | 8.3, 8.1, 8.2 | 7.9, 8.0, 7.8 | 7.6, 7.6, 7.7 |
# | | first thought out | 7.4, 7.1, 7.2 | 7.4, 7.2, 7.4 | 6.6, 6.8, 7.5 |
# | | random, same size | 7.3, 7.0, 7.1 | 7.4, 7.1, 6.8 | 6.7, 6.5, 6.7 |
# | | another capital, same size | 7.2, 6.9, 7.3 | 7.5, 6.9, 6.8 | 6.5, 6.2, 6.4 |
# | | right answer out | 1.6, 1.0, −1.3 | 2.9, 2.4, .6 | 1.9, 1.4, .6 |
# | | patchscope, capitals | .00, .96, 1, 1 | .00, 1, 1, 1 | .00, 1, 1, 1 |
# | | in the place of \<bos\> | .00, .20, .88, 1 | .00, .61, .96, 1 | .00, .84, 1, 1 |
# | 8 | future lens, best state / table of word and guess | .45 / .50 | .44 / .49 | .44 / .50 |

# %% [markdown]
# ## What you have now
#
# - The **logit lens** reads any state as if it were the last (3.1). **KL** and **rank** against the end (3.2) say when
#   a reading has arrived, and different kinds of answers arrive differently.
# - The **final norm** sets the temperature of the reading (3.3): without it, probabilities mean little.
# - A **tuned lens** translates before it reads (3.4), and may put in what it reads. A **constant shift** cannot learn
#   facts, and reads nearly as much.
# - "Right above wrong" does not tell raising the one from putting down the other: ask for **bystanders**.
# - Lens, **attribution** (3.5) and **patching** (3.6) answer different questions: what can be read after a part, what
#   it wrote, what is lost with it.
# - A curve that approaches its own end falls in an untrained model and in **shuffled layers** (3.7) too. Compare with
#   the truth instead.
# - What the lens reads need not matter. **Take it out** (3.8) beside other directions of its size. **Hand it on** (3.9)
#   to see what the state suffices for, which is not what it says.
#
# **Open questions**
#
# - The common part that reads as "Lisbon": what does the model use it for? (Try what taking it out of *all* states does.)
# - Why unembedding directions? A state's own directions need not line up with any word's. Chapters 04 and 05 look for
#   directions that the model uses.
# - The giver is ruled out in block 0, both names are raised in block 1. Through which heads? (Chapter 08.)
#
# **Next**: chapter 04 asks how many things fit into a stream at all.

# %%
progress.table()

# %% [markdown]
# ## References
#
# - Belrose et al. (2023), *Eliciting Latent Predictions from Transformers with the Tuned Lens*,
#   [arXiv 2303.08112](https://arxiv.org/abs/2303.08112).
# - Geva et al. (2022), *Transformer Feed-Forward Layers Build Predictions by Promoting Concepts in the Vocabulary
#   Space*, [arXiv 2203.14680](https://arxiv.org/abs/2203.14680): MLP outputs read through the unembedding, and early
#   exit by a rule on them.
# - Ghandeharioun et al. (2024), *Patchscopes: A Unifying Framework for Inspecting Hidden Representations of Language
#   Models*, [arXiv 2401.06102](https://arxiv.org/abs/2401.06102).
# - Janiak, Rager, Dao & Lau (2023), *An Adversarial Example for Direct Logit Attribution: Memory Management in
#   GELU-4L*, [arXiv 2310.07325](https://arxiv.org/abs/2310.07325).
# - McDougall et al. (2023), *Copy Suppression: Comprehensively Understanding an Attention Head*,
#   [arXiv 2310.04625](https://arxiv.org/abs/2310.04625).
# - nostalgebraist (2020), *interpreting GPT: the logit lens*,
#   [LessWrong](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens).
# - Pal et al. (2023), *Future Lens: Anticipating Subsequent Tokens from a Single Hidden State*,
#   [arXiv 2311.04897](https://arxiv.org/abs/2311.04897).
# - Schuster et al. (2022), *Confident Adaptive Language Modeling*, [arXiv 2207.07061](https://arxiv.org/abs/2207.07061):
#   early exit.
# - Yom Din et al. (2023), *Jump to Conclusions: Short-Cutting Transformers With Linear Transformations*,
#   [arXiv 2303.09435](https://arxiv.org/abs/2303.09435).
