# ---
# title: Inside a transformer
# ---

# %% [markdown]
# # 00 · Inside a transformer
#
# **Which part of this model wrote "Paris"?**

# %%
import textwrap
import torch
from functools import partial
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import FactoredMatrix, TransformerBridge, patching
from transformer_lens.tools.analysis import direct_logit_attribution

from utils import models, plots, progress, session
from utils.checks import inside_a_transformer as checks
from utils.datasets import world

# %% [markdown]
# This is `world`, a small language model that came with the course. It has read ten million words of a toy English:
# sentences about capitals, about boys and teachers who walk or wait, about who gave what to whom. Ask it something.
# For each position the model returns one score (a *logit*) for every word it knows; the last position, `[0, -1]`, is its
# guess for the next word, and `softmax` turns scores into probabilities.

# %%
model = models.load("world")
prompt = "The capital of France is"
probabilities = model(prompt)[0, -1].softmax(-1)
best = probabilities.topk(5)

# %%
plots.bars(
    best.values,
    [model.to_string([token]) for token in best.indices],
    title=f"{prompt} ...",
    xlabel="next word",
    ylabel="probability",
)

# %% role="result"
model.to_string(best.indices[:1]), bool(best.values[0] > 0.99)

# %% [markdown]
# "Paris", with more than 99 percent; the other four share next to nothing. It knows. But *where* does it know?
#
# The model is a stack of eight parts: four attention layers, which move information between words, and four MLPs (small
# two-layer networks), which work on each word alone. Silence them one at a time, by replacing what they write by zeros, and
# see what is left of "Paris". (How `silence` gets into the model is the subject of section 2.)

# %%
components = [f"blocks.{layer}.hook_{kind}_out" for layer in range(4) for kind in ("attn", "mlp")]
paris = model.to_single_token("Paris")


def silence(value, hook):
    return torch.zeros_like(value)


def probability_without(component: str) -> Tensor:
    logits = model.run_with_hooks(prompt, fwd_hooks=[(component, silence)])
    return logits[0, -1].softmax(-1)[paris]


# %%
left = torch.stack([probability_without(component) for component in components])
names = [f"{kind} {layer}" for layer in range(4) for kind in ("attention", "MLP")]
plots.bars(
    left,
    names,
    title='Probability of "Paris" when one part is silenced',
    xlabel="the part that is silenced",
    ylabel="probability of Paris",
)

# %% role="result"
assert abs(left[-1] - 0.22) < 0.05
[name for name, probability in zip(names, left) if probability < 0.5]

# %% [markdown]
# Without attention 0, or without MLP 0, "Paris" is gone. Without MLP 3 a fifth of it is left. Any one of the other five can
# fall silent and the model hardly notices.
#
# So which part *wrote* the answer? And what did the others do? By the end of this chapter you can answer both,
# and you will know why the picture above cannot.
#
# **You will be able to**
#
# - read a transformer as a sum: every part writes into one *residual stream*, and the sum is the answer;
# - look at any value inside the model with a hook, and put another one in its place;
# - compute attention, the matrices behind it, and each part's direct share of an answer, by hand;
# - follow one word through the model with your first activation patch;
# - ask the *untrained twin*, the same model with random weights, whether a finding means anything.
#
# **Time**: about three hours. **You need**: Python, PyTorch tensors, matrix products. Each of the eight exercises
# has a check that tells you at once what is right and, where it is wrong, what probably happened. *Run All* stops at the
# first check you have not passed; to read on, select the cell below it and choose *Run → Run Selected Cell and All Below*.
# Only the last section, on GPT-2, uses an answer of yours (0.7). Keep the [reference](reference.md) open: terms and calls in two pages.

# %% [markdown]
# ## Are you ready? Five quick questions
#
# Answer without running anything. Nothing is graded; each miss comes with a place to read up.
#
# 1. `x` has the shape `[2, 5, 16]`, `w` has the shape `[16, 4]`. What is the shape of `x @ w`? (a tuple)
# 2. `scores` has the axes `[batch, query, key]`, and for each query the weights are to sum to 1 over the keys.
#    Which `dim` does `softmax` take? (a number)
# 3. `x = torch.tensor([1., 2., 3.], requires_grad=True)`; `(x**2).sum().backward()`. What is `x.grad`? (a list)
# 4. `A` is 100 × 3 and `B` is 3 × 100. What is the largest rank that `A @ B` can have? (a number)
# 5. The logit (the score before softmax) of one token is log 2 ≈ 0.69 higher than that of another. How many times as probable is it? (a number)

# %% exercise="0.T" role="predict"
shape = dim = gradient = rank = ratio = None  # your five answers
### BEGIN SOLUTION
shape, dim, gradient, rank, ratio = (2, 5, 4), -1, [2, 4, 6], 3, 2
### END SOLUTION

# %%
checks.self_test(shape=shape, dim=dim, gradient=gradient, rank=rank, ratio=ratio)

# %% [markdown]
# ## 1 Tokens, and the stream that carries them
#
# The model sees numbers. Every word of `world` is one *token*; `<bos>` opens each text. It knows 789 tokens: 785 words
# and four special ones such as `<bos>`.

# %%
tokens = model.to_tokens(prompt)
words = model.to_str_tokens(prompt)
print(words)
print(tokens.tolist())

# %% [markdown]
# A word the model has never met has no number. It says so, where other models would quietly read something else:

# %%
try:
    model.to_tokens("The capital of Frence is")
except models.UnknownWordError as error:
    print(error)

