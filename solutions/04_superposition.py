# ---
# title: Superposition
# ---

# %% [markdown]
# # 04 · Superposition
#
# **How do you keep 20 things in 5 dimensions?**

# %%
import math
import torch
from collections import Counter
from functools import partial
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import TransformerBridge

from utils import models, plots, progress, session, superposition
from utils.checks import superposition as checks
from utils.superposition import FeatureSets

# %% [markdown]
# You have five numbers to remember, and room for two. You may choose two weighted sums of the five, write
# them down, and later guess the five from the two. The first number matters most, the last one least.
#
# A small network faces the same problem. It squeezes five *features* $x_0, \dots, x_4$ through two hidden dimensions,
# $h = Wx$, and gives them back as $\mathrm{ReLU}(W^\top h + b)$. Column $i$ of $W$ is the direction in the plane along
# which feature $i$ is written. Train ten of them from different starts on features that are **always on** (uniform
# between 0 and 1), keep the best, and look at its columns.


# %%
def best(starts: superposition.ToyModels) -> superposition.ToyModels:
    """Of several starts (the first axis) the model with the lowest loss; all other axes stay."""
    i = starts.loss.argmin(0, keepdim=True)  # the number of the best start; take_along_dim picks it
    W, b = starts.W.take_along_dim(i[..., None, None], 0)[0], starts.b.take_along_dim(i[..., None], 0)[0]
    return superposition.ToyModels(W, b, starts.loss.amin(0), starts.linear)


# %%
# train(features, dimensions, sparsity of each model, importance of each feature): ten models at once
train = partial(superposition.train, steps=1500, lr=0.01)
importance = 0.9 ** torch.arange(5.0)
always_on = best(train(5, 2, torch.zeros(10), importance))
plots.directions(
    always_on.W,
    title="Five features, always on, in two dimensions",
    caption="Arrows from the origin: two of about length 1 at a right angle, those of features 2, 3 and 4 much shorter.",
)

# %% role="result"
lengths = always_on.W.norm(dim=0)
assert (lengths[:2] > 0.85).all() and (lengths[2:] < 0.6).all()
{"kept": (lengths > 0.7).nonzero()[:, 0].tolist()}

# %% [markdown]
# Two features, two dimensions, at a right angle: the two most important ones are kept, the others are given up
# (nearly). That is what linear algebra makes you expect.
#
# **Predict first.** Now each feature is on only one time in twenty, and zero otherwise. All else stays. How many of the
# five will the two dimensions keep?
#
# - (a) 2, as before
# - (b) 4
# - (c) all 5

# %% exercise="4.A" role="predict"
guess_kept = None  # "a", "b" or "c"
### BEGIN SOLUTION
guess_kept = "a"  # a guess, and a wrong one: that is fine
### END SOLUTION

# %%
sparser = best(train(5, 2, torch.tensor([0.7, 0.95]).expand(10, 2), importance))
plots.directions(
    torch.stack([always_on.W, *sparser.W]),
    title="The rarer the features, the more of them fit",
    facets=["always on", "zero 70% of the time", "zero 95% of the time"],
    caption="Left: two arrows at a right angle. Middle: four arrows, two pairs that point in opposite directions, the "
    "pairs at a right angle. Right: five arrows of equal length at equal angles, a regular pentagon.",
)

# %%
kept = (sparser.W.norm(dim=1) > 0.7).sum(-1)
assert kept.tolist() == [4, 5]
checks.prediction(
    guess_kept,
    {"a": "2, as before", "b": "4", "c": "all 5"},
    outcome="c",
    because=f"Zero 70% of the time: {kept[0]} columns are longer than 0.7; zero 95% of the time: {kept[1]}.",
)

# %% [markdown]
# Nothing changed but how *often* the features occur. With rarer features the model first writes two into each
# dimension, one along each end; then it gives up on dimensions of their own altogether and places all five at equal
# angles. More features than dimensions: that is **superposition** (Elhage et al., 2022). The arrows are not at right
# angles any more, so each feature is heard a little where another is read. Why is that worth it, when, and what becomes
# of a method that looks for "the direction of a feature" or "what this neuron means"?
#
# **You will be able to**
#
# - train many toy models in one tensor program, and say what sparsity and importance do to them;
# - measure how much of a dimension a feature has, and recognise the figures that features form;
# - compute interference by hand, and say what the ReLU and the bias do about it;
# - say when a linear account (principal components) is enough, and when a direction is not;
# - tell a neuron that answers to many features from a model in superposition.
#
# **Time**: three to four hours. **You need**: PyTorch and linear algebra; no earlier chapter. What is said of trained
# models was measured over five seeds; where runs differ the text says so, and a table at the end has the numbers.

# %% [markdown]
# ## 1 The model
#
# There are $n$ features and $m < n$ hidden dimensions. Each feature is zero with probability $S$, its **sparsity**;
# else its value is uniform between 0 and 1. So it is *on* with probability $p = 1 - S$. The model is
#
# $$h = Wx, \qquad x' = \mathrm{ReLU}(W^\top h + b) = \mathrm{ReLU}(W^\top W x + b), \qquad
#   L = \mathbb{E} \sum_i I_i\, (x_i - x'_i)^2 ,$$
#
# with the **importance** $I_i$ of each feature. The same matrix writes and reads: feature $i$ is read along the
# direction it was written. Everything is planted here: which features there are, how often, and what each is worth.
# Only $W$ and $b$ are learned.

# %% [markdown] exercise="4.1" role="task"
# ### Exercise 4.1 · The loss
#
# Write the loss for one batch. Rows of `x` are samples, so the hidden values of the batch are $x W^\top$.
#
# **Return** one number: the mean over the batch of the sum over features of importance times squared error.


# %% exercise="4.1" role="answer" minutes=10 difficulty=1 importance=3
def toy_loss(
    W: Float[Tensor, "hidden feature"],
    b: Float[Tensor, "feature"],
    x: Float[Tensor, "batch feature"],
    importance: Float[Tensor, "feature"],
) -> Float[Tensor, ""]:
    """Mean over the batch of the weighted squared error of ReLU(WᵀWx + b)."""
    ### BEGIN SOLUTION
    out = (x @ W.T @ W + b).relu()
    return (importance * (x - out) ** 2).sum(-1).mean()
    ### END SOLUTION