# %% [markdown]
# Each position starts with two vectors of length `d_model` = 128, one for its token and one for its place, added up.
# From then on every attention layer and every MLP *reads* these vectors (rescaled by a LayerNorm of its own; attention also
# reads those of earlier positions) and *adds* its output. Nothing is overwritten; what was written once, a later part can
# only cancel. The running sum is the **residual stream** (Elhage et al., 2021):
#
# $$x_{\text{final}} \;=\; \underbrace{e_{\text{token}} + e_{\text{position}}}_{\text{embeddings}}
#   \;+\; \sum_{\ell=0}^{3} \big(\text{attention}_\ell + \text{MLP}_\ell\big)$$
#
# `run_with_cache` runs the model and keeps every value on the way, by name. These are the ten writes:

# %%
logits, cache = model.run_with_cache(prompt)
writers = ["hook_embed", "hook_pos_embed", *components]
writes = {name: cache[name] for name in writers}
for name, write in writes.items():
    print(f"{name:<22} {list(write.shape)}")

# %% [markdown]
# To become a prediction, the final stream passes the last LayerNorm (`model.ln_final`: subtract the mean, divide by
# the standard deviation) and the *unembedding* (`model.unembed`, a matrix and a bias: one logit for every token). If the
# formula above is right, the ten writes (eight parts, two embeddings) are all you need.

# %% [markdown] exercise="0.1" role="task"
# ### Exercise 0.1 · The sum is the answer
#
# You are given the model and a dictionary of everything that was written into the stream. Add the writes up, apply
# the final LayerNorm, then the unembedding. The dictionary may come from any model (another number of layers), and
# in one test the check has doubled or shrunk some writes: take all entries as they are, whatever they are called. Here and in all exercises, leave what you are
# given as it is: compute new tensors instead of writing into old ones.
#
# **Return** the logits, `[batch pos d_vocab]`.

# %% exercise="0.1" role="answer" minutes=10 difficulty=1 importance=3
def logits_from_writes(
    model: TransformerBridge, writes: dict[str, Float[Tensor, "batch pos d_model"]]
) -> Float[Tensor, "batch pos d_vocab"]:
    """Logits of the residual stream that is the sum of all `writes`."""
    ### BEGIN SOLUTION
    stream = sum(writes.values())
    return model.unembed(model.ln_final(stream))
    ### END SOLUTION


# %% exercise="0.1" role="check" points=1
checks.logits_from_writes(logits_from_writes)
### BEGIN HIDDEN TESTS
checks.logits_from_writes(logits_from_writes, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Since the stream is a sum, you can stop adding at any point and read what is there. Here is the probability of
# "Paris" after each write, read at the last position as if the rest of the model did not exist. (Chapter 03 makes a
# tool of this, the *logit lens*.)

# %%
parts = ["token", "position", *names]
so_far, after = torch.zeros_like(writes["hook_embed"]), []
for write in writes.values():
    so_far = so_far + write
    after.append(model.unembed(model.ln_final(so_far))[0, -1].softmax(-1)[paris])

# %%
plots.lines(
    torch.stack(after),
    parts,
    title='Probability of "Paris", read after each write',
    xlabel="last write that was added",
    ylabel="probability of Paris",
)

# %% role="result"
[part for part, probability in zip(parts, after) if probability > 0.5]

# %% [markdown]
# For most of the way, nothing. "Paris" leads only after MLP 3, the very last write. Attention 0 and MLP 0, without which
# there was no answer, leave hardly a trace of it: whatever they wrote, it does not read "Paris" yet.

# %% [markdown]
# ## 2 Hooks: looking inside, by hand
#
# `run_with_cache` is no magic. A **hook** is a function that the model calls when it has computed a value:
#
# ```python
# def look(value, hook):
#     print(hook.name, value.shape)       # looks, returns nothing: the run goes on as before
#
# model.run_with_hooks(tokens, fwd_hooks=[("blocks.0.hook_mlp_out", look)])
# ```
#
# `fwd_hooks` is a list of pairs (name, function); the hooks are removed when the run is over. The model calls each as
# `function(value, hook=...)`. If a hook *returns* a value, the run goes on with that one instead: `silence` above did so. To
# keep a value, let the hook put it into a list or dictionary that stands outside.
#
# One gotcha: one place can have two names. `blocks.2.hook_resid_post` is also called `blocks.2.hook_out`, and a hook put
# on either sees `hook.name == "blocks.2.hook_out"`. So a hook that stores values has to be told the name to store them
# under: `partial(function, name="...")` (from `functools`) gives a function a fixed argument.
#
# <details><summary>Why not a plain closure?</summary>
#
# Functions defined in a `for` loop all look up the loop's variable when they are *called*, and by then it holds the last
# name. `partial`, or a default argument `name=name`, fixes it at once.
# </details>

# %% [markdown] exercise="0.2" role="task"
# ### Exercise 0.2 · A cache of your own
#
# Run the model on `tokens` with a hook for each of `names`, and collect what the hooks see. Store each activation
# under the name that was asked for.
#
# **Return** a dictionary: each of `names` → its activation. No other entries.

# %% exercise="0.2" role="answer" minutes=15 difficulty=2 importance=3
def cache_by_hooks(
    model: TransformerBridge, tokens: Int[Tensor, "batch pos"], names: list[str]
) -> dict[str, Tensor]:
    """The activations at the hooks called `names`, from one run on `tokens`, without `run_with_cache`."""
    ### BEGIN SOLUTION
    cache = {}

    def save(value, hook, name):
        cache[name] = value

    model.run_with_hooks(tokens, fwd_hooks=[(name, partial(save, name=name)) for name in names])
    return cache
    ### END SOLUTION


# %% exercise="0.2" role="check" points=2
checks.cache_by_hooks(cache_by_hooks)
### BEGIN HIDDEN TESTS
checks.cache_by_hooks(cache_by_hooks, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# With a cache you can ask how much each part writes, and where. The length of a vector is its norm:

# %%
sizes = torch.stack([cache[name][0].norm(dim=-1) for name in writers])
plots.heatmap(
    sizes,
    words,
    parts,
    title="How much each part writes at each position",
    xlabel="position",
    ylabel="part",
    value="norm (yellow: 100 and more)",
    diverging=False,
    zmax=100,
)

# %% role="result"
[word for word, size in zip(words, sizes[-1]) if size > 100]

# %% [markdown]
# What the embeddings put in is tiny beside what the MLPs add, and the last MLP writes most. (The colours stop at 100, and
# at the first four tokens, listed above, MLP 3 goes far beyond.) But size is not importance: a long vector may point where
# nobody looks, and two long ones may cancel.

# %% [markdown]
# ## 3 Attention: who looks where
#
# An attention layer has four *heads* that work side by side. In each head every position asks a question (its
# **query** $q$), shows a label by which it can be found (its **key** $k$), and holds something to hand over (its **value** $v$,
# which section 5 turns to). The weight with which position $i$ looks at position $j$ is
#
# $$A_{ij} = \operatorname{softmax}_j\!\left(\frac{q_i \cdot k_j}{\sqrt{d_{\text{head}}}}\right)
#   \quad\text{over } j \le i, \qquad A_{ij} = 0 \text{ for } j > i.$$
#
# The condition $j \le i$ is the *causal mask*: no position sees a later one. $A$ is the head's **attention pattern**; what
# position $i$ receives is the average $\sum_j A_{ij} v_j$.

# %% [markdown] exercise="0.3" role="task"
# ### Exercise 0.3 · The attention pattern
#
# From queries and keys, compute the pattern of every head: scores, scaling, causal mask, softmax over the keys.
# `d_head` is the length of the last axis.
#
# **Return** the pattern, `[batch n_heads query key]` (note where the heads' axis goes).

# %% exercise="0.3" role="answer" minutes=20 difficulty=2 importance=3
def attention_pattern(
    q: Float[Tensor, "batch pos n_heads d_head"], k: Float[Tensor, "batch pos n_heads d_head"]
) -> Float[Tensor, "batch n_heads query key"]:
    """The weights with which each query position looks at each key position."""
    ### BEGIN SOLUTION
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    later = torch.triu(torch.ones_like(scores, dtype=torch.bool), diagonal=1)
    return scores.masked_fill(later, -torch.inf).softmax(dim=-1)
    ### END SOLUTION


# %% exercise="0.3" role="check" points=2
checks.attention_pattern(attention_pattern)
### BEGIN HIDDEN TESTS
checks.attention_pattern(attention_pattern, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The model keeps its own patterns in the cache. Below are those of layer 0: point at a small picture to enlarge that head,
# click to keep it. Choose head 2 and read its last row.

# %%
pattern = cache["blocks.0.attn.hook_pattern"][0]
plots.attention(
    pattern,
    words,
    title="Layer 0: who looks where",
    caption="Rows: the word that looks (query, or destination). Columns: the word it looks at (key, or source). "
    "The darker, the more attention; grey: hidden by the causal mask.",
)

# %% role="result"
france = words.index("France")
[head for head in range(model.cfg.n_heads) if pattern[head, -1, france] > 0.5]

# %% [markdown]
# Look at the last word, "is", from which the answer is predicted. Head 2 puts most of its weight on "France"; the other
# three spread theirs. Remember that head.

# %% [markdown]
# ## 4 Causality: the future does not leak
#
# (Sections 4 and 5 are tools for later chapters. If you cannot wait for the answer to the question, go to section 6 and come
# back.)
#
# The mask promises that the prediction at one position depends on no later word. Promises about code are worth
# testing, and there is a sharp test: the *gradient* of a logit with respect to each position's embedding. Where it is
# exactly zero, that word cannot matter.
#
# `models.load` switches the gradients of the weights off; here you need the gradient with respect to an *activation*.
# The trick is a hook on `"hook_embed"` (the token embeddings, `[batch pos d_model]`) that returns a fresh tensor with the
# same values and `requires_grad=True`, and keeps it where you can reach it afterwards. The run goes on with that tensor, and
# after `.backward()` its `.grad` is there.

# %% [markdown] exercise="0.4" role="task"
# ### Exercise 0.4 · Which words can matter?
#
# Run the model on one text. Take the logit of `token` at `position`, and differentiate it with respect to the token
# embeddings of all positions.
#
# **Return** the Euclidean norm of the gradient at each position, `[pos]`.

# %% exercise="0.4" role="answer" minutes=25 difficulty=3 importance=2
def gradient_norms(
    model: TransformerBridge, tokens: Int[Tensor, "1 pos"], position: int, token: int
) -> Float[Tensor, "pos"]:
    """Norm of d logits[0, position, token] / d hook_embed[0, p, :], for every position p."""
    ### BEGIN SOLUTION
    kept = []

    def give_leaf(value, hook):
        kept.append(value.detach().clone().requires_grad_(True))
        return kept[0]

    logits = model.run_with_hooks(tokens, fwd_hooks=[("hook_embed", give_leaf)])
    logits[0, position, token].backward()
    return kept[0].grad[0].norm(dim=-1)
    ### END SOLUTION


# %% exercise="0.4" role="check" points=2
checks.gradient_norms(gradient_norms)
### BEGIN HIDDEN TESTS
checks.gradient_norms(gradient_norms, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The same norms for "Paris", read at every position of the prompt in turn (`torch.autograd.grad` does in one call what
# `.backward()` and `.grad` do in two):

# %%
def embedding_gradient(position: int) -> Float[Tensor, "pos"]:
    leaf = cache["hook_embed"].clone().requires_grad_(True)
    out = model.run_with_hooks(prompt, fwd_hooks=[("hook_embed", lambda value, hook: leaf)])
    return torch.autograd.grad(out[0, position, paris], leaf)[0][0].norm(dim=-1)


influence = torch.stack([embedding_gradient(position) for position in range(len(words))])

# %%
plots.heatmap(
    influence,
    [f"{i} {word}" for i, word in enumerate(words)],
    [f"{i} {word}" for i, word in enumerate(words)],
    title='How strongly each word can sway the logit of "Paris"',
    xlabel="the word whose embedding is nudged",
    ylabel="logit read at",
    value="gradient norm",
    diverging=False,
    text=".2f",
)

# %% role="result"
torch.equal(influence, influence.tril())

# %% [markdown]
# Above the diagonal everything is exactly zero: `True` says so. Causality is a property of the *architecture*, so it
# holds for any weights, trained or not. In the last row the model reads at "is", where it predicts the answer. There every
# word has some influence, even `<bos>`, which is the same in every text and can tell nothing: a gradient says what an
# infinitely small nudge *would* do. What happens when a whole word is exchanged is another question. Section 7 asks it.

# %% [markdown]
# ## 5 Two small matrices in every head
#
# Queries and keys never act alone, only in their dot product. Let $x$ be the stream where a head looks from, $y$ the stream
# where it looks to (rows are vectors; biases left aside). Then $q = x W_Q$, $k = y W_K$, and
#
# $$q \cdot k = x\, \big(W_Q W_K^{\top}\big)\, y^{\top}.$$
#
# The matrix $W_Q W_K^\top$, the **QK circuit**, decides where the head looks. And when $x$ looks at $y$ with weight
# $A$, the value $v = y W_V$ is written into the stream of $x$ as $A\, y W_V W_O$: the **OV circuit** $W_V W_O$ decides what it says. Both are `d_model × d_model` = 128 × 128,
# but squeezed through `d_head` = 32 dimensions: a head can read and write only a thin slice of the stream.

# %% [markdown] exercise="0.5" role="task"
# ### Exercise 0.5 · QK and OV
#
# From the four weight matrices of one head (rows are vectors, as above), multiply out the two circuits. Leave the
# scaling by $\sqrt{d_\text{head}}$ aside: it belongs to the scores.
#
# **Return** a pair `(qk, ov)`, each `[d_model d_model]`.

# %% exercise="0.5" role="answer" minutes=5 difficulty=1 importance=2
def qk_and_ov(
    w_q: Float[Tensor, "d_model d_head"],
    w_k: Float[Tensor, "d_model d_head"],
    w_v: Float[Tensor, "d_model d_head"],
    w_o: Float[Tensor, "d_head d_model"],
) -> tuple[Float[Tensor, "d_model d_model"], Float[Tensor, "d_model d_model"]]:
    """The QK circuit and the OV circuit of one head."""
    ### BEGIN SOLUTION
    return w_q @ w_k.T, w_v @ w_o
    ### END SOLUTION


# %% exercise="0.5" role="check" points=1
checks.qk_and_ov(qk_and_ov)
### BEGIN HIDDEN TESTS
checks.qk_and_ov(qk_and_ov, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The library avoids multiplying them out: `FactoredMatrix(a, b)` keeps the two thin factors and works with those, and
# `model.OV[layer, head]` is one. Here we do, with `.AB`, to look at the singular values (by how much the matrix stretches
# each of 128 perpendicular directions):

# %%
ov = FactoredMatrix(model.W_V[0, 2], model.W_O[0, 2])
singular_values = torch.linalg.svdvals(ov.AB)
plots.lines(
    singular_values[:48],
    title="Singular values of an OV circuit (layer 0, head 2)",
    xlabel="index (the first 48 of 128)",
    ylabel="singular value",
)

# %% role="result"
int((singular_values > 1e-4).sum()), model.cfg.d_head

# %% [markdown]
# After the 32nd they are zero: 96 of the 128 directions of the stream are beyond this head's reach. Whatever a
# head does, it does in a subspace of dimension `d_head`. So heads *can* keep out of each other's way; with 16 heads of 32
# dimensions in a stream of 128 they cannot all.

# %% [markdown]
# ## 6 Who wrote it? Direct logit attribution
#
# The final stream is a sum, and after the last LayerNorm's division by a scale $s$ the unembedding is linear. So the
# *logit difference* between a right and a wrong answer is a sum too, with one term for each write $w_c$:
#
# $$\text{logit}(\text{Paris}) - \text{logit}(\text{Rome})
#   = \sum_{c} \frac{w_c}{s} \cdot \big(u_{\text{Paris}} - u_{\text{Rome}}\big)$$
#
# where $u_t$ is column $t$ of `model.W_U`. Each term is the part's **direct logit attribution**: what it says for Paris
# and against Rome with its own hands. (`models.load` has processed the weights so that every write has mean 0 over the
# stream's 128 numbers: centring changes nothing any more. One term belongs to no part: the unembedding's bias
# `model.b_U`, which is the same for every prompt. It is left out.)
#
# Why a difference? A part that raises *every* capital has done nothing to choose among them. Subtracting a tempting
# wrong answer removes what helps both (Wang et al., 2022).
#
# **Predict first.** Which part has the largest direct share in "Paris rather than Rome"?
#
# - (a) attention 0
# - (b) MLP 0
# - (c) MLP 3
# - (d) all about the same

# %% exercise="0.A" role="predict"
guess_writer = None  # "a", "b", "c" or "d"
### BEGIN SOLUTION
guess_writer = "a"  # a guess, and a wrong one: that is fine
### END SOLUTION

# %% [markdown] exercise="0.6" role="task"
# ### Exercise 0.6 · Attribute a logit difference
#
# You get all writes of one prompt, the final LayerNorm's scale, the unembedding matrix, and the numbers of the right and
# the wrong token. The prediction is made at the *last* position; that is where to look. All writes share the one scale of
# that position.
#
# **Return** each component's direct share of logit(right) − logit(wrong), `[component]`.

# %% exercise="0.6" role="answer" minutes=20 difficulty=2 importance=3
def attribute_logit_difference(
    writes: Float[Tensor, "component pos d_model"],
    scale: Float[Tensor, "pos 1"],
    w_u: Float[Tensor, "d_model d_vocab"],
    right: int,
    wrong: int,
) -> Float[Tensor, "component"]:
    """Direct logit attribution of every write, at the last position."""
    ### BEGIN SOLUTION
    direction = w_u[:, right] - w_u[:, wrong]
    return writes[:, -1] / scale[-1] @ direction
    ### END SOLUTION


# %% exercise="0.6" role="check" points=3
checks.attribute_logit_difference(attribute_logit_difference)
### BEGIN HIDDEN TESTS
checks.attribute_logit_difference(attribute_logit_difference, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The library does it in one call. Its labels name the same ten writes, in the same order.

# %%
direct = direct_logit_attribution(model, prompt, "Paris", "Rome")
shares = direct.attribution.squeeze()
plots.bars(
    shares,
    parts,
    title='Who wrote "Paris" rather than "Rome"?',
    xlabel="part",
    ylabel="direct share of the logit difference",
)

# %% role="result"
parts[shares.argmax()]

# %%
rome = model.to_single_token("Rome")
bias = model.b_U[paris] - model.b_U[rome]
gap = logits[0, -1, paris] - logits[0, -1, rome]
print(f"sum of the shares {shares.sum():.3f} + bias {bias:.3f} = logit difference {gap:.3f}")
assert torch.isclose(shares.sum() + bias, gap, atol=1e-3)

# %%
checks.prediction(
    guess_writer,
    {"a": "attention 0", "b": "MLP 0", "c": "MLP 3", "d": "all about the same"},
    outcome="c",
    because=f"MLP 3 wrote {shares[9]:.1f} of {shares.sum():.1f}, MLP 0 wrote {shares[3]:.1f}.",
)

# %% [markdown]
# With the bias, the shares add up to the logit difference exactly. MLP 3 wrote most of it, as section 1 led you to expect.
# And attention 0, without which the model knew nothing at all? Its direct share is small. Both pictures are right: they
# answer different questions. Something attention 0 does must reach the answer *through other parts*. To see that, you have
# to intervene.

# %% [markdown]
# ## 7 Your first activation patch
#
# Take two prompts that differ in one word:
#
# | | | | | | |
# |---|---|---|---|---|---|
# | clean | The | capital | of | **France** | is |
# | other | The | capital | of | **Italy** | is |
#
# Run the clean prompt, but at *one layer and one position* overwrite the residual stream with its value from the other
# run. If the answer turns from Paris to Rome, then what tells France from Italy passed through that place. This is **activation patching** (also called an interchange intervention). The reference calls the other prompt *corrupted*, and
# this direction *noising*.
#
# **Predict first.** Just before layer 2, half-way up: at which place does a patch change the answer?
#
# - (a) at the word "France"
# - (b) at the last word, "is"
# - (c) at both

# %% exercise="0.B" role="predict"
guess_place = None  # "a", "b" or "c"
### BEGIN SOLUTION
guess_place = "a"  # wrong again: this is what predictions are for
### END SOLUTION

# %% [markdown] exercise="0.7" role="task"
# ### Exercise 0.7 · Patch the stream
#
# `source` is the residual stream of another run *before* the given layer: `hook_resid_pre` of that layer, for every
# position. Run the model on `tokens`; at that hook, overwrite one position with `source`'s value there, for every row
# of the batch (row by row: row $i$ of `source` belongs to row $i$ of `tokens`), and leave all other positions alone.
#
# **Return** the logits of the patched run, `[batch pos d_vocab]`.

# %% exercise="0.7" role="answer" minutes=15 difficulty=2 importance=3
def patch_stream(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    source: Float[Tensor, "batch pos d_model"],
    layer: int,
    position: int,
) -> Float[Tensor, "batch pos d_vocab"]:
    """Logits when blocks.{layer}.hook_resid_pre is taken from `source` at one position."""
    ### BEGIN SOLUTION

    def patch(value, hook):
        value = value.clone()
        value[:, position] = source[:, position]
        return value

    return model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", patch)])
    ### END SOLUTION


# %% exercise="0.7" role="check" points=3
checks.patch_stream(patch_stream)
### BEGIN HIDDEN TESTS
checks.patch_stream(patch_stream, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The library sweeps over all layers and positions. Its metric is up to you; a good one says how far the answer has
# moved: 0 for an untouched run (Paris), 1 for the other prompt's own answer (Rome).

# %%
other_logits, other_cache = model.run_with_cache("The capital of Italy is")


def difference(logits: Float[Tensor, "batch pos d_vocab"]) -> Tensor:
    return logits[0, -1, paris] - logits[0, -1, rome]


def moved(patched: Float[Tensor, "batch pos d_vocab"]) -> Tensor:
    clean, other = difference(logits), difference(other_logits)
    return (clean - difference(patched)) / (clean - other)


# %%
sweep = patching.get_act_patch_resid_pre(model, tokens, other_cache, moved)
plots.heatmap(
    sweep,
    words,
    [f"before layer {layer}" for layer in range(4)],
    title="From Paris (0) to Rome (1): patching one place in the stream",
    xlabel="position that is patched",
    ylabel="layer",
    value="moved towards Rome",
    text=".2f",
    zmax=1,
)

# %% role="result"
[(layer, words[position]) for layer, position in (sweep > 0.5).nonzero().tolist()]

# %%
checks.prediction(
    guess_place,
    {"a": 'at the word "France"', "b": 'at the last word, "is"', "c": "at both"},
    outcome="b",
    because='The country can still be found at its own word, but nothing reads it there any more.',
)

# %% role="result"
here, there = (run["blocks.2.hook_resid_pre"][0, france] for run in (cache, other_cache))
bool((here - there).norm() > 0.1 * here.norm())

# %% [markdown]
# Before layer 0 the answer depends on the country's own word. (It must: that is where the two prompts differ.) From layer 1 on
# it depends on the last word alone. The streams at the word "France" still differ between the two runs (`True` above), but
# nothing reads them there any more for this answer. So *layer 0* has carried the country over. Only attention moves information between positions: patch what each of its heads writes, at all positions.

# %%
heads = patching.get_act_patch_attn_head_out_all_pos(model, tokens, other_cache, moved)
plots.heatmap(
    heads,
    [f"head {head}" for head in range(4)],
    [f"layer {layer}" for layer in range(4)],
    title="From Paris (0) to Rome (1): patching the output of one head",
    xlabel="head",
    ylabel="layer",
    value="moved towards Rome",
    text=".2f",
    zmax=1,
)

# %% role="result"
[(layer, head) for layer, head in (heads > 0.5).nonzero().tolist()]

# %% [markdown]
# One head of sixteen: layer 0, head 2, which alone moves the answer nearly all the way. It is the one that looked from "is"
# at "France" in section 3. The story so far: **head 2 of layer 0 carries the country to the last word, and there the MLPs
# write the capital, MLP 3 most of it.**
#
# Is that a lucky find in one model? Each shipped model has a *card* that says what is true of it and how that is known:
# *planted* (made so), *annotated* (the data's generator knows it) or *measured* (the same in at least three trainings from
# different random seeds).

# %%
for fact in models.card("world").facts:
    if fact.fact.startswith("The capital of") and ("strongest head" in fact.fact or "by MLPs" in fact.fact):
        print(f"{fact.kind}, seeds {list(fact.seeds)}")
        print(textwrap.indent(textwrap.fill(fact.fact, 90), "    "))

# %% [markdown]
# In all three trainings one head of layer 0 moves more than half of it, and the MLPs write nearly everything.
# *Which* head it is differed: 2, 1 and 3 in seeds 0, 1 and 2 (the table in `utils/zoo/README.md` has it, with everything
# else that was measured; `python -m utils.training world --seed 1 --out ...` remakes the second). The number is an
# accident, the mechanism is not.

# %% [markdown]
# ## 8 The control: what does an untrained model "explain"?
#
# The sum in section 6 is exact. It is exact for *any* weights, so exactness is no evidence for anything. The untrained
# twin has the same architecture and knows nothing. Here is its attribution for the same prompt:

# %%
twin = models.untrained_twin("world")
twin_shares = direct_logit_attribution(twin, prompt, "Paris", "Rome").attribution.squeeze()
plots.bars(
    twin_shares,
    parts,
    title='The untrained twin: who wrote "Paris" rather than "Rome"?',
    xlabel="part",
    ylabel="direct share of the logit difference",
)

# %% [markdown]
# It looks like a finding: some parts "push for Paris", others "against". Only the axis gives it away, and on a real model
# you would not know what size to expect.
#
# One prompt is one sample. So take many countries, and let each capital be the right answer once and the wrong answer
# once: Paris against Rome, Rome against Berlin, and so on in a circle. Whatever a part writes *regardless of the country* then
# cancels. What is left is what it knows about the country it was asked for.

# %% [markdown] exercise="0.8" role="task"
# ### Exercise 0.8 · The same attribution, over many prompts
#
# As in 0.6, but for a batch: prompt $i$ has its own right and wrong token. First compute each component's direct share
# for each prompt (last position, scale of that prompt's last position). Then, over the prompts, the mean and its
# **standard error**: the standard deviation of the sample (with $n - 1$), divided by $\sqrt{n}$.
#
# **Return** a pair `(mean, standard_error)`, each `[component]`.

# %% exercise="0.8" role="answer" minutes=25 difficulty=2 importance=3
def mean_attribution(
    writes: Float[Tensor, "component batch pos d_model"],
    scale: Float[Tensor, "batch pos 1"],
    w_u: Float[Tensor, "d_model d_vocab"],
    right: Int[Tensor, "batch"],
    wrong: Int[Tensor, "batch"],
) -> tuple[Float[Tensor, "component"], Float[Tensor, "component"]]:
    """Mean and standard error over prompts of every component's direct logit attribution."""
    ### BEGIN SOLUTION
    directions = (w_u[:, right] - w_u[:, wrong]).T
    values = torch.einsum("cbd,bd->cb", writes[:, :, -1] / scale[:, -1], directions)
    return values.mean(-1), values.std(-1) / values.shape[-1] ** 0.5
    ### END SOLUTION


# %% exercise="0.8" role="check" points=3
checks.mean_attribution(mean_attribution)
### BEGIN HIDDEN TESTS
checks.mean_attribution(mean_attribution, hidden=True)
### END HIDDEN TESTS

# %%
countries = list(world.COUNTRIES)
capitals = [world.COUNTRIES[country].capital for country in countries]
prompts = [f"The capital of {country} is" for country in countries]
right = torch.tensor([model.to_single_token(capital) for capital in capitals], device=session.device())
wrong = right.roll(-1)


def mean_and_error(model: TransformerBridge) -> tuple[Tensor, Tensor]:
    """The library's attributions for all countries: mean and standard error per part."""
    values = direct_logit_attribution(model, prompts, right, wrong).attribution
    return values.mean(-1), values.std(-1) / len(prompts) ** 0.5


# %%
trained_mean, trained_error = mean_and_error(model)
twin_mean, twin_error = mean_and_error(twin)
plots.bars(
    torch.stack([trained_mean, twin_mean]),
    parts,
    error=torch.stack([2 * trained_error, 2 * twin_error]),
    names=["trained", "untrained twin"],
    title=f"Direct shares over {len(prompts)} countries (mean, ± 2 standard errors)",
    xlabel="part",
    ylabel="direct share of the logit difference",
)

# %% role="result"
parts[trained_mean.argmax()], bool((twin_mean.abs() < 0.2).all())

# %% [markdown]
# In the trained model MLP 3 and MLP 0 stand far above the rest; MLP 2, MLP 1 and attention 0 are clear of their error bars
# too. (France's own bars in section 6 looked different, MLP 0's for one: a single prompt is a single sample, and so is a
# single wrong answer.) Token and position say the same for every country: they cancel. The twin's bars are there too, thinner than the axis line: it knows
# nothing about any country.
#
# **A warning about error bars.** They treat the prompts as independent samples. Around our circle each capital stands once on
# either side, so there the bars are too wide. With one wrong answer for all they are not, and still a mean need not *mean*
# anything. Look at the twin when Rome is the wrong answer every time:

# %%
always_rome = torch.full_like(right, rome)
values = direct_logit_attribution(twin, prompts, right, always_rome).attribution
against_rome = values.mean(-1), values.std(-1) / len(prompts) ** 0.5
plots.bars(
    against_rome[0],
    parts,
    error=2 * against_rome[1],
    title="The untrained twin, always against Rome (mean, ± 2 standard errors)",
    xlabel="part",
    ylabel="direct share of the logit difference",
)

# %% role="result"
", ".join(part for part, mean, error in zip(parts, *against_rome) if abs(mean) > 3 * error)

# %% [markdown]
# Four of the ten parts are "significant" by more than three standard errors, in a model of random numbers: each happens to
# write a little for Rome or a little against it, and repeats that accident in every prompt. Repeating a measurement does not help where the
# same accident is in all of them. A comparison in which it cancels does (our circle), and so does a twin from another seed:
# try `models.untrained_twin("world", seed=1)`.

# %% [markdown]
# ## How this can fool you
#
# You now have two ways to ask "how much does this part matter?": its direct share, and what is lost without it. Put
# them side by side, over all countries. "Without it" now means: its output is replaced by its mean over the countries,
# which takes out what it knows about *this* country and leaves the rest as usual. (Zero, which we used at the start, is a
# value the model has never seen there: a cruder tool, as the open questions say.)

# %%
def mean_difference(logits: Float[Tensor, "batch pos d_vocab"]) -> Tensor:
    rows = torch.arange(len(prompts))
    return (logits[rows, -1, right] - logits[rows, -1, wrong]).mean()


def average_out(value, hook):
    return value.mean(0, keepdim=True).expand_as(value)


# %%
intact = mean_difference(model(prompts))
lost = torch.stack(
    [intact - mean_difference(model.run_with_hooks(prompts, fwd_hooks=[(part, average_out)])) for part in components]
)
plots.bars(
    torch.stack([trained_mean[2:], lost]),
    names,
    names=["direct share", "lost without it"],
    title="Two answers to the question how much a part matters",
    xlabel="part",
    ylabel="logit difference",
)

# %% role="result"
names[trained_mean[2:].argmax()], names[lost.argmax()], bool(lost.sum() > 2 * intact)

# %% [markdown]
# **Attention 0 wrote next to nothing, and everything depends on it.** It hands the country on; what others make of it counts as
# theirs. Direct attribution alone would have overlooked the part that matters most. And the other way round: the losses add
# up to more than twice the whole difference, because the same answer is lost at more than one station on its way.
# Interventions alone would have named attention 0 or MLP 0 as the author.
#
# *Direct attribution shows who speaks last; an intervention shows who cannot be done without.*
#
# How do the MLPs share what was written, over all countries?

# %%
of_all = trained_mean[[9, 3, 7]] / trained_mean.sum()
print("MLP 3 {:.0%}, MLP 0 {:.0%}, MLP 2 {:.0%}".format(*of_all.tolist()))
assert torch.allclose(of_all.cpu(), torch.tensor([0.46, 0.34, 0.13]), atol=0.03)

# %% [markdown]
# So, **who wrote "Paris"?** MLP 3 wrote most of it against Rome; over all countries it wrote nearly half, MLP 0 a third and
# MLP 2 most of the rest. Head 2 of layer 0 brought the country to the place where they could. Attention 1 to 3 hardly
# matter here, one at a time. And nothing works without MLP 0: what it hands on to the later MLPs, this chapter has not
# shown. To follow a path from part to part takes path patching (chapter 08).

# %% [markdown]
# ## On a real model
#
# Your `patch_stream` on the smallest GPT-2 (Radford et al., 2019: 12 layers, a stream of 768 dimensions).
# It needs a network once, to fetch the weights; a laptop's CPU is enough. Without a network the next cells print one line and
# go on.

# %%
gpt2 = session.real_model("gpt2")

# %%
if gpt2 is not None:
    pair = gpt2.to_tokens(["The capital of France is", "The capital of Italy is"])
    real_paris, real_rome = gpt2.to_single_token(" Paris"), gpt2.to_single_token(" Rome")
    real_logits, real_cache = gpt2.run_with_cache(pair)
    gap = real_logits[:, -1, real_paris] - real_logits[:, -1, real_rome]
    print(f"logit(Paris) - logit(Rome): {gap[0]:.2f} for France, {gap[1]:.2f} for Italy")

# %%
if gpt2 is not None:
    streams = [real_cache[f"blocks.{layer}.hook_resid_pre"][1:] for layer in range(gpt2.cfg.n_layers)]
    patched = [
        [patch_stream(gpt2, pair[:1], stream, layer, position)[0, -1] for position in range(pair.shape[1])]
        for layer, stream in enumerate(streams)
    ]
    real_gap = torch.stack([torch.stack([out[real_paris] - out[real_rome] for out in row]) for row in patched])
    display(
        plots.heatmap(
            (gap[0] - real_gap) / (gap[0] - gap[1]),
            gpt2.to_str_tokens(pair[0]),
            [f"before layer {layer}" for layer in range(gpt2.cfg.n_layers)],
            title="GPT-2, from Paris (0) to Rome (1): patching one place in the stream",
            xlabel="position that is patched",
            ylabel="layer",
            value="moved towards Rome",
        )
    )

# %% [markdown]
# What to compare with: Meng et al. (2022) did a related experiment on GPT-2 XL (48 layers). They blurred the subject of 1000
# facts with noise, which cost the right answer 18.6 percentage points of probability on average, and restored one state at a
# time. Among the early places the best was the *subject's last token* at layer 15, which alone brought back 8.7 points. Their
# numbers are points of probability after noise, yours a share of a logit difference after a swap: compare the places, not the
# sizes. In `world` the subject's word stops mattering after layer 0. Up to which layer does it matter in GPT-2?
#
# *This section has been tested on a model of GPT-2's architecture with random weights, not yet on GPT-2 itself.*

# %% [markdown]
# ## What you have now
#
# - A transformer's stream is a **sum**; whatever is a sum can be taken apart exactly (0.1, 0.6).
# - **Hooks** read and replace any value (0.2); a **patch** replaces one value by that of another run (0.7).
# - Heads **move** information: QK decides where from, OV what (0.3, 0.5). The future never leaks (0.4).
# - **Direct attribution** says who wrote the answer; **interventions** say who it depended on. Neither says both.
# - Exact is not the same as meaningful, nor is "significant": the **untrained twin** (0.8) shows what an empty explanation
#   looks like.
#
# **Open questions**
#
# - Replacing a value by zero, by a mean, or by another run's value are three different questions, and published
#   results depend on which was asked (Heimersheim & Nanda, 2024). When is each the right one?
# - In the last figure the loss of MLP 3 is smaller than its share, though no part comes after it. What else changes when a
#   large write is taken out? (Look at the scale $s$.) In larger models later parts change what they write when an earlier one
#   is silenced: self-repair (McGrath et al., 2023).
# - We followed one kind of sentence. Does the same head carry other things? Chapter 07 follows repetitions,
#   chapter 08 the question who gets the drink.

# %%
progress.table()

# %% [markdown]
# ## References
#
# - Elhage et al. (2021), *A Mathematical Framework for Transformer Circuits*, [transformer-circuits.pub](https://transformer-circuits.pub/2021/framework/index.html): the residual
#   stream, QK and OV circuits.
# - Geva et al. (2023), *Dissecting Recall of Factual Associations in Auto-Regressive Language Models*,
#   [arXiv 2304.14767](https://arxiv.org/abs/2304.14767): how larger models move and look up facts.
# - Heimersheim & Nanda (2024), *How to use and interpret activation patching*, [arXiv 2404.15255](https://arxiv.org/abs/2404.15255).
# - McGrath et al. (2023), *The Hydra Effect: Emergent Self-repair in Language Model Computations*, [arXiv 2307.15771](https://arxiv.org/abs/2307.15771).
# - Meng et al. (2022), *Locating and Editing Factual Associations in GPT*, [arXiv 2202.05262](https://arxiv.org/abs/2202.05262).
# - Radford et al. (2019), *Language Models are Unsupervised Multitask Learners*: GPT-2.
# - Vaswani et al. (2017), *Attention Is All You Need*, [arXiv 1706.03762](https://arxiv.org/abs/1706.03762): the transformer.
# - Wang et al. (2022), *Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2 small*,
#   [arXiv 2211.00593](https://arxiv.org/abs/2211.00593).