# %% exercise="4.1" role="check" points=2
checks.toy_loss(toy_loss)
### BEGIN HIDDEN TESTS
checks.toy_loss(toy_loss, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# One such model is tiny: ten weights. A loop over a hundred of them would spend its time in overhead. Put an axis in
# front of everything instead: `W[k]`, `b[k]` and the batch `x[k]` belong to *instance* $k$, and `x @ W.mT` multiplies
# all instances at once (`.mT` transposes the last two axes). The sum of all losses is a fine thing to call `backward`
# on: the gradient of instance $k$'s weights sees only its own loss, and Adam treats each number by itself.

# %% [markdown] exercise="4.2" role="task"
# ### Exercise 4.2 · Many models in one program
#
# Train one model for each entry of `sparsity`, all of them together, with `steps` steps of Adam on the sum of their
# losses. Draw a fresh batch of a few hundred samples at every step. Start `W` from random numbers with standard
# deviation $1/\sqrt{4m}$, and `b` from 0; a learning rate between 0.003 and 0.01 is right. (The minimum that a run
# falls into depends on its start. The check asks for the best of eight.)
#
# **Return** a pair `(W, b)`: `[instance hidden feature]` and `[instance feature]`.


# %% exercise="4.2" role="answer" minutes=25 difficulty=3 importance=3
def train_toys(
    sparsity: Float[Tensor, "instance"],
    n_features: int,
    n_hidden: int,
    importance: Float[Tensor, "feature"],
    steps: int = 1500,
) -> tuple[Float[Tensor, "instance hidden feature"], Float[Tensor, "instance feature"]]:
    """Weights and biases of one trained toy model for each sparsity."""
    ### BEGIN SOLUTION
    k, device = len(sparsity), sparsity.device
    W = (torch.randn(k, n_hidden, n_features, device=device) / (4 * n_hidden) ** 0.5).requires_grad_()
    b = torch.zeros(k, n_features, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([W, b], lr=0.005)
    for _ in range(steps):
        values, chance = torch.rand(2, k, 256, n_features, device=device)
        x = values * (chance >= sparsity[:, None, None])
        out = (x @ W.mT @ W + b[:, None]).relu()
        loss = (importance * (x - out) ** 2).sum(-1).mean(-1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return W.detach(), b.detach()
    ### END SOLUTION


# %% exercise="4.2" role="check" points=3
checks.train_toys(train_toys)
### BEGIN HIDDEN TESTS
checks.train_toys(train_toys, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The library's `superposition.train` does the same. Its instances may have any number of axes, so that one call trains
# a whole grid, and the learning rate falls to zero at the end. It returns the models with `W`, `b` and `loss`, the loss
# on fresh samples. The notebook goes on with the library's versions, so that it runs without your answers.

# %% [markdown]
# ## 2 What sparsity does
#
# The same five features at eight sparsities, ten starts each: eighty models in one call. Of each ten the best one:

# %%
sparsities = torch.tensor([0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98])
sweep = train(5, 2, sparsities.expand(10, 8), importance)
chosen = best(sweep)
plots.heatmap(
    chosen.W.norm(dim=1),
    ["0 (1.00)", "1 (0.90)", "2 (0.81)", "3 (0.73)", "4 (0.66)"],
    [f"S = {S:g}" for S in sparsities.tolist()],
    title="Length of each feature's column, best of ten starts",
    xlabel="feature (importance)",
    ylabel="sparsity",
    value="length",
    diverging=False,
    text=".2f",
    caption="At low sparsity only columns 0 and 1 are long; from 0.5 on four are; from 0.9 on all five.",
)

# %% role="result"
long = (chosen.W.norm(dim=1) > 0.7).sum(-1)
{"kept": long[[0, 3, 6, 7]].tolist()}  # S = 0, 0.7, 0.95, 0.98

# %% [markdown]
# A feature is mostly in or out (feature 2 at S = 0.3 is between). At S = 0.5 features 2 and 3 come in together, and
# feature 4 comes last. Two, four, five: so it is in the paper's first figure, for sparsities of 0, 0.8 and 0.9.
#
# "Best of ten" hides something. `superposition.geometry` names the figures that a model's features form, from $W^\top
# W$ alone ("2 in 1": two columns longer than 0.5 that share one dimension and form no regular figure). Train at three
# of the sparsities again, ten starts each, and the *same* starts with four times as many steps:


# %%
def figures(W: Float[Tensor, "hidden feature"]) -> str:
    """The names of the figures of one model."""
    return " + ".join(sorted(figure.name for figure in superposition.geometry(W)))


# %%
again = sparsities[[0, 3, 6]].expand(10, 3)
short, patient = (train(5, 2, again, importance, steps=steps) for steps in (1500, 6000))
for i, S in enumerate(again[0]):
    for steps, runs in {1500: short, 6000: patient}.items():
        counted = Counter(figures(W) for W in runs.W[:, i]).most_common(3)
        print(f"S = {S:g}, {steps} steps:", "; ".join(f"{count} × {name}" for name, count in counted))

# %%
same_figure = [figures(a) == figures(b) for a, b in zip(short.W[:, 1], patient.W[:, 1])]
shortest, later = (runs.W[:, 1].norm(dim=1).argmin(-1) for runs in (short, patient))
print("S = 0.7, the feature with the shortest column in each run:", shortest.tolist())
print(
    f"after 6000 steps the same figure: {sum(same_figure)} of 10; the same shortest: {(shortest == later).sum()} of 10"
)

# %% role="result"
{
    "always on: all runs keep two in the end": all(figures(W).count("dedicated") == 2 for W in patient.W[:, 0]),
    "the rarest: all runs are pentagons in the end": all(figures(W) == "pentagon" for W in patient.W[:, 2]),
    "between: no run changes": all(same_figure) and bool((shortest == later).all()),
}

# %% [markdown]
# A single run finds the best figure often, not always, and the name of the figure does not tell all: at S = 0.7 nine of
# ten runs have two pairs, but only four of the ten give up feature 4, the least important. Some runs are only slow: six
# thousand steps bring every run at S = 0 and 0.95 to the best figure. Others sit in a local minimum: at S = 0.7 not one
# of the ten changes its figure or the feature it gives up. The paper met the same in two dimensions ("fitting each
# model multiple times and taking the solution with the lowest loss"). Whenever you read that "the model represents five
# features", ask how many runs were made.

# %% [markdown]
# ## 3 How much of a dimension
#
# How do you see superposition when there is no plane to look at? Ask of each feature how much of a dimension it has to
# itself:
#
# $$D_i = \frac{|W_i|^2}{\sum_j (\hat W_i \cdot W_j)^2}, \qquad \hat W_i = W_i / |W_i| .$$
#
# The numerator says how far the feature is represented. The denominator counts who else is heard along its direction,
# the feature itself included. Alone: 1. One of an antipodal pair: 1/2. Not represented: 0.

# %% [markdown] exercise="4.3" role="task"
# ### Exercise 4.3 · Dimensionality
#
# Compute $D_i$ of every feature. A column of zeros has no direction: its dimensionality is 0 (not NaN).
#
# **Return** the dimensionalities, `[feature]`.


# %% exercise="4.3" role="answer" minutes=15 difficulty=2 importance=2
def feature_dimensionality(W: Float[Tensor, "hidden feature"]) -> Float[Tensor, "feature"]:
    """The share of a dimension that each feature has."""
    ### BEGIN SOLUTION
    gram = W.T @ W
    shared = (gram**2).sum(-1)
    return torch.where(shared > 0, gram.diagonal() ** 2 / shared.clamp_min(1e-30), torch.zeros_like(shared))
    ### END SOLUTION


# %% exercise="4.3" role="check" points=2
checks.feature_dimensionality(feature_dimensionality)
### BEGIN HIDDEN TESTS
checks.feature_dimensionality(feature_dimensionality, hidden=True)
### END HIDDEN TESTS

# %%
for S, W in zip(sparsities[[3, 6]], chosen.W[[3, 6]]):
    shares = superposition.dimensionality(W)
    print(f"S = {S:g}: {figures(W)}; D =", " ".join(f"{D:.2f}" for D in shares), f"; sum {shares.sum():.2f}")

# %% [markdown]
# Halves for the pairs, two fifths for the pentagon. Both sum to 2, the number of dimensions. Is that a law? Try it on
# matrices that nobody trained:

# %%
noise = torch.randn(1000, 5, 20, generator=torch.Generator().manual_seed(0))
sums = superposition.dimensionality(noise).sum(-1)
print(f"1000 random matrices, 20 columns in 5 dimensions: sums from {sums.min():.2f} to {sums.max():.2f}")
assert sums.max() < 5

# %% [markdown]
# The sum never exceeds the number of dimensions. It is a **budget**, and random columns waste a part of it. Who wastes
# none? (Matrices each of whose columns is an eigenvector of $W W^\top$.)
#
# <details><summary>A proof in three lines</summary>
#
# Let $M = W W^\top$ (here invertible). The denominator is $\hat W_i^\top M \hat W_i$, so $D_i = |W_i|^4 / (W_i^\top M
# W_i)$. By Cauchy-Schwarz $|W_i|^4 = (W_i^\top M^{1/2} M^{-1/2} W_i)^2 \le (W_i^\top M W_i)(W_i^\top M^{-1} W_i)$.
# Hence $\sum_i D_i \le \sum_i W_i^\top M^{-1} W_i = \mathrm{tr}(M^{-1} M) = m$, with equality exactly when every column
# (but for zeros) is an eigenvector of $M$.
#
# </details>
#
# Now the question of this chapter: **20 features in 5 dimensions**, all of importance 1, at falling probabilities $p$
# of being on. Each row of the figure is one model, its 20 dimensionalities sorted.

# %%
one_in = torch.tensor([1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 64, 100])
twenty = train(20, 5, 1 - 1 / one_in)
shares, n_kept = superposition.dimensionality(twenty.W), (twenty.W.norm(dim=1) > 0.7).sum(-1)

# %%
plots.heatmap(
    shares.sort(descending=True).values,
    None,
    [f"1/{k:g} ({n})" for k, n in zip(one_in.tolist(), n_kept.tolist())],
    title="Twenty features in five dimensions",
    xlabel="feature (sorted)",
    ylabel="p: on with probability (features kept)",
    value="dimensionality D",
    diverging=False,
    caption="Each row falls from left to right. At p = 1 the values are uneven; near p = 1/3 ten features have a half "
    "each and ten have nothing. From p = 1/4 to 1/10 the numbers kept are 12, 15, 15, 16, 16 and 18, with a mean "
    "share from 0.42 down to 0.28; from p = 1/12 down all twenty have about one quarter.",
)

# %% role="result"
assert (shares.sum(-1) - 5).abs().max() < 0.1 and (shares[-6:] - 0.25).abs().max() < 0.06
names = Counter(figure.name for figure in superposition.geometry(twenty.W[4]))
{"p = 1/3": dict(names), "kept at p = 1/24 and below": n_kept[-4:].tolist()}

# %%
left = twenty.loss / (20 * (1 / (3 * one_in) - 1 / (4 * one_in**2)))
for k in (4, 24, 100):
    print(f"p = 1/{k}: the loss is {left[one_in == k].item():.0%} of the variance (five features exactly: 75%)")

# %%
for k, W in zip(one_in[5:11], twenty.W[5:11]):
    print(f"p = 1/{k:g}: {figures(W)}")
assert all(figures(W).endswith("in 5") for W in twenty.W[7:])

# %% [markdown]
# That is the answer: twenty things fit into five dimensions if each occurs rarely ($p = 1/12$ in this run, 1/24 in all
# five that we made), and then each has a quarter of a dimension. The rarer they are, the smaller the part of the
# variance that is lost, far below the 75% of a model that keeps five and gives up fifteen. The budget is spent in every
# row. Around $p = 1/3$ there is a plateau: five antipodal pairs, ten features in, ten out.
#
# Do not trust the top row: where all features are always on and count the same, every five-dimensional subspace is as
# good as any other.
#
# In the paper (400 features in 30 dimensions) the $D_i$ cluster at more values: 3/4 (tetrahedra), 2/3 (triangles), 1/2,
# 2/5 (pentagons) and 3/8 (square antiprisms), all of them figures of at most three dimensions. With five dimensions in
# all, we see the pairs in every run, and pentagons at $p = 1/4$ in most; from $p = 1/6$ down one figure takes up all
# five dimensions in every run (at 1/5 in most). Near $p = 1/7$ it is a special one. Look at the cosines between its
# columns:

# %%
seventh = best(train(20, 5, torch.full((4,), 6 / 7)))
lengths = seventh.W.norm(dim=0)
columns = seventh.W[:, lengths > 0.7]
unit = columns / columns.norm(dim=0)
cosines = (unit.T @ unit)[~torch.eye(columns.shape[1], dtype=torch.bool)]
counted = Counter(f"{value:.1f}" for value in cosines.tolist())
print("columns:", columns.shape[1], "| cosines and how often they occur:", dict(counted))

# %%
each = superposition.dimensionality(columns)
dropped = lengths[lengths <= 0.7]
print(
    f"{len(each)} kept, D from {each.min():.3f} to {each.max():.3f}; {len(dropped)} others, longest {dropped.max():.3f}"
)
assert (each - 5 / 16).abs().max() < 0.02 and dropped.max() < 0.05

# %% [markdown]
# Sixteen features, and only two angles: cosine 1/5 with ten others, −3/5 with five. You can write this figure down.
# Take all corners of a cube in five dimensions, the 32 vectors of $\pm 1$, and of these every other one: those with an
# even number of minus signs.

# %%
corners = torch.cartesian_prod(*[torch.tensor([1.0, -1.0])] * 5)
half_cube = corners[corners.prod(-1) > 0].T / math.sqrt(5)  # [5, 16]
planted = (half_cube.T @ half_cube)[~torch.eye(16, dtype=torch.bool)]
print(f"D of each corner of the half cube: {superposition.dimensionality(half_cube)[0]:.4f}, 5/16 = {5 / 16:.4f}")

# %% role="result"
{"the same angles": len(cosines) == 240 and bool((cosines.sort().values - planted.sort().values).abs().max() < 0.2)}

# %% [markdown]
# A network that was asked for nothing but a small error has built half a cube (as the best of four starts, on each of
# five seeds). Each of the sixteen features has 5/16 of a dimension; four are given up. So at $p = 1/7$ five dimensions
# keep sixteen things; twenty must be rarer.

# %% [markdown]
# ## 4 A phase diagram
#
# When is superposition worth it? Take the smallest case: two features, one dimension, importances 1 and $I$. Three
# solutions suggest themselves:
#
# 1. **first feature alone**: it is given back exactly, and the second is answered by its mean (that is the bias);
# 2. **second feature alone**: the other way round;
# 3. **antipodal pair**: $W = (1, -1)$, $b = 0$. The first feature is positive in $h$, the second negative, and the ReLU
#    of each output throws the other's sign away.
#
# All three losses are short formulas in $p = 1 - S$ and $I$. You need $\mathbb{E}[x] = p/2$, $\mathbb{E}[x^2] = p/3$,
# and for two independent values, uniform between 0 and 1, that the mean of the square of the *smaller* one is 1/6.

# %% [markdown] exercise="4.4" role="task"
# ### Exercise 4.4 · Three losses
#
# `sparsity` and `importance` (of the second feature) have the same shape. Give the expected loss of the three
# solutions. For the pair, ask what the outputs are when one feature is on, and when both are.
#
# **Return** the losses `[*grid 3]`, in the order above.


# %% exercise="4.4" role="answer" minutes=20 difficulty=2 importance=2
def phase_losses(sparsity: Float[Tensor, "*grid"], importance: Float[Tensor, "*grid"]) -> Float[Tensor, "*grid 3"]:
    """Expected losses of: first feature alone, second feature alone, antipodal pair."""
    ### BEGIN SOLUTION
    p = 1 - sparsity
    variance = p / 3 - p**2 / 4
    both_on = p**2 / 6  # each errs by the smaller of the two values
    return torch.stack([importance * variance, variance, (1 + importance) * both_on], dim=-1)
    ### END SOLUTION


# %% exercise="4.4" role="check" points=2
checks.phase_losses(phase_losses)
### BEGIN HIDDEN TESTS
checks.phase_losses(phase_losses, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The smallest of the three says which solution *should* win. Which one *does*, a hundred trained models tell: ten
# probabilities times ten importances, ten starts each, a thousand models in one call.

# %%
p = torch.logspace(0, -2, 10).clamp(max=0.999)
second = torch.logspace(1, -1, 10)
weights = torch.stack([torch.ones(10), second], dim=-1)  # [row, feature]
grid = train(2, 1, (1 - p).expand(10, 10, 10), weights[:, None], steps=800, batch_size=64)
predicted = superposition.phase_losses(1 - p, second[:, None]).argmin(-1)

# %%
w = best(grid).W[..., 0, :]  # [importance, probability, feature]
is_kept = w.abs() > 0.5
found = torch.where(is_kept.all(-1), torch.where(w.prod(-1) < 0, 2, 3), torch.where(is_kept[..., 1], 1, 0))
symbols = [["1", "2", "±", "?"][phase] for phase in torch.stack([predicted, found]).flatten().tolist()]

# %%
figure = plots.heatmap(
    torch.stack([predicted, found]),
    [f"{value:.1g}" for value in p],
    [f"{value:.2g}" for value in second],
    title="Two features in one dimension: first alone (1), second alone (2), pair (±)",
    xlabel="p: on with probability",
    ylabel="importance of the second",
    diverging=False,
    zmax=3,
    text=[[symbols[100 * i + 10 * j : 100 * i + 10 * j + 10] for j in range(10)] for i in range(2)],
    facets=["closed form", "trained, best of ten"],
    caption="Both panels alike: the pair fills the right, second alone the upper left, first alone the lower left; the "
    "pair reaches furthest to the left where the importances are equal.",
)
figure.update_traces(showscale=False)

# %% role="result"
{"closed form and training agree on at least 94 of 100 points": bool((found == predicted).sum() >= 94)}

# %%
print(f"closed form and training agree on {(found == predicted).sum()} of 100 points")
for row in (2, 5):
    smaller = " ".join(f"{value:.2f}" for value in w[row].abs().amin(-1))
    print(f"importance {second[row]:.2g}, the smaller |w| from p = 1 to p = 0.01: {smaller}")

# %% [markdown]
# Here the panels agree on all 100 points; for other seeds two or three differ, along the borders, where two losses
# nearly tie. Superposition needs rare features, and it is easiest between *equals*: a feature that matters ten times as
# much keeps the dimension for itself longer. At a border two solutions have the same loss, and the best $W$ jumps: a
# **phase change**, in the words of the paper. The smaller of the two weights goes from nearly 0 to nearly 1 within a
# step of the grid where importances differ; where they are nearly equal the change is not so sharp. (The paper's
# diagram is the average of ten runs without the worst; ours shows the best of ten.)
#
# Why ten starts? A pair needs two weights of opposite sign, and half of all starts give both the same sign. How many of
# these get out?

# %%
rare_pairs = grid.W[:, :, -1, 0]  # p = 0.01, every importance: [start, importance, feature]
share = (rare_pairs.prod(-1) < -0.25).float().mean()
print(f"p = 0.01: {share:.0%} of single runs end in the pair, which is the best solution at every importance here")
no_pair = rare_pairs[rare_pairs.prod(-1) >= -0.25]
dead = (no_pair.abs().amin(-1) < 0.1).float().mean()
print(f"of the {len(no_pair)} others {dead:.0%} have a weight below 0.1")
assert (predicted[:, -1] == 2).all() and 0.25 < share < 0.75 and dead > 0.5

# %%
start = train(2, 1, (1 - p).expand(10, 10, 10), weights[:, None], steps=1, lr=1e-9).W[..., 0, :]  # hardly a step
same_sign, is_pair = start.prod(-1) > 0, grid.W[..., 0, :].prod(-1) < -0.25
for j in (5, 6, 9):
    n, escaped = same_sign[..., j].sum(), (same_sign & is_pair)[..., j].sum()
    print(f"p = {p[j]:.2g}: of {n} starts with two weights of the same sign {escaped} end in the pair")

# %% [markdown]
# At p = 0.01 a start with two weights of the same sign almost never ends in the pair: in most runs without a pair one
# of the two weights dies. At p = 0.05 to 0.08 four in ten escape.

# %% [markdown]
# ## 5 Interference
#
# What does it cost to share? Take a regular pentagon, and switch on feature 0 alone, with value 1. The read-out of
# feature $j$ is $W_j \cdot W_0$, the cosine of the angle between them. Beside it a trained pentagon: five features of
# equal importance in two dimensions, trained at eight probabilities $p$, of which this is $p = 0.05$.

# %%
often = torch.tensor([1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02])
relu = best(train(5, 2, (1 - often).expand(8, 8)))

# %%
angles = 2 * math.pi * torch.arange(5) / 5
pentagon = torch.stack([angles.cos(), angles.sin()])
read_out = relu.W[-2].T @ relu.W[-2][:, 0]
answer = (read_out + relu.b[-2]).relu()
order = read_out.argsort(descending=True)  # itself, the neighbours, then the far ones

# %%
plots.bars(
    {
        "regular pentagon, read-out": (pentagon.T @ pentagon[:, 0]).sort(descending=True).values,
        "trained, read-out": read_out[order],
        "trained, after bias and ReLU": answer[order],
    },
    ["itself", "neighbour", "neighbour", "far", "far"],
    title="What is read when feature 0 alone is on, with value 1",
    xlabel="feature",
    ylabel="read-out",
    caption="Itself: 1 in the regular pentagon, 1.3 trained, 1.05 after bias and ReLU. Neighbours: 0.31, 0.40, 0.15. "
    "Far ones: -0.81, -1.05, 0.",
)

# %%
print(f"cos 72° = {math.cos(math.radians(72)):.3f}, cos 144° = {math.cos(math.radians(144)):.3f}")
print("trained, read-out:", " ".join(f"{value:.2f}" for value in read_out[order]))
print("after bias and ReLU:", " ".join(f"{value:.2f}" for value in answer[order]))
length, bias = relu.W[-2].norm(dim=0).mean(), relu.b[-2].mean()
print(f"trained: length of the columns {length:.2f}, bias {bias:.2f} (means)")
print(f"a lone 1 is answered by {length**2 + bias:.2f}; values below {-bias / length**2:.2f} by 0")
assert figures(relu.W[-2]) == "pentagon" and length > 1.05 and -0.35 < bias < -0.1 and (answer[order[3:]] == 0).all()

# %% [markdown]
# Two neighbours at 72° hear 0.31 of it, two features at 144° hear −0.81. The ReLU takes care of the negative ones:
# below zero is zero, and that is what a feature that is off should answer. So **negative interference is free** as long
# as the others are off. Against the positive part the trained model has set its bias below zero, which cuts off more
# than half of what the neighbours hear, and has made its columns longer than 1, which makes up for it: a lone 1 is
# answered by a little more than 1, but small values are lost.
#
# How much interference is there on average? The read-out of feature $i$ is $|W_i|^2 x_i$ plus what the others add,
# $\sum_{j \neq i} (W_i \cdot W_j)\, x_j$.

# %% [markdown] exercise="4.5" role="task"
# ### Exercise 4.5 · Expected interference
#
# Compute for each feature the expected *square* of what the others add, in closed form, for independent features with
# $\mathbb{E}[x] = p/2$, $\mathbb{E}[x^2] = p/3$. (The square of a sum has cross terms, and the means are not 0.)
# Columns may have any length. For the regular pentagon you should get $p/2 - p^2/8$.
#
# **Return** the expectations, `[feature]`.


# %% exercise="4.5" role="answer" minutes=20 difficulty=2 importance=3
def expected_interference(W: Float[Tensor, "hidden feature"], sparsity: float) -> Float[Tensor, "feature"]:
    """Expected square of what the other features add to each feature's read-out."""
    ### BEGIN SOLUTION
    p = 1 - sparsity
    gram = W.T @ W
    between = gram - torch.diag(gram.diagonal())
    mean = between.sum(-1) * p / 2
    return (between**2).sum(-1) * (p / 3 - p**2 / 4) + mean**2
    ### END SOLUTION


# %% exercise="4.5" role="check" points=3
checks.expected_interference(expected_interference)
### BEGIN HIDDEN TESTS
checks.expected_interference(expected_interference, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Now weigh it. All losses below are per feature and divided by $p$, so that they count per *occurrence* of a feature.
#
# - Two dedicated dimensions: three of five features are answered by their mean, at $1/3 - p/4$ each.
# - The regular pentagon *with columns of length 1*, read linearly: interference alone costs $1/2 - p/8$, which is the
#   formula of 4.5 divided by $p$.
# - The same pentagon *shrunk* to columns of length $\sqrt{2/5}$, read linearly with a bias. Then $W^\top W$ is a
#   projection onto a plane.
# - The trained models with ReLU and bias: whatever the best of eight starts found.

# %%
for chance in (0.5, 0.1):
    x = superposition.sparse_features(1_000_000, 5, 1 - chance, generator=torch.Generator().manual_seed(0))
    heard = x @ superposition.interference(pentagon).T / math.sqrt(chance)
    print(f"p = {chance}: length 1, measured {heard.pow(2).mean():.3f}, 1/2 - p/8 = {1 / 2 - chance / 8:.3f}")
    lost = (x - chance / 2 - x @ (0.4 * pentagon.T @ pentagon)) / math.sqrt(chance)
    print(f"  shrunk, measured {lost.pow(2).mean():.3f}; two dedicated dimensions {0.6 * (1 / 3 - chance / 4):.3f}")
    assert abs(lost.pow(2).mean() - 0.6 * (1 / 3 - chance / 4)) < 0.004

# %%
plots.lines(
    {
        "two dedicated dimensions": 0.6 * (1 / 3 - often / 4),
        "pentagon of length 1, read linearly": 1 / 2 - often / 8,
        "trained, ReLU and bias": relu.loss / 5 / often,
    },
    [f"{value:g}" for value in often.tolist()],
    title="What a feature costs each time that it occurs",
    xlabel="p: on with probability",
    ylabel="expected squared error / p",
    caption="The pentagon of unit length, read linearly, is the most expensive everywhere, 0.38 to 0.5. Two dedicated "
    "dimensions rise from 0.05 to 0.2. The trained model is equal to these at p = 1, rises to 0.10 at p = 0.5 and "
    "falls to 0.02 for rare features.",
)

# %% role="result"
cost = relu.loss / 5 / often
assert (cost < 0.6 * (1 / 3 - often / 4) * 1.1).all() and cost[-1] < 0.04
{
    "linear, length 1: never pays": bool((1 / 2 - often / 8 > 0.6 * (1 / 3 - often / 4)).all()),
    "the rarest": figures(relu.W[-1]),
}

# %%
x = superposition.sparse_features(200_000, 5, 1 - often[-3:], generator=torch.Generator().manual_seed(0))
errors = ((x @ relu.W[-3:].mT @ relu.W[-3:] + relu.b[-3:, None]).relu() - x).pow(2).sum(-1)  # [p, sample]
for chance, error, n_on in zip(often[-3:], errors, (x > 0).sum(-1)):
    lone, several = error[n_on == 1], error[n_on > 1]
    each = f"a lone feature costs {lone.mean():.3f}, two or more {several.mean():.3f}"
    print(f"p = {chance:g}: {each}; lone features are {lone.sum() / error.sum():.0%} of the loss")

# %% [markdown]
# Without the nonlinearity the pentagon with columns of length 1 costs more than two dedicated dimensions at every
# sparsity. The best a linear reader can do is to shrink it, and then it costs just as much as they do, at every $p$: a
# draw, never a gain. Rare features make interference rare, but they make the benefit rare in the same measure, and $p$
# cancels. With the ReLU a lone feature costs little (in a pentagon; in an antipodal pair nothing). The large errors
# need two features on at once, with a probability of the order of $p^2$, so that per occurrence they fade away. So it
# takes both: **sparsity makes collisions rare, the nonlinearity makes everything but collisions cheap**.

# %% [markdown]
# ## 6 Features that go together
#
# So far features came and went independently. Real ones do not: "has wheels" goes with "has doors", a text is in French
# or in German. Two extreme cases, in pairs: **correlated** features are on or off together (with independent values);
# **anti-correlated** ones are never on together.

# %% [markdown] exercise="4.6" role="task"
# ### Exercise 4.6 · Pairs
#
# Draw a batch in which columns $2i$ and $2i+1$ are a pair and different pairs are independent. A pair is on with
# probability `1 - sparsity`. If `together`, both of its features are then on, with independent values; else exactly one
# of them is, each with probability 1/2. Values are uniform between 0 and 1. All randomness comes from `generator`.
#
# **Return** the batch, `[batch, 2 * n_pairs]`.


# %% exercise="4.6" role="answer" minutes=15 difficulty=2 importance=2
def paired_batch(
    batch: int, n_pairs: int, sparsity: float, together: bool, generator: torch.Generator
) -> Float[Tensor, "batch feature"]:
    """Sparse features in pairs that are on together, or never together."""
    ### BEGIN SOLUTION
    on = (torch.rand(batch, n_pairs, 1, generator=generator) >= sparsity).expand(-1, -1, 2)
    if not together:
        first = torch.rand(batch, n_pairs, 1, generator=generator) < 0.5
        on = on & torch.cat([first, ~first], dim=-1)
    return (torch.rand(batch, n_pairs, 2, generator=generator) * on).flatten(1)
    ### END SOLUTION


# %% exercise="4.6" role="check" points=2
checks.paired_batch(paired_batch)
### BEGIN HIDDEN TESTS
checks.paired_batch(paired_batch, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# In the library such sets are named by their features: `FeatureSets(anticorrelated=[(0, 1), (2, 3)])`. Two pairs are to
# be kept in two dimensions. (A pair is on with probability $1 - S$. So at the same $S$ a feature of a never-together
# pair is on half as often as one of a together pair.)
#
# **Predict first.** Features 0 and 1 never occur together, nor do 2 and 3. How will the two features of a pair lie to
# each other?
#
# - (a) at a right angle
# - (b) antipodal, in opposite directions
# - (c) on top of each other, in the same direction

# %% exercise="4.B" role="predict"
guess_anticorrelated = None  # "a", "b" or "c"
### BEGIN SOLUTION
guess_anticorrelated = "c"  # a guess, and a wrong one: that is fine
### END SOLUTION

# %%
pairs = [(0, 1), (2, 3)]
cases = {
    "never together, S = 0.9": (FeatureSets(anticorrelated=pairs), 0.9),
    "together, S = 0.9": (FeatureSets(correlated=pairs), 0.9),
    "together, S = 0.7": (FeatureSets(correlated=pairs), 0.7),
}
runs = {name: train(4, 2, torch.full((20,), S), sets=sets, steps=1000) for name, (sets, S) in cases.items()}

# %%
plots.directions(
    torch.stack([best(run).W for run in runs.values()]),
    title="Two pairs of features in two dimensions, best of twenty starts",
    facets=list(cases),
    names=["0", "1", "2", "3"],
    groups=[0, 0, 1, 1],
    caption="Left: the two features of a pair point in opposite directions, the pairs are at a right angle. Middle: "
    "the two features of a pair are at a right angle, antipodal to one of the other pair. Right: the two features of "
    "a pair point in the same direction, with length 0.7.",
)


# %%
def own_cosines(W: Float[Tensor, "*start hidden feature"]) -> Float[Tensor, "*start pair"]:
    """Cosine between the two features of each pair."""
    unit = W / W.norm(dim=-2, keepdim=True)
    return (unit[..., 0::2] * unit[..., 1::2]).sum(-2)


never, together, often_together = (own_cosines(best(run).W) for run in runs.values())
assert (never < -0.99).all() and together.abs().max() < 0.15 and (often_together > 0.95).all()
checks.prediction(
    guess_anticorrelated,
    {"a": "at a right angle", "b": "antipodal", "c": "on top of each other"},
    outcome="b",
    because=f"Cosines {never[0]:.2f} and {never[1]:.2f}; the loss is {runs['never together, S = 0.9'].loss.min():.5f}.",
)

# %% [markdown]
# **Never together: antipodal**, and there is nothing to pay. The pair errs only when both are on, so two such features
# fit into one dimension *exactly*: the loss is zero. On top of each other the model could not tell which of the two it
# has read.
#
# **Together: at a right angle.** The features that are likely to meet are kept from disturbing each other; each shares
# its dimension with a feature of the *other* pair.
#
# **Together, and not so rare: merged.** Each pair on the right has one direction, of length $1/\sqrt{2}$: the model
# stores their *sum*, the pair's first principal component, and gives up the difference. The two arrows are one feature
# now. (The paper calls it collapse.)
#
# All this is about the best of twenty. A single run pairs features up as its start has it:

# %%
single = own_cosines(runs["never together, S = 0.9"].W).mean(-1)
losses = runs["never together, S = 0.9"].loss
print(f"never together: {(single < -0.9).sum()} of 20 runs found the best figure")
print(f"losses from {losses.min():.4f} to {losses.max():.4f}")
assert 1 <= (single < -0.9).sum() <= 15

# %% [markdown]
# There are three ways to make two antipodal pairs of four features, and about a third of the runs found this one. So
# *which features share a direction* tells you something about the data only where training was free to choose.

# %% [markdown]
# ## 7 Control: no ReLU
#
# Is all this a property of narrow networks, or of the ReLU? Take it away: $x' = W^\top W x + b$, squared error. This
# model can be solved exactly. For a given $W$ the best bias makes the mean come out right. The rest is the question
# which $m$ dimensions lose least when everything else is thrown away, and that is answered by **principal components**:
# the eigenvectors of the covariance with the largest eigenvalues.

# %% [markdown] exercise="4.7" role="task"
# ### Exercise 4.7 · The linear optimum
#
# Find the $W$ with orthonormal rows, and the $b$, that minimise the mean over the rows of `x` of the squared error of
# $W^\top W x + b$. (All importances are 1.) Write down what $b$ must be for the output's mean to be the mean of `x`.
#
# **Return** a pair `(W, b)`: `[hidden feature]` and `[feature]`.


# %% exercise="4.7" role="answer" minutes=15 difficulty=2 importance=2
def linear_optimum(
    x: Float[Tensor, "batch feature"], n_hidden: int
) -> tuple[Float[Tensor, "hidden feature"], Float[Tensor, "feature"]]:
    """Weights and bias of the best linear model without ReLU."""
    ### BEGIN SOLUTION
    mean = x.mean(0)
    W = torch.linalg.svd(x - mean, full_matrices=False).Vh[:n_hidden]
    return W, mean - W.T @ (W @ mean)
    ### END SOLUTION


# %% exercise="4.7" role="check" points=2
checks.linear_optimum(linear_optimum)
### BEGIN HIDDEN TESTS
checks.linear_optimum(linear_optimum, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Independent features of equal variance and importance have no unique optimum: every subspace is as good as any other.
# Importances break the tie, so the figure has them ($0.7^i$, further apart than before). Then the linear model keeps
# the $m$ most valuable features, each in a dimension of its own, and nothing else, at *every* sparsity, and its loss is
# the weighted variance of those it gave up. Trained models, beside the same with a ReLU:

# %%
apart, three = 0.7 ** torch.arange(5.0), torch.tensor([0.0, 0.7, 0.95])
linear = best(train(5, 2, three.expand(5, 3), apart, linear=True))
with_relu = best(train(5, 2, three.expand(5, 3), apart))

# %%
plots.heatmap(
    torch.stack([linear.W.norm(dim=1), with_relu.W.norm(dim=1)]),
    None,
    ["S = 0", "S = 0.7", "S = 0.95"],
    title="Length of each feature's column, without and with the ReLU",
    xlabel="feature",
    ylabel="sparsity",
    value="length",
    diverging=False,
    text=".2f",
    facets=["linear", "ReLU"],
    caption="Linear: features 0 and 1 have length 1 in all rows, the others 0. ReLU: the same at S = 0, but four "
    "features at 0.7 and at least four at 0.95.",
)

# %% role="result"
p_three = 1 - three
given_up = (p_three / 3 - p_three**2 / 4) * apart[2:].sum()
assert (linear.loss / given_up - 1).abs().max() < 0.15
{
    "linear keeps": [(W.norm(dim=0) > 0.7).nonzero()[:, 0].tolist() for W in linear.W],
    "ReLU keeps more when sparse": bool(((with_relu.W[1:].norm(dim=1) > 0.7).sum(-1) >= 4).all()),
}

# %% [markdown]
# The linear model does not care about sparsity at all. And the ReLU model on dense features behaves like it: top left
# and top right are the same. Superposition needs both, sparse features *and* a nonlinearity.
#
# A consequence: principal components cannot find features in superposition. There are at most $m$ of them, and at right
# angles. (Chapter 05 looks for a method that can.)

# %% [markdown]
# ## 8 Not every feature is a direction
#
# Everything so far rests on an assumption, the **linear representation hypothesis** (see Park et al., 2023): a feature
# is a *direction*, and how far an activation reaches along it says how strongly the feature is on. Now meet a feature
# that is not: the hour, 0 to 11. After 11 comes 0 again, so a natural place for it is a **circle**, in a plane.
#
# Plant one. Rows are activations of 16 numbers: a circle in a random plane, three ordinary sparse features, each along
# its own direction and on a scale at which it varies more than the circle, some noise, and a constant.

# %%
dice = torch.Generator().manual_seed(0)
axes = torch.linalg.qr(torch.randn(16, 16, generator=dice))[0]
hour = torch.randint(12, (3000,), generator=dice)
turn = 2 * math.pi * hour / 12
circle = torch.stack([turn.cos(), turn.sin()], dim=-1) @ axes[:2]
others = superposition.sparse_features(3000, 3, 0.7, generator=dice) @ (4 * axes[2:5])
activations = circle + others + 0.12 * torch.randn(3000, 16, generator=dice) + axes[5]
variances = (activations @ axes[:5].T).var(0)
print("variance along the circle's two axes and the three features:", " ".join(f"{v:.2f}" for v in variances))
assert variances[2:].min() > 1.5 * variances[:2].max()

# %% [markdown] exercise="4.8" role="task"
# ### Exercise 4.8 · The plane of a circle
#
# `x` holds activations with a circular feature, whose `value` runs from 0 to `period - 1`; where its plane is you do
# not know. Other things in `x` may vary far more than the circle does. But they have nothing to do with the value, so
# they average out in the **class means**: the mean of the rows of each value. Find the plane in which these lie
# (nearly). The plane must come from the class means alone, not from the order of the values. Every class counts once,
# however many rows it has; the centre is the mean of the class means. Then give the angle of each row, about the
# centre, in the plane (`torch.atan2`, in radians).
#
# **Return** a pair `(plane, angle)`: two orthonormal rows `[2 d_model]`, and `[n]`. Any rotation of the two rows is
# right.


# %% exercise="4.8" role="answer" minutes=20 difficulty=2 importance=2
def best_plane(
    x: Float[Tensor, "n d_model"], value: Int[Tensor, "n"], period: int
) -> tuple[Float[Tensor, "2 d_model"], Float[Tensor, "n"]]:
    """The plane of a circular feature, and each row's angle in it."""
    ### BEGIN SOLUTION
    means = torch.stack([x[value == t].mean(0) for t in range(period)])
    centre = means.mean(0)
    plane = torch.linalg.svd(means - centre, full_matrices=False).Vh[:2]
    across, up = ((x - centre) @ plane.T).T
    return plane, torch.atan2(up, across)
    ### END SOLUTION


# %% exercise="4.8" role="check" points=2
checks.best_plane(best_plane)
### BEGIN HIDDEN TESTS
checks.best_plane(best_plane, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Can a *line* read the hour? Two attempts, beside the plane of the class means:
#
# - the best of 180 directions in that plane: take an activation's position along the line, and guess the hour whose
#   mean lies nearest to it;
# - linear regression: least squares from all 16 numbers to the hour, rounded;
# - the plane: guess the hour whose mean lies nearest, in two dimensions.


# %%
def nearest_hour(seen: Float[Tensor, "n k"]) -> float:
    """Share of rows whose nearest class mean is their own."""
    means = torch.stack([seen[hour == t].mean(0) for t in range(12)])
    return (torch.cdist(seen, means).argmin(-1) == hour).float().mean().item()


def best_line(seen: Float[Tensor, "n 2"]) -> float:
    """Accuracy along the best of 180 lines in the plane."""
    slopes = torch.linspace(0, math.pi, 181)[:-1]
    return max(nearest_hour(seen @ torch.tensor([[a.cos()], [a.sin()]])) for a in slopes)


# %%
hour_means = torch.stack([activations[hour == t].mean(0) for t in range(12)])
plane = torch.linalg.svd(hour_means - hour_means.mean(0)).Vh[:2]
overlap = torch.linalg.svdvals(plane @ axes[:2].T)
print("the plane found and the planted one, cosines:", " ".join(f"{value:.3f}" for value in overlap))
assert overlap.min() > 0.98

# %%
in_plane = activations @ plane.T
with_one = torch.cat([activations, torch.ones(3000, 1)], dim=1)
fitted = (with_one @ torch.linalg.lstsq(with_one, hour[:, None].float()).solution)[:, 0]
rounded = (fitted.round() == hour).float().mean().item()
plots.bars(
    [best_line(in_plane), rounded, nearest_hour(in_plane)],
    ["best of 180 lines", "linear regression", "plane"],
    title="Reading the hour",
    xlabel="read along",
    ylabel="accuracy (chance 0.08)",
    caption="The best line has about 0.5, linear regression about 0.2, the plane more than 0.9.",
)

# %%
for noise in (0.12, 0.01):
    seen = torch.stack([turn.cos(), turn.sin()], dim=-1) + noise * torch.randn(3000, 2, generator=dice)
    print(f"the circle alone, noise {noise}: best line {best_line(seen):.2f}, plane {nearest_hour(seen):.2f}")
assert best_line(seen) > 0.98 and best_line(in_plane) < 0.7 and nearest_hour(in_plane) > 0.9

# %% [markdown]
# On a line twelve hours have twelve positions, but in close couples, one hour from each half of the circle. Eleven gaps
# on a length of 2 are 0.18 on average, and noise of 0.12 mixes the couples up; in the plane neighbours are 0.52 apart.
# With hardly any noise a line tells twelve hours apart too (not in their order, and with less room the more hours there
# are; of a *continuous* angle every inner position of a line belongs to two values).

# %%
explained = 1 - (fitted - hour).var() / hour.float().var()
ceiling = 6 / (143 * math.sin(math.pi / 12) ** 2)
print(f"R² of the linear regression: {explained:.3f}; the most that any direction of a circle allows: {ceiling:.3f}")
assert abs(explained - ceiling) < 0.03

# %% [markdown]
# Linear regression does worse: the hour jumps from 11 to 0, and no weighted sum of cosine and sine does that. It
# explains *at most* $6 / ((P^2 - 1) \sin^2(\pi/P))$ of the variance, 63% for $P = 12$, however small the noise, and
# that looks like a decent probe. (A ceiling of this kind is worth remembering when a probe is "quite good".)
#
# <details><summary>Where the ceiling comes from</summary>
#
# Regress the hour $t$ on cosine and sine. Over a uniform hour they are uncorrelated, with variance 1/2 each, so $R^2 =
# 2\,|\mathrm{cov}(t, \omega^t)|^2 / \mathrm{var}(t)$ with $\omega = e^{2\pi i/P}$. Here $\mathrm{var}(t) = (P^2 -
# 1)/12$, and $\frac{1}{P} \sum_t t\,\omega^t = 1/(\omega - 1)$, of which the squared size is $1/(4 \sin^2(\pi/P))$.
#
# </details>
#
# Mind what has failed: one direction, not linear probing. To guess the nearest mean $\mu_t$ is to guess the largest of
# the twelve numbers $\mu_t \cdot x - |\mu_t|^2 / 2$, and that is a linear *classifier*: its twelve directions span the
# plane.

# %% [markdown]
# This is not only a thought experiment. Engels et al. (2024) searched GPT-2 and Mistral 7B with sparse autoencoders and
# found circles for the days of the week and the months of the year. By interventions on Mistral 7B and Llama 3 8B they
# argue that these circles are what the models calculate with when they count days and months. What fails is the idea
# that *one feature is one direction*. Whether "linear" should mean "along one direction" or "a sum of vectors" is under
# discussion (Olah, 2024).

# %% [markdown]
# ## How this can fool you
#
# ### Many features in a neuron
#
# A **polysemantic** neuron answers to several unrelated features. Superposition makes such neurons: with more features
# than neurons it cannot be otherwise. Does a polysemantic neuron prove superposition? Give a model as many dimensions
# as features, five and five, and look at its hidden units.

# %%
roomy = best(train(5, 5, torch.full((4,), 0.8), steps=1000))
units = [f"unit {i}" for i in range(6)]
plots.heatmap(
    roomy.W,
    None,
    units[:5],
    title="Five features in five dimensions: the weights W",
    xlabel="feature",
    ylabel="hidden unit",
    value="weight",
    text=".2f",
    caption="Every hidden unit has sizeable weights, of both signs, on most of the features.",
)

# %%
D = superposition.dimensionality(roomy.W)
per_unit = (roomy.W.abs() > 0.25).sum(-1)
print("D:", " ".join(f"{value:.2f}" for value in D), "| features per unit:", per_unit.tolist())
assert (D > 0.97).all() and per_unit.float().mean() > 2

# %% [markdown]
# Each unit answers to several features, and there is **no superposition at all**: every $D_i$ is 1, the columns are at
# right angles. The features have directions of their own; the units just do not point along them. Nothing asks them to.
# Turn $h$ by any rotation $R$ and $(RW)^\top (RW) = W^\top W$ is what it was: this layer has no *privileged basis*, and
# "what does neuron 3 mean" is a question about the random start. By its architecture the residual stream of a
# transformer is such a place (yet training can single out axes; Elhage et al., 2023, suspect Adam).
#
# It is another matter where a nonlinearity acts on the units one by one. Take a model with a second ReLU, on its hidden
# units, $y' = \mathrm{ReLU}(U\, \mathrm{ReLU}(Wx) + b)$, where $U$ is learned separately, and let it compute $|x|$ for
# three features between −1 and 1, with six units. Shown is $W$:

# %%
computing = best(train(3, 6, torch.full((8,), 0.5), target="absolute value", steps=1000))
plots.heatmap(
    computing.W,
    None,
    units,
    title="Absolute values of three features, six ReLU units: the weights W",
    xlabel="feature",
    ylabel="hidden unit",
    value="weight",
    text=".2f",
    caption="Every unit has exactly one weight that is not zero; each feature has one unit with a positive weight and "
    "one with a negative weight.",
)

# %% role="result"
used = computing.W.abs() > 0.25
assert (used.sum(-1) == 1).all()
signs = [sorted(computing.W[used[:, i], i].sign().int().tolist()) for i in range(3)]
{"one feature for each unit": bool((used.sum(-1) == 1).all()), "signs of each feature's units": signs}

# %% [markdown]
# Each unit has one feature: $|x| = \mathrm{ReLU}(x) + \mathrm{ReLU}(-x)$, one unit for each side. Here a neuron means
# something, because the ReLU acts on neurons. A privileged basis may be there and not be used. (Lecomte et al., 2023,
# find a third way to polysemantic neurons: the chance of the start, with ample neurons for all features.)
#
# **Both at once** is possible too. With ten features and ten ReLU units there is room to compute five absolute values
# exactly. Train such models on frequent ($S = 0.5$) and on rare features ($S = 0.95$), and compare their loss with that
# of "five exactly, the others by their mean":

# %%
crowded = train(10, 10, torch.tensor([0.5, 0.95]).expand(4, 2), target="absolute value")
p_two = torch.tensor([0.5, 0.05])
five_exactly = 5 * (p_two / 3 - p_two**2 / 4)
for S, run, bound in zip((0.5, 0.95), crowded.loss.amin(0), five_exactly):
    print(f"S = {S}: loss {run:.3f}; five exactly, five by their mean: {bound:.3f}")
per_unit = (best(crowded).W.abs() > 0.25).sum(-1)
print("features per unit, S = 0.5 and 0.95:", per_unit.tolist())

# %% role="result"
relative = crowded.loss.amin(0) / five_exactly
assert (per_unit[0] == 1).all() and per_unit[1].min() >= 2
{"rare features: more than five computed": bool(relative[1] < 0.8), "frequent ones: no gain": bool(relative[0] > 0.9)}

# %% [markdown]
# On rare features the model does better than one that computes five and gives up five, and each of its units serves
# several features (the paper's "computation in superposition"). On frequent ones it does not, and each unit has one.
#
# So a unit with many features has at least two possible reasons: a basis that is not the features' (five in five), or
# more features than units can have to themselves (ten absolute values in ten units). Which one, the **angles between
# the features' directions** tell, or the count of features against dimensions. For both you need the features, and in a
# real model nobody hands them to you.

# %% [markdown]
# ### Nearly orthogonal is free
#
# The second illusion. `world`, the small language model of this course, has 789 words and a residual stream of 128
# dimensions. Its unembedding `W_U` has a column for each word: the direction along which that word is read. Six words
# for each dimension, at angles to one another, so surely they are in superposition? Take the words for features, for
# once, and add up their dimensionalities: in the trained model, and in two *untrained twins* with random weights.

# %%
world, twins = models.load("world"), [models.untrained_twin("world", seed) for seed in range(2)]
budget = [superposition.dimensionality(model.W_U).sum().item() for model in (world, *twins)]
plots.bars(
    budget,
    ["trained", "untrained twin", "another twin"],
    title="789 words in 128 dimensions: the sum of their dimensionalities",
    xlabel="model",
    ylabel="sum of D (at most 128)",
    caption="The trained model has about 60, both untrained twins about 110.",
)


# %%
def nearest_words(model: TransformerBridge, word: str) -> str:
    """The three words whose columns of W_U have the largest cosine with this word's."""
    unit = model.W_U / model.W_U.norm(dim=0)
    values, ids = (unit.T @ unit[:, model.to_single_token(word)]).topk(4)
    return ", ".join(f"{model.to_string(int(i))} {value:.2f}" for value, i in zip(values[1:], ids[1:]))


for word in ("Paris", "dull"):
    print(f"{word:<6} trained: {nearest_words(world, word):<42} untrained: {nearest_words(twins[0], word)}")
assert budget[0] < 75 and min(budget[1:]) > 100

# %%
n_hidden, n_words = world.W_U.shape
print(f"expected of random columns, nm / (n + m - 1): {n_words * n_hidden / (n_words + n_hidden - 1):.1f}")
mix = torch.randn(n_words, n_words, generator=torch.Generator().manual_seed(0)) / math.sqrt(n_words)
nearest = {}
for name, W in {"trained": world.W_U, "random, same covariance": world.W_U @ mix, "untrained": twins[0].W_U}.items():
    unit = W / W.norm(dim=0)
    nearest[name] = (unit.T @ unit).fill_diagonal_(-1).amax(0).median()
    total = superposition.dimensionality(W).sum()
    print(f"{name}: sum of D {total:.0f}; median over all words of the cosine with the nearest: {nearest[name]:.2f}")
assert total > 100 and nearest["trained"] > nearest["random, same covariance"] + 0.1

# %% [markdown]
# The control wins. A *random* matrix spreads its columns better than the trained one: in 128 dimensions random
# directions are nearly at right angles for free, so "many nearly orthogonal directions" is no sign of anything learned.
# (For random columns the formula says 110 too.)
#
# The trained model leaves half of the budget unspent, because its columns crowd into some of the directions: random
# columns of the same covariance spend even less. So the sum does not see which words lie together. The cosine with the
# nearest word does (0.59, in that control 0.39), and the examples show words of a kind. By section 6 this can be
# structure rather than interference; they share *features* (city, bad review). The mistake was to take words for
# features.

# %% [markdown]
# ## On a real model
#
# Two questions to the smallest GPT-2, with your own functions. The first: the sum of the dimensionalities of 4000 of
# its tokens, beside random columns. Without a network the next cells print one line and go on.

# %%
gpt2 = session.real_model("gpt2")

# %%
if gpt2 is not None:
    some = torch.randperm(gpt2.cfg.d_vocab, generator=torch.Generator().manual_seed(0))[:4000]
    tokens = gpt2.W_U.cpu()[:, some]
    random_columns = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0))
    for name, W in {"GPT-2": tokens, "random": random_columns}.items():
        print(f"{name}: sum of D {feature_dimensionality(W).sum():.0f}, at most {len(W)}")

# %% [markdown]
# The second: do its months lie on a circle? Read the stream in the middle of the model at the last token of "We will
# meet in January" and the like, take the mean for each month, and find the plane. A plane through twelve points can
# *always* be found. So the question is whether they go round in the order of the calendar, and more so than when the
# months are shuffled. (The plane is found once, without their order; each shuffle deals the twelve angles out anew.)

# %%
MONTHS = ["January", "February", "March", "April", "May", "June"]
MONTHS += ["July", "August", "September", "October", "November", "December"]
STARTS = ("We will meet in", "She was born in", "The shop opens in", "It happened in", "They left in", "It rains in")


def month_means(model: TransformerBridge) -> Float[Tensor, "month d_model"]:
    """The stream after the middle block at the last token, averaged over six beginnings."""
    name = f"blocks.{model.cfg.n_layers // 2}.hook_resid_post"
    texts = [f"{start} {month}" for start in STARTS for month in MONTHS]
    last = [model.run_with_cache(text, names_filter=name)[1][name][0, -1].cpu() for text in texts]
    return torch.stack(last).unflatten(0, (len(STARTS), 12)).mean(0)


def goes_round(angle: Float[Tensor, "month"]) -> float:
    """1 when each month is a twelfth of a turn after the one before, about 0 when the order is random."""
    steps = angle.roll(-1) - angle
    return max((steps - sign * 2 * math.pi / 12).cos().mean().item() for sign in (1, -1))


# %%
if gpt2 is not None:
    means = month_means(gpt2)
    plane, angle = best_plane(means, torch.arange(12), 12)
    dice = torch.Generator().manual_seed(0)
    shuffled = torch.tensor([goes_round(angle[torch.randperm(12, generator=dice)]) for _ in range(1000)])
    order = goes_round(angle)
    print(f"in calendar order: {order:.2f}; at least as high in {(shuffled >= order).float().mean():.1%} of shuffles")

# %%
if gpt2 is not None:
    seen = plane @ (means - means.mean(0)).T
    figure = plots.directions(
        seen / seen.norm(dim=0).mean(),
        title="GPT-2: the months in their plane",
        names=[month[:3] for month in MONTHS],
        groups=[0] * 12,
        caption="Twelve arrows, one for each month, from their common centre.",
    )
    display(figure)

# %% [markdown]
# What to ask of your numbers: does GPT-2 spend its budget like the random columns, or like `world`? If the months go
# round, is the circle *used*? Turning an activation by a twelfth of a circle should change what the model says next.
#
# And mind the control: shuffling is not enough. A tokenizer that cuts months into pieces may give neighbours in the
# calendar the same ending ("ary", "er"), and then even random weights may put them side by side: look at how your
# months are cut (`gpt2.to_str_tokens`), and run `month_means` on `models.untrained_twin("gpt2")` too.
#
# *This section has been tested on a model of GPT-2's architecture with random weights, not yet on GPT-2 itself.*

# %% [markdown]
# ## Over five seeds
#
# The main numbers of this chapter for five seeds of the training (you have seen seed 0; `train(..., seed=1)` is the
# next), measured with the cells above:
#
# | | | seed 0 | 1 | 2 | 3 | 4 |
# |---|---|---|---|---|---|---|
# | 2 | features kept, best of ten: S = 0 / 0.7 / 0.95 | 2 / 4 / 5 | 2 / 4 / 5 | 2 / 4 / 5 | 2 / 4 / 5 | 2 / 4 / 5 |
# | 2 | single runs of ten: two pairs at S = 0.7 / a pentagon at 0.95 | 9 / 9 | 9 / 10 | 9 / 10 | 6 / 10 | 9 / 10 |
# | 2 | runs of ten that 6000 steps change: S = 0 / 0.7 / 0.95 | 1 / 0 / 1 | 5 / 0 / 0 | 1 / 0 / 0 | 2 / 0 / 0 | 0 / 0 / 0 |
# | 3 | antipodal pairs at p = 1/3 | 5 | 5 | 5 | 5 | 5 |
# | 3 | pentagons at p = 1/4 | 2 | 0 | 2 | 1 | 1 |
# | 3 | figures at p = 1/5 | 15 in 5 | 14 in 5 | 12 in 4, a pair | 14 in 5 | 15 in 5 |
# | 3 | features kept: p = 1/7 / 1/12 / 1/24 | 16 / 20 / 20 | 16 / 19 / 20 | 16 / 19 / 20 | 16 / 18 / 20 | 16 / 18 / 20 |
# | 3 | all 20 dimensionalities, p = 1/24 and below | 0.24–0.26 | 0.24–0.26 | 0.24–0.26 | 0.24–0.27 | 0.24–0.26 |
# | 3 | the half cube at p = 1/7 (best of four) | yes | yes | yes | yes | yes |
# | 4 | points of 100 that agree | 100 | 98 | 98 | 98 | 97 |
# | 4 | single runs that find the pair at p = 0.01 | 46% | 43% | 36% | 47% | 39% |
# | 4 | of the others, one weight below 0.1 | 80% | 77% | 67% | 62% | 77% |
# | 5 | trained pentagon, p = 0.05: length / bias | 1.14 / −0.25 | 1.14 / −0.25 | 1.13 / −0.25 | 1.13 / −0.25 | 1.14 / −0.25 |
# | 5 | error per occurrence: p = 0.5 / 0.02 | 0.102 / 0.020 | 0.102 / 0.020 | 0.102 / 0.020 | 0.101 / 0.020 | 0.102 / 0.021 |
# | 6 | never together: single runs of 20 that find the best | 7 | 7 | 8 | 7 | 6 |
# | 7 | linear model keeps (all sparsities) | 0, 1 | 0, 1 | 0, 1 | 0, 1 | 0, 1 |
# | fool | five in five: features per unit (every D = 1) | 4.2 | 4.2 | 3.6 | 3.6 | 4.2 |
# | fool | six ReLU units, three absolute values: starts of eight with one feature for each unit | 8 | 8 | 8 | 8 | 8 |
# | fool | ten absolute values, ten units, S = 0.95: loss relative to "five exactly" | 0.47 | 0.42 | 0.45 | 0.61 | 0.47 |
# | fool | the same: features per unit (at S = 0.5: 1) | 4.1 | 4.3 | 4.5 | 3.7 | 4.0 |
#
# The circle of section 8, planted with five seeds: plane 0.93 to 0.96, best line 0.53 to 0.58, R² 0.61 to 0.62; the
# circle alone with noise 0.01: best line 1.00. In three trainings of `world` the sum of dimensionalities of `W_U` is
# 59.6, 60.2 and 61.1 (random columns of the same covariance: 51 to 53), the median cosine with the nearest 0.59 (0.39).

# %% [markdown]
# ## What you have now
#
# - **Superposition**: more features than dimensions, at angles to one another. It takes sparse features and a
#   nonlinearity (4.1, 4.2, 4.7); the linear model keeps the $m$ most valuable and gives up the rest.
# - **Dimensionality** says how much of a dimension a feature has; the sum is a budget of at most $m$ (4.3).
# - Between dedicated, shared and dropped there are **phases**, which a closed form predicts (4.4).
# - **Interference** (4.5): negative is free after a ReLU, positive is cut off by a bias, and collisions need two
#   features at once.
# - Features that never meet share a line; features that meet are kept apart, or merged (4.6).
# - A circle has its order and its distances in a **plane**; a line folds it, and a linear regression on twelve hours
#   explains at most 63% (4.8).
# - A neuron with many features is not yet superposition; many nearly orthogonal directions are not yet features.
#
# **Open questions**
#
# - Here we knew the features. How would you find them from $h$ alone? (Chapter 05.)
# - $W^\top$ reads linearly what was written. How many features can be *stored* in $m$ dimensions, and how many can be
#   *read by a direction*? Garg et al. (2026) show that the second is a harder demand than the first.
# - Scherlis et al. (2022) treat dimensionality as a *capacity* that is allotted where it lowers the loss most. What
#   would that predict for features of unequal importance in section 3?
# - Which computations can be done on features in superposition? Hänni et al. (2024) give constructions.
#
# **Next**: chapter 05 takes such models apart again, with sparse autoencoders.

# %%
progress.table()

# %% [markdown]
# ## References
#
# - Elhage et al. (2022), *Toy Models of Superposition*, [arXiv 2209.10652](https://arxiv.org/abs/2209.10652),
#   [web version](https://transformer-circuits.pub/2022/toy_model/index.html).
# - Elhage et al. (2023), *Privileged Bases in the Transformer Residual Stream*, [Anthropic
#   research](https://www.anthropic.com/research/privileged-bases-in-the-transformer-residual-stream).
# - Engels et al. (2024), *Not All Language Model Features Are One-Dimensionally Linear*,
#   [arXiv 2405.14860](https://arxiv.org/abs/2405.14860).
# - Garg, Kleinberg & Peng (2026), *How Many Features Can a Language Model Store Under the Linear Representation
#   Hypothesis?*, [arXiv 2602.11246](https://arxiv.org/abs/2602.11246).
# - Hänni et al. (2024), *Mathematical Models of Computation in Superposition*,
#   [arXiv 2408.05451](https://arxiv.org/abs/2408.05451).
# - Lecomte et al. (2023), *What Causes Polysemanticity? An Alternative Origin Story of Mixed Selectivity from Incidental
#   Causes*, [arXiv 2312.03096](https://arxiv.org/abs/2312.03096).
# - Olah (2024), *What is a Linear Representation? What is a Multidimensional Feature?*, [Circuits Updates, July
#   2024](https://transformer-circuits.pub/2024/july-update/index.html#linear-representations).
# - Park, Choe & Veitch (2023), *The Linear Representation Hypothesis and the Geometry of Large Language Models*,
#   [arXiv 2311.03658](https://arxiv.org/abs/2311.03658).
# - Scherlis et al. (2022), *Polysemanticity and Capacity in Neural Networks*,
#   [arXiv 2210.01892](https://arxiv.org/abs/2210.01892).
