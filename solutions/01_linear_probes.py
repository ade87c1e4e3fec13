# ---
# title: Linear probes
# ---

# %% [markdown]
# # 01 · Linear probes
#
# **Where does the model keep what the probe finds?**

# %%
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import TransformerBridge

from utils import models, plots, probes, progress, session, steering
from utils.checks import linear_probes as checks
from utils.datasets import world

# %% [markdown]
# *The boy near the students ...* "is", or "are"? English wants "is": one boy. But the word just before the verb is
# "students", and there are many. `world` is not taken in, although it has never read a sentence with "boy" as its
# subject (that word was held out as a subject when it was trained). With it we load its *untrained twin*: the same
# model with random weights.

# %%
model, twin = models.load("world"), models.untrained_twin("world")
prompt = "The boy near the students"
logits = model(prompt)[0, -1]
verbs = ["is", "are", "walks", "walk", "was", "were"]
plots.bars(
    logits.softmax(-1)[[model.to_single_token(verb) for verb in verbs]],
    verbs,
    title=f"{prompt} ...",
    xlabel="next word",
    ylabel="probability",
)

# %% role="result"
[
    bool(logits[model.to_single_token(singular)] > logits[model.to_single_token(plural)])
    for singular, plural in (("is", "are"), ("walks", "walk"), ("was", "were"))
]

# %% [markdown]
# Of each pair the singular form has the higher score. The answer is given *at the word "students"*, so the number of
# the boy must be known there. Is it? Look at the residual stream at that word, as 128 numbers. Ask the simplest
# question one can ask of them: is there a weighted sum of them that is positive when the **subject** is plural, and
# negative when it is singular? Such a weighted sum is a **linear probe**.
#
# Fit one at each layer, on 600 sentences such as "The girl behind the lawyers" and "The girls behind the lawyers". The
# two are a *minimal pair*: they differ in one word, the subject, and in the label (`.corrupted` is a sentence's pair).
# Test on sentences with subjects that the probe has not seen (`split="held_out_words"`). Keep only those where the
# other noun, the *attractor*, has the other number (`attractor_number`).

# %%
def stream(model: TransformerBridge, prompts: list[str]) -> Float[Tensor, "layer text pos d_model"]:
    """The residual stream of texts of equal length: the embeddings (layer 0), then after each block."""
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers))]
    _, cache = model.run_with_cache(prompts, names_filter=names)
    return torch.stack([cache[name] for name in names])


LAYERS = ["embeddings", *(f"after block {i}" for i in range(4))]
THE, BOY, NEAR, SECOND_THE, STUDENTS = range(1, 6)  # positions in the prompt; position 0 is <bos>

# %% [markdown]
# `world` has four blocks, 0 to 3, so `stream` has five *layers*: the embeddings, then the stream after each block
# (`stream(...)[1:]` begins after block 0). Positions count `<bos>`, as everywhere in the course.

# %%
def in_pairs(type: str, n: int, seed: int, split: str = "train", **fixed) -> list[world.Sentence]:
    """n sentences: n // 2 drawn ones, and their minimal pairs with the opposite label."""
    drawn = world.sentences(type, n // 2, seed, split, **fixed)
    return [*drawn, *(sentence.corrupted for sentence in drawn)]


def prompts_of(sentences: list[world.Sentence]) -> list[str]:
    return [sentence.prompt for sentence in sentences]


def labelled(sentences: list[world.Sentence], label: str, value: str) -> Bool[Tensor, "text"]:
    return torch.tensor([sentence.labels[label] == value for sentence in sentences])


# %%
fitting = in_pairs("agreement", 600, seed=1, template="pp/0")  # pp/0: subject, preposition, "the", attractor
testing = in_pairs("agreement", 600, seed=2, split="held_out_words", template="pp/0")
testing = [s for s in testing if s.labels["number"] != s.labels["attractor_number"]]
plural, test_plural = labelled(fitting, "number", "plural"), labelled(testing, "number", "plural")


# %% [markdown]
# The probe is a logistic regression; in section 1 you build it. `standardize=True` takes the mean off each of the 128
# numbers and divides it by its standard deviation, both over the fitting sentences, so that models with larger and
# smaller activations are treated alike. (The weights that come back act on the raw activations.) `C=0.1` sets how long
# the weights may become. Both were fixed beforehand and not tuned. They hold in the whole chapter unless it says
# otherwise.

# %%
def fit_linear(x: Float[Tensor, "*site n d_model"], y: Bool[Tensor, "n"], **options) -> probes.LinearProbes:
    """One logistic regression at every site, with the settings of this chapter."""
    return probes.fit_logistic(x, y, C=0.1, standardize=True, **options)


def number_at_last_word(model: TransformerBridge) -> Float[Tensor, "layer"]:
    fitted = fit_linear(stream(model, prompts_of(fitting))[:, :, STUDENTS], plural)
    return fitted.accuracy(stream(model, prompts_of(testing))[:, :, STUDENTS], test_plural)


# %%
by_layer = {"trained": number_at_last_word(model), "untrained twin": number_at_last_word(twin)}
plots.lines(
    by_layer,
    LAYERS,
    title='Is the subject singular or plural, read at "students"?',
    xlabel="layer",
    ylabel="accuracy (new subjects; chance 0.5)",
)

# %% role="result"
assert (by_layer["trained"][3:] > 0.97).all() and (by_layer["untrained twin"] < 0.85).all()
bool(by_layer["trained"][0] < 0.6), bool(by_layer["trained"][3] > 0.97)

# %% [markdown]
# In the embeddings the word "students" says nothing of the boy. Block by block his number becomes readable there; after
# block 1 the probe makes hardly any errors, after block 2 none. The untrained twin stays below 0.7.
#
# Mind how small this test is: 300 sentences, but only six new nouns in two forms, *twelve different words*.
#
# So is this *where the model keeps it*? A probe can fool you about that in more ways than one. This chapter builds
# probes and finds the places where they succeed. Of each success it then asks: is it due to the model, the probe, or
# the split into fitting and test data?
#
# **You will be able to**
#
# - fit a linear probe by hand, and hundreds of them in one call;
# - split data so that a probe cannot pass by recognising what it has seen;
# - tell with a control task how much a probe could have learned by heart;
# - choose between logistic regression, mass-mean and whitened directions, and say what each is good for;
# - put a direction into the stream, or take it out, and see whether the model acts on it.
#
# **Time**: about three hours. **You need**: [chapter 00](00_inside_a_transformer.ipynb) (the residual stream, hooks).
# Only the last section, on GPT-2, uses an answer of yours (1.2). In all exercises leave the inputs as they are: work on
# copies.

# %% [markdown]
# ## 1 One probe, by hand
#
# A probe for a yes/no label computes $f = w \cdot x + b$ from an activation $x$ and says *yes* where $f > 0$.
# **Logistic regression** chooses $w$ and $b$ by the loss
#
# $$L(w, b) \;=\; \sum_{i=1}^{n} \log\!\big(1 + e^{-t_i f_i}\big) \;+\; \frac{1}{2C}\,|w|^2, \qquad
#   f_i = w \cdot x_i + b, \qquad t_i = \pm 1 .$$
#
# The first part is small where $f_i$ has the sign of the label $t_i$. The second is the *penalty*: it keeps $w$
# short, the more so the smaller $C$ is. The intercept $b$ is not penalised. (This is scikit-learn's convention, $C$
# included.)
#
# $L$ is convex, so there is one minimum. Newton's method usually finds it in a few steps. Let $\tilde x_i$ be $x_i$
# with a 1 put behind it, $\theta = (w, b)$, $\sigma(z) = 1/(1 + e^{-z})$ and $p_i = \sigma(f_i)$, the probe's
# probability of *yes*. With $y_i$ = 1 for yes and 0 for no,
#
# $$g = \sum_i (p_i - y_i)\, \tilde x_i + \tfrac{1}{C} (w, 0), \qquad
#   H = \sum_i p_i (1 - p_i)\, \tilde x_i \tilde x_i^{\top} + \tfrac{1}{C}\, \mathrm{diag}(1, \dots, 1, 0), \qquad
#   \theta \leftarrow \theta - H^{-1} g .$$

# %% [markdown] exercise="1.1" role="task"
# ### Exercise 1.1 · Logistic regression
#
# Find the minimum of $L$, by Newton's method from $\theta = 0$ (a fixed number of steps, say 20, will do) or by any
# optimiser that you write or take from PyTorch or SciPy; scikit-learn's own is switched off here. `y` holds 0 and 1.
# Use `x` as it is, without rescaling. The check compares with the exact optimum, to three digits: an optimiser that
# has not converged is told so.
#
# **Return** a pair `(w, b)`: the weights `[d]` and the intercept, one number.

# %% exercise="1.1" role="answer" minutes=25 difficulty=2 importance=3
def fit_probe(x: Float[Tensor, "n d"], y: Int[Tensor, "n"], C: float) -> tuple[Float[Tensor, "d"], Float[Tensor, ""]]:
    """Weights and intercept of the L2-penalised logistic regression of y on x."""
    ### BEGIN SOLUTION
    ones = torch.cat([x, torch.ones_like(x[:, :1])], dim=1).double()
    penalty = torch.ones_like(ones[0]) / C
    penalty[-1] = 0
    theta = torch.zeros_like(ones[0])
    for _ in range(20):
        p = (ones @ theta).sigmoid()
        gradient = ones.T @ (p - y) + penalty * theta
        hessian = (ones.T * (p * (1 - p))) @ ones + penalty.diag()
        theta = theta - torch.linalg.solve(hessian, gradient)
    return theta[:-1].to(x.dtype), theta[-1].to(x.dtype)
    ### END SOLUTION


# %% exercise="1.1" role="check" points=3
checks.fit_probe(fit_probe)
### BEGIN HIDDEN TESTS
checks.fit_probe(fit_probe, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Why a penalty? At "students", after block 2, a weighted sum can get all of the 600 fitting sentences right. Then
# nothing stops an unpenalised $w$: making it longer lowers the loss for ever. The library's `probes.fit_logistic` finds
# the same minimum as you did; here for a range of $C$, on the numbers as they are (not standardised).

# %%
strengths = [10.0**k for k in range(-6, 1)]
at_students = stream(model, prompts_of(fitting))[3, :, STUDENTS]
penalised = [probes.fit_logistic(at_students, plural, C=C) for C in strengths]
lengths = torch.stack([probe.weight.norm() for probe in penalised])
plots.lines(
    lengths,
    [f"{C:g}" for C in strengths],
    title="The weaker the penalty, the longer the weights",
    xlabel="C (the larger, the weaker the penalty)",
    ylabel="length of w",
)

# %% role="result"
assert all(probe.accuracy(at_students, plural) > 0.98 for probe in penalised)
bool((lengths.diff() > 0).all())

# %% [markdown]
# $C$ sets the length, and the direction too. At the smallest $C$ all that is left is the difference between the mean of
# the plural sentences and that of the singular ones; with a weaker penalty the probe turns away from it:

# %%
difference = at_students[plural].mean(0) - at_students[~plural].mean(0)
cosines = torch.stack([torch.cosine_similarity(probe.weight, difference, dim=0) for probe in penalised])
print("cosine with the difference of the means, C from 1e-6 to 1:", "  ".join(f"{c:.4f}" for c in cosines))
assert cosines[0] > 0.99 and (cosines.diff() < 0).all()

# %% [markdown]
# Which of these directions is the right one? Section 5 comes back to that.

# %% [markdown]
# ## 2 Everywhere at once
#
# "At the last word" was one place of many. A probe at *every* layer and position is a whole grid of regressions; in a
# loop they take their time. There is a kind of probe for which the grid has a closed form. **Ridge regression** on
# the targets $y_i$ = ±1,
#
# $$\min_{w,\,b}\; \sum_i (w \cdot x_i + b - y_i)^2 + \alpha |w|^2,$$
#
# is solved by centring: with $\bar x$, $\bar y$ the means over the rows, $X_c$ the matrix of the $x_i - \bar x$ and
# $y_c$ that of the $y_i - \bar y$,
#
# $$w = \big(X_c^{\top} X_c + \alpha I\big)^{-1} X_c^{\top} y_c, \qquad b = \bar y - w \cdot \bar x ,$$
#
# and `torch.linalg.solve` takes a whole batch of matrices: one call for all sites.

# %% [markdown] exercise="1.2" role="task"
# ### Exercise 1.2 · A ridge probe at every site
#
# `x` holds the activations of `n` texts at several *sites* (places in the model); the labels `y`, real numbers such
# as ±1, are the same for all sites. Fit one ridge probe for each site. The intercept is not penalised: that is what
# the centring does.
#
# **Return** a pair `(weight, bias)`: `[site d]` and `[site]`.

# %% exercise="1.2" role="answer" minutes=20 difficulty=2 importance=3
def ridge_probes(
    x: Float[Tensor, "site n d"], y: Float[Tensor, "n"], alpha: float
) -> tuple[Float[Tensor, "site d"], Float[Tensor, "site"]]:
    """Weights and intercepts of one ridge regression of y per site."""
    ### BEGIN SOLUTION
    mean = x.mean(1)
    centred = x - mean[:, None]
    gram = centred.mT @ centred + alpha * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(gram, centred.mT @ (y - y.mean()))
    return weight, y.mean() - (weight * mean).sum(-1)
    ### END SOLUTION


# %% exercise="1.2" role="check" points=2
checks.ridge_probes(ridge_probes)
### BEGIN HIDDEN TESTS
checks.ridge_probes(ridge_probes, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# `probes.fit_logistic` does the same for logistic regression (no closed form, but the sites share most of the work):
# give it activations with any axes in front. So now a map of the whole model.
#
# **Predict first.** After block 2: at which words of "The boy near the students" can the number of the *boy* be read?
#
# - (a) at "boy" alone
# - (b) at "boy" and at every word after it
# - (c) at "boy" and at "students", not between them

# %% exercise="1.A" role="predict"
guess_words = None  # "a", "b" or "c"
### BEGIN SOLUTION
guess_words = "c"  # a guess, and a wrong one: that is fine
### END SOLUTION

# %%
def accuracy_map(model, sentences, y, new_sentences, new_y) -> Float[Tensor, "layer pos"]:
    """Accuracy on the new sentences of one probe for every layer and position."""
    x, new_x = (stream(model, prompts_of(part)).transpose(1, 2) for part in (sentences, new_sentences))
    return fit_linear(x, y).accuracy(new_x, new_y)


number_data = (fitting, plural, testing, test_plural)
number_map = accuracy_map(model, *number_data)
twin_maps = torch.stack([accuracy_map(models.untrained_twin("world", seed), *number_data) for seed in range(3)])
best_twin = twin_maps.amax(0)

# %%
plots.heatmap(
    torch.stack([number_map, best_twin])[:, :, 1:],
    prompt.split(),
    LAYERS,
    title="Where the number of the subject can be read",
    xlabel="position (one example sentence)",
    ylabel="layer",
    value="accuracy, twelve new nouns",
    diverging=False,
    text=".2f",
    zmax=1,
    facets=["trained", "untrained: the highest of three twins"],
)

# %%
assert (number_map[3, BOY:] > 0.85).all() and (number_map[:, BOY] > 0.97).all() and (number_map[0, NEAR:] < 0.65).all()
assert (number_map[3:, NEAR:] > best_twin[3:, NEAR:] + 0.1).all()
checks.prediction(
    guess_words,
    {
        "a": 'at "boy" alone',
        "b": 'at "boy" and at every word after it',
        "c": 'at "boy" and at "students", not between them',
    },
    outcome="b",
    because=f"The accuracies after block 2 are {', '.join(f'{a:.2f}' for a in number_map[3, 1:])}.",
)

# %% [markdown]
# At "boy" from the embeddings on: a direction that keeps singular and plural apart fits nouns the probe has never seen.
# And after block 2 the number can be read at *every* later word: at "near", at "the", at "students". Remember this map.
#
# Now mind the other one, of models that know no plural. With twelve test words chance goes far: each cell shows the
# highest of three twins, and they differ widely.

# %%
print("embeddings, at 'boy', three twins:", "  ".join(f"{accuracy:.2f}" for accuracy in twin_maps[:, 0, BOY]))
assert twin_maps[:, 0, BOY].max() - twin_maps[:, 0, BOY].min() > 0.2

# %% [markdown]
# So which cells of the trained map count? After blocks 0 and 1, "near" and "the" hardly do: a twin comes within 0.1.
# From block 2 on every cell behind "boy" does: each is at least 0.15 above the best twin. At "boy" itself a lucky twin
# comes close, and no single map could tell the two apart. But the trained model has 1.00 there in every layer, and so
# have two others that were trained from other seeds.
#
# A second property: is a country in Europe? It is no property of the *word*, but of what the model has read about the
# country. There are 48 countries (Australia, alone on its continent, is left out), too few to put many aside for a
# test. So take eight *folds*: each fits on 42 countries and tests on the six that it holds out, and each country is
# held out once. (*Stratified* folds hold out equal shares of both classes.)

# %%
countries = [name for name, country in world.COUNTRIES.items() if country.continent != "Oceania"]
european = torch.tensor([world.COUNTRIES[name].continent == "Europe" for name in countries])
folds = probes.stratified_folds(european, 8)


def europe_map(model: TransformerBridge) -> Float[Tensor, "layer pos"]:
    x = stream(model, [f"The capital of {country} is" for country in countries]).transpose(1, 2)
    return fit_linear(x, european, folds=folds).accuracy(x, european, rows=~folds).mean(-1)


europe_trained, europe_twin = europe_map(model), europe_map(twin)

# %%
plots.heatmap(
    torch.stack([europe_trained, europe_twin])[:, :, 1:],
    ["The", "capital", "of", "France", "is"],
    LAYERS,
    title="Where it can be read whether a country is in Europe",
    xlabel="position",
    ylabel="layer",
    value="accuracy, other countries",
    diverging=False,
    text=".2f",
    zmax=1,
    facets=["trained", "untrained twin"],
)

# %% role="result"
FRANCE, IS = 4, 5
assert (europe_trained[:, FRANCE] > 0.85).all() and (europe_trained[1:, IS] > 0.93).all() and (europe_twin < 0.75).all()
bool(europe_trained[0, IS] < 0.7), bool(europe_trained[1, IS] > 0.93)

# %% [markdown]
# At the country's own word it is there from the embeddings on; at "is" from block 0 on: the same block that brings
# the country there (chapter 00). Nobody asked for the continent: it came along.
#
# A third: the verdict of a review. Fitted on twenty good and twenty bad adjectives, tested on ten others.

# %%
reviews = in_pairs("review", 400, seed=1, template="plain/3")
new_reviews = in_pairs("review", 200, seed=2, split="held_out_words", template="plain/3")
good, new_good = labelled(reviews, "sentiment", "positive"), labelled(new_reviews, "sentiment", "positive")
review_data = (reviews, good, new_reviews, new_good)
sentiment_map, sentiment_twin = accuracy_map(model, *review_data), accuracy_map(twin, *review_data)
print(new_reviews[0].prompt)

# %%
words = new_reviews[0].tokens
WAS, COLON = words.index("was"), words.index("was") + 4
plots.heatmap(
    torch.stack([sentiment_map, sentiment_twin])[:, :, WAS - 1 : COLON + 1],
    words[WAS - 1 : COLON + 1],
    LAYERS,
    title="Where the verdict of a review can be read (its last words)",
    xlabel="position",
    ylabel="layer",
    value="accuracy, new adjectives",
    diverging=False,
    text=".2f",
    zmax=1,
    facets=["trained", "untrained twin"],
)

# %% role="result"
assert (sentiment_map[:, 1 : WAS + 1] == 0.5).all() and (sentiment_twin < 0.8).all()
assert (sentiment_map[1:, COLON] > 0.97).all()
[word for word, accuracy in zip(words, sentiment_map[1]) if accuracy > 0.97]

# %% [markdown]
# Before the adjective nothing (exactly half: the pairs do not differ there). At the adjective everything, from the
# embeddings on; after block 0 also at each of the three words behind it, even at ":", where the model will need it.

# %% [markdown]
# ## 3 What to hold out
#
# The tests so far used *new* subjects, *other* countries, *new* adjectives. Is all this care needed? Take more
# sentences: each country in sixteen different ones about its capital. The obvious thing is to shuffle the sentences,
# fit on five sixths and test on the rest.

# %%
leads = ["", "Today", "We know", "Everyone says"]
frames = [
    "the capital of {} is",
    "in {} the capital is",
    "the capital of the country {} is",
    "the name of the capital of {} is",
]
texts = [[f"{lead} {frame.format(c)}".strip() for c in countries] for lead in leads for frame in frames]
texts = [[text[0].upper() + text[1:] for text in row] for row in texts]
country_of_row = torch.arange(len(countries)).repeat(len(texts))
in_europe = european.repeat(len(texts))


def last_word(model: TransformerBridge, layer: int) -> Float[Tensor, "row d_model"]:
    return torch.cat([stream(model, part)[layer, :, -1] for part in texts])


# %% [markdown]
# **Predict first.** A probe reads "in Europe or not" at the last word, in the *untrained twin*, after block 0. How many
# of the held-out sentences does it get right? (Always saying "no" gets 0.56.)
#
# - (a) less than 0.65
# - (b) between 0.65 and 0.75
# - (c) more than 0.75

# %% exercise="1.B" role="predict"
guess_leak = None  # "a", "b" or "c"
### BEGIN SOLUTION
guess_leak = "a"  # wrong again: this is what predictions are for
### END SOLUTION

# %%
by_sentence = probes.stratified_folds(in_europe, 6)


def held_out_accuracy(model: TransformerBridge, folds: Bool[Tensor, "fold row"]) -> Float[Tensor, ""]:
    """Mean accuracy on what the folds hold out, read at the last word after block 0."""
    x = last_word(model, layer=1)
    return fit_linear(x, in_europe, folds=folds).accuracy(x, in_europe, rows=~folds).mean()


twin_leak = held_out_accuracy(twin, by_sentence)
assert twin_leak > 0.75
checks.prediction(
    guess_leak,
    {"a": "less than 0.65", "b": "between 0.65 and 0.75", "c": "more than 0.75"},
    outcome="c",
    because=f"The probe of the twin gets {twin_leak:.2f} of the held-out sentences right.",
)

# %% [markdown]
# A model that knows nothing, read so well. Its random vectors carry *which country* was named. Every held-out sentence
# is new, but its country is not: the probe has seen it with its label, and recognises it. It is a lookup table of 48
# entries.
#
# The remedy: keep what belongs together on one side. A **group** is a set of rows that share something a probe could
# recognise: here a country; elsewhere a person, a template, a document.

# %% [markdown] exercise="1.3" role="task"
# ### Exercise 1.3 · Folds that keep groups together
#
# `groups` holds a whole number for each row (any numbers, groups of any size). Deal the groups, in random order, into
# `n_folds` parts; fold $k$ holds out part $k$. The numbers of groups held out by two folds differ by at most one. The
# same `seed` must give the same folds, another seed others (`torch.Generator().manual_seed(seed)` helps). There are
# at least as many groups as folds.
#
# **Return** a boolean tensor `[fold n]`: `True` where the fold *fits* on the row, `False` where it holds it out.

# %% exercise="1.3" role="answer" minutes=15 difficulty=2 importance=3
def group_folds(groups: Int[Tensor, "n"], n_folds: int, seed: int) -> Bool[Tensor, "fold n"]:
    """Cross-validation folds that never split a group; True = row is fitted on."""
    ### BEGIN SOLUTION
    names, index = groups.unique(return_inverse=True)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).to(groups.device)
    part = (order % n_folds)[index]
    return part != torch.arange(n_folds, device=groups.device)[:, None]
    ### END SOLUTION


# %% exercise="1.3" role="check" points=2
checks.group_folds(group_folds)
### BEGIN HIDDEN TESTS
checks.group_folds(group_folds, hidden=True)
### END HIDDEN TESTS

# %%
by_country = probes.group_folds(country_of_row, 6)
probes.check_no_leak(by_country, country_of_row)
readers = {"trained": model, "twin 0": twin, **{f"twin {i}": models.untrained_twin("world", i) for i in (1, 2)}}
leaks = torch.stack(
    [torch.stack([held_out_accuracy(m, part) for part in (by_sentence, by_country)]) for m in readers.values()]
)

# %%
plots.bars(
    leaks,
    ["other sentences", "other countries"],
    names=list(readers),
    title="In Europe or not: what the split decides",
    xlabel="held out",
    ylabel="accuracy (always no: 0.56)",
)

# %% role="result"
assert leaks[0].min() > 0.93 and leaks[1:, 0].min() > 0.7 and leaks[1:, 1].max() < 0.7
bool((leaks[0] > leaks[1:].max(0).values).all())

# %% [markdown]
# Held-out countries end it: the twins fall to guessing, the trained model does not move. (Guessing here is anything
# from 0.35 to 0.65: a probe fitted on noise says "yes" about as often as "no", and 48 countries are few.)
#
# **A split by sentence asks: is the word still there? A split by entity asks: is the property there?** Whenever labels
# belong to entities, only the second question is about what the model knows. Hold out whole
# templates as well, where a probe could recognise the template.

# %% [markdown]
# ## 4 What the probe could have learned by heart
#
# Sometimes words cannot be held out: there are too few, or each has a label of its own. Then ask how much the probe
# *could* memorise. Hewitt & Liang (2019) do it with a **control task**: each word *type* gets a random label,
# the same wherever the word stands. Nothing but the identity of the word can help. A probe that does well on it has
# learned by heart. The accuracy on the real task minus that on the control task is the probe's **selectivity**.

# %% [markdown] exercise="1.4" role="task"
# ### Exercise 1.4 · Labels for a control task
#
# `types` says which word stands in each row, `y` its real label (both whole numbers, any). Draw one control label for
# every type, at random, independently of its real label and of the other types' draws: each label with the probability
# that it has *among the rows* of `y`. All rows of a type get its label. The same `seed` must give the same labels,
# another seed others.
#
# **Return** the control labels, `[n]`.

# %% exercise="1.4" role="answer" minutes=15 difficulty=2 importance=3
def control_labels(types: Int[Tensor, "n"], y: Int[Tensor, "n"], seed: int) -> Int[Tensor, "n"]:
    """One random label per type, drawn from the distribution of the real labels over the rows."""
    ### BEGIN SOLUTION
    names, index = types.unique(return_inverse=True)
    rows = torch.randint(len(y), (len(names),), generator=torch.Generator().manual_seed(seed))
    return y[rows.to(y.device)][index]
    ### END SOLUTION


# %% exercise="1.4" role="check" points=2
checks.control_labels(control_labels)
### BEGIN HIDDEN TESTS
checks.control_labels(control_labels, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# The task: is a word a person, a country, a city, a language or a number? 208 words, each in six short contexts; fit
# on four of them, test on the other two. Two probes: a linear one and an MLP with 64 hidden units, read after block 0.

# %%
kinds = ["person", "country", "city", "language", "number"]
kind_of = {word: kind for kind in range(5) for word in world.CATEGORIES[kinds[kind]]}
contexts = ["{}", "The word {}", "Claim : {}", "Today {}", "Everyone says {}", "We know {}"]
types = torch.arange(len(kind_of)).repeat(len(contexts))
kind = torch.tensor(list(kind_of.values())).repeat(len(contexts))
control = probes.control_labels(types, kind, seed=0)
fitted_on = torch.arange(len(contexts)).repeat_interleave(len(kind_of)) < 4
commonest = control.bincount().max() / len(control)
print(f"always the commonest kind: {commonest:.2f} of the control labels")

# %%
def at_the_word(model: TransformerBridge) -> Float[Tensor, "layer row d_model"]:
    return torch.cat([stream(model, [c.format(word) for word in kind_of])[:, :, -1] for c in contexts], dim=1)


def fit_kinds(x: Float[Tensor, "*site n d_model"], y: Int[Tensor, "n"]) -> probes.MultinomialProbes:
    return probes.fit_multinomial(x, y, C=0.1, standardize=True)


def in_other_contexts(fit, x: Float[Tensor, "*site n d_model"], y: Int[Tensor, "n"]) -> Float[Tensor, "*site"]:
    """Accuracy in the two contexts that were not fitted on."""
    return fit(x[..., fitted_on, :], y[fitted_on]).accuracy(x[..., ~fitted_on, :], y[~fitted_on])


# %%
words_trained, words_twin = at_the_word(model), at_the_word(twin)
task = torch.tensor(
    [
        [in_other_contexts(fit, x[1], labels) for labels in (kind, control)]
        for x in (words_trained, words_twin)
        for fit in (fit_kinds, probes.fit_mlp)
    ]
)
plots.bars(
    task.T,
    ["trained, linear", "trained, MLP", "twin, linear", "twin, MLP"],
    names=["real task", "control task"],
    title="What kind of word is it? Real labels and random ones",
    xlabel="model and probe",
    ylabel="accuracy (commonest kind: 0.29)",
)

# %%
selectivity = task[:, 0] - task[:, 1]
print("selectivity: trained, linear {:.2f}, MLP {:.2f}; twin, linear {:.2f}, MLP {:.2f}".format(*selectivity.tolist()))
assert (task[:2, 0] > 0.98).all() and selectivity[0] > 0.3 and selectivity[[1, 3]].max() < 0.25
assert task[2, 1] > commonest + 0.2

# %% [markdown]
# In the trained model linear probe and MLP tie on the real task, at 1.00. The control task separates them. The MLP also
# learns most of 208 arbitrary labels, so its 1.00 says little. The linear probe learns few of them, so its 1.00 is more
# nearly the model's. Hewitt & Liang found that the probes that were popular for ELMo are not selective.
#
# But look at the twin: there the *linear* probe learns most of the random labels too. What can be learned by heart
# depends on how the activations lie as well as on the probe. It also depends on where one reads:

# %%
by_heart = torch.stack([in_other_contexts(fit_kinds, x, control) for x in (words_trained, words_twin)])
plots.lines(
    by_heart,
    LAYERS,
    names=["trained", "untrained twin"],
    title="Random labels, learned by heart by a linear probe",
    xlabel="layer",
    ylabel="accuracy (commonest kind: 0.29)",
)

# %% role="result"
assert by_heart[:, 0].min() > 0.8 and by_heart[0, 1:].max() < 0.65
bool((by_heart[:, 0] > by_heart[:, 1]).all())

# %% [markdown]
# At the embeddings a word's vector hardly depends on its context (only its position is added), so the test rows nearly
# repeat the fitting rows: here nearly everything can be learned by heart. Selectivity is a statement about one kind of
# probe, with its penalty, at one place, on one set of data. It is no property of the model.

# %% [markdown]
# ## 5 Which direction?
#
# Logistic regression finds *a* direction that separates. With a strong penalty it was the difference of the two class
# means (section 1). That difference is a probe of its own, the **mass-mean** direction (Marks & Tegmark, 2023). Its
# threshold lies half-way between the means. Multiplied by the inverse covariance *within* the classes it becomes
# Fisher's linear discriminant (LDA), which looks where the classes differ most *relative to their spread*:
#
# $$w = m_1 - m_0 \qquad\text{or}\qquad w = \Sigma^{+} (m_1 - m_0), \qquad b = -\,w \cdot \tfrac{1}{2}(m_1 + m_0),$$
#
# $$\Sigma = \frac{1}{n} \sum_i (x_i - m_{y_i})(x_i - m_{y_i})^{\top} .$$
#
# $\Sigma^{+}$ is the pseudo-inverse (`torch.linalg.pinv(..., hermitian=True)`): the numbers of `world`'s stream add
# up to zero, so an ordinary inverse does not exist there.

# %% [markdown] exercise="1.5" role="task"
# ### Exercise 1.5 · Mass-mean, plain and whitened
#
# `y` holds 0 and 1. Compute the direction and the intercept by the formulas above; with `whiten=True` the second one.
# Every row is centred on the mean of *its own* class, and $\Sigma$ divides by $n$. Leave the direction's length as it
# comes out.
#
# **Return** a pair `(w, b)`: `[d]` and one number.

# %% exercise="1.5" role="answer" minutes=20 difficulty=2 importance=3
def mass_mean(
    x: Float[Tensor, "n d"], y: Int[Tensor, "n"], whiten: bool
) -> tuple[Float[Tensor, "d"], Float[Tensor, ""]]:
    """Direction from the mean of class 0 to that of class 1, whitened where asked, and the intercept for its middle."""
    ### BEGIN SOLUTION
    means = torch.stack([x[y == 0].mean(0), x[y == 1].mean(0)])
    w = means[1] - means[0]
    if whiten:
        residual = x - means[y.long()]
        w = torch.linalg.pinv(residual.T @ residual / len(x), hermitian=True) @ w
    return w, -w @ means.mean(0)
    ### END SOLUTION


# %% exercise="1.5" role="check" points=3
checks.mass_mean(mass_mean)
### BEGIN HIDDEN TESTS
checks.mass_mean(mass_mean, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Which is best? Plant the truth and see. Activations in 32 dimensions: the label moves them by ±1 along a direction
# $t$. A second feature, twice as strong, moves them by ±2 along a direction that leans towards $t$ (cosine 0.3). Noise
# comes on top. One data set to fit on is *balanced*: the second feature is independent of the label. In the other it is
# *confounded*: it agrees with the label in 95 % of the rows. The test set is *reversed*: there it never agrees.

# %%
def planted(agreement: float, seed: int, n: int = 600, d: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Activations [n d], labels [n] and the label's direction [d]; the second feature agrees with a share of labels."""
    generator = torch.Generator().manual_seed(seed)
    t, second = torch.eye(d)[0], 0.3 * torch.eye(d)[0] + (1 - 0.3**2) ** 0.5 * torch.eye(d)[1]
    label = torch.randint(0, 2, (n,), generator=generator) * 2 - 1
    feature = torch.where(torch.rand(n, generator=generator) < agreement, label, -label)
    noise = 0.5 * torch.randn(n, d, generator=generator)
    return label[:, None] * t + 2 * feature[:, None] * second + noise, label > 0, t


# %% [markdown]
# Four probes: mass-mean, whitened, logistic as everywhere in this chapter, and logistic with a weaker penalty. (In
# place of a pseudo-inverse the library can mix a little of the unit matrix into $\Sigma$, which makes it invertible:
# `shrinkage=0.001` mixes in a thousandth.)

# %%
KINDS = {
    "mass-mean": probes.fit_mass_mean,
    "whitened (LDA)": lambda x, y: probes.fit_mass_mean(x, y, whiten=True, shrinkage=0.001),
    "logistic": fit_linear,
    "logistic, C = 10": lambda x, y: probes.fit_logistic(x, y, C=10, standardize=True),
}
reversed_x, reversed_y, truth = planted(0.0, seed=2)
found = torch.zeros(2, 2, 4)  # fitting data, measure, kind
for i, agreement in enumerate((0.5, 0.95)):
    planted_x, planted_y, _ = planted(agreement, seed=1)
    for k, fit_kind in enumerate(KINDS.values()):
        probe = fit_kind(planted_x, planted_y)
        found[i, 0, k] = torch.cosine_similarity(probe.weight, truth, dim=0)
        found[i, 1, k] = probe.accuracy(reversed_x, reversed_y)

# %%
plots.heatmap(
    found,
    list(KINDS),
    ["cosine with the planted direction", "accuracy on the reversed set"],
    title="Four probes against a planted truth",
    xlabel="kind of probe",
    ylabel="measure",
    value="cosine, or accuracy",
    diverging=False,
    text=".2f",
    zmax=1,
    facets=["fitted on balanced data", "fitted on confounded data"],
)

# %% role="result"
assert found[0, 0, 0] > 0.97 and found[1, 1, 0] < 0.1 and (found[0, 1, 1:] > 0.9).all()
assert found[1, 1, 2] < found[1, 1, 1] < found[1, 1, 3]
[[list(KINDS)[int(best)] for best in part.argmax(-1)] for part in found]

# %% [markdown]
# Balanced data: mass-mean has found the planted direction, almost exactly. As a *classifier*, on the reversed set, it
# is the worst, since it does not step aside for the strong second feature. The others turn away from $t$ to avoid that
# feature, and read better for it. What reads best is not what was written in. Haufe et al. (2014) call the one a
# *filter*, which keeps other signals out, and the other a *pattern*, which shows how the signal was put in.
#
# Confounded data: mass-mean takes the second feature for the label, and gets nearly *everything* wrong where that is
# reversed. Among the others the order depends on the penalty. A strong one wants short weights, and leaning on the
# strong feature takes the shortest; with a weak one logistic regression holds up best.
#
# Does `world` behave like that? Confound its data: number of the subject, at the last word, fitted on sentences where
# the other noun agrees with the subject in 95 %. Tested, as always, where it does not.

# %%
def mixed(agreement: float, n: int = 600) -> list[world.Sentence]:
    """n sentences; in this share of them the two nouns have the same number."""
    drawn = in_pairs("agreement", 4 * n, seed=1, template="pp/0")
    same = [s for s in drawn if s.labels["number"] == s.labels["attractor_number"]]
    other = [s for s in drawn if s.labels["number"] != s.labels["attractor_number"]]
    return same[: round(agreement * n)] + other[: n - round(agreement * n)]


confounded = mixed(0.95)
confounded_x = stream(model, prompts_of(confounded))[1:, :, STUDENTS]
confounded_y = labelled(confounded, "number", "plural")
test_x = stream(model, prompts_of(testing))[1:, :, STUDENTS]
broken = {name: fit(confounded_x, confounded_y).accuracy(test_x, test_plural) for name, fit in KINDS.items()}

# %%
plots.lines(
    broken,
    LAYERS[1:],
    title="Fitted where the nouns agree in 95 %, tested where they do not",
    xlabel="layer",
    ylabel="accuracy",
)

# %% role="result"
assert broken["mass-mean"][0] < 0.05 and broken["logistic"][0] < 0.4 and 0.3 < broken["whitened (LDA)"][0] < 0.7
assert all(values[-1] > 0.97 for values in broken.values()) and number_map[1, STUDENTS] > 0.65
assert (broken["logistic"] >= broken["mass-mean"] - 0.01).all()
bool((broken["whitened (LDA)"] >= broken["logistic"] - 0.01).all())

# %% [markdown]
# After block 0 mass-mean reads the *wrong noun* in every sentence, and logistic regression in most; the whitened
# direction guesses. (Fitted on the balanced sentences of section 2, logistic regression got three of four right at this
# place.) After block 3 even this fitting set does no harm: by then the number of the subject outweighs all else at this
# word. In two other trainings, from seeds that do not ship with the course, mass-mean, logistic and whitened came in
# the same order after block 0; after how many blocks each recovers differs.
#
# On the planted data a weak penalty put logistic regression first. Here it does not, after block 0 or 1, nor with a
# weaker one. Which of the two reads better depends on the data; why it is the whitened direction here, we leave open.
# So: to read, logistic or whitened; to know (or to move) the direction itself, mass-mean on balanced data.

# %% [markdown]
# ## 6 Put it in, take it out
#
# All this was reading. Whether the model *acts* on what the probe finds, only an intervention can tell. Add the
# direction of number to the stream at one place: $x \leftarrow x + \alpha v$. If the verb turns from "is" to "are",
# that place matters. Or take a direction out: subtract the component along it, $x \leftarrow x - (x \cdot \hat v)\,
# \hat v$ with $\hat v = v / |v|$.

# %% [markdown] exercise="1.6" role="task"
# ### Exercise 1.6 · Intervene
#
# Run the model on `tokens`. In the residual stream *after* block `layer` (`blocks.{layer}.hook_resid_post`), at
# `position`, in every row of the batch: add `alpha` times `direction`, where `alpha` has one strength for each row;
# or, where `alpha` is `None`, take the component along `direction` (of any length) out. All other positions stay as
# they are.
#
# **Return** the logits, `[batch pos d_vocab]`.

# %% exercise="1.6" role="answer" minutes=20 difficulty=2 importance=3
def intervene(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    direction: Float[Tensor, "d_model"],
    layer: int,
    position: int,
    alpha: Float[Tensor, "batch"] | None,
) -> Float[Tensor, "batch pos d_vocab"]:
    """Logits when a direction is added to the stream after a block at one position, or taken out of it."""
    ### BEGIN SOLUTION

    def change(value, hook):
        value = value.clone()
        if alpha is None:
            unit = direction / direction.norm()
            value[:, position] -= (value[:, position] @ unit)[:, None] * unit
        else:
            value[:, position] += alpha[:, None] * direction
        return value

    return model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.hook_resid_post", change)])
    ### END SOLUTION


# %% exercise="1.6" role="check" points=3
checks.intervene(intervene)
### BEGIN HIDDEN TESTS
checks.intervene(intervene, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Now the map of section 2 once more, this time asking what each place *does*. At each layer and position, take the
# mass-mean direction there and add it once ($\alpha = 1$ where the subject is singular, $-1$ where it is plural). How
# often does the verb turn round?
#
# **Predict first.** After block 2 the probe reads the number at "near" in 96 % of the sentences (the best twin: 78 %).
# What happens when you add the direction there?
#
# - (a) hardly a verb turns round (fewer than one in ten)
# - (b) some do
# - (c) most do

# %% exercise="1.C" role="predict"
guess_turn = None  # "a", "b" or "c"
### BEGIN SOLUTION
guess_turn = "c"  # what a probe finds, a model need not use
### END SOLUTION

# %%
tests = testing[::3]
tokens = model.to_tokens(prompts_of(tests))
is_plural = labelled(tests, "number", "plural").to(tokens.device)
right_verb = torch.tensor([model.to_single_token(s.answer) for s in tests], device=tokens.device)
wrong_verb = torch.tensor([model.to_single_token(s.distractor) for s in tests], device=tokens.device)


def verb_gap(hooks: steering.Hooks) -> Float[Tensor, "text"]:
    """logit(right verb) - logit(wrong one) while the hooks change the stream."""
    logits = model.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1]
    rows = torch.arange(len(tests), device=tokens.device)
    return logits[rows, right_verb] - logits[rows, wrong_verb]


# %% [markdown]
# `steering.add_after` and `steering.ablate_after` make the hooks that you wrote by hand in 1.6; they take one position
# for each sentence.

# %%
def turned(v: Float[Tensor, "d_model"], block: int, position: int) -> Tensor:
    """Share of the sentences whose verb turns to the other number when v is added."""
    towards = torch.where(is_plural, -1.0, 1.0)
    hooks = steering.add_after(block, towards[:, None] * v, [position] * len(tests))
    return (verb_gap(hooks) < 0).float().mean()


def site_map(measure, v: Float[Tensor, "block pos d_model"]) -> Float[Tensor, "block pos"]:
    """A measure of the direction at each place, from the subject on (NaN before it)."""
    values = torch.full(v.shape[:2], torch.nan)
    for block in range(4):
        for position in range(BOY, STUDENTS + 1):
            values[block, position] = measure(v[block, position], block, position)
    return values


# %%
after_blocks = stream(model, prompts_of(fitting))[1:].transpose(1, 2)  # block, position, text, d_model
mean_direction = probes.fit_mass_mean(after_blocks, plural).weight
moved = site_map(turned, mean_direction)
random_moved = torch.stack([site_map(turned, steering.random_like(mean_direction, seed)) for seed in range(3)]).mean(0)

# %%
plots.heatmap(
    torch.stack([number_map[1:], moved, random_moved])[:, :, BOY:],
    prompt.split()[1:],
    LAYERS[1:],
    title="Where the number can be read, and where the model acts on it",
    xlabel="position",
    ylabel="layer",
    value="accuracy, or share of verbs turned round",
    diverging=False,
    text=".2f",
    zmax=1,
    facets=["a probe reads it", "adding it turns the verb", "a random direction (mean of 3)"],
)

# %% role="result"
assert random_moved[1:, BOY:].max() < 0.15 and random_moved[0, BOY] < 0.4
assert number_map[4, BOY] > 0.97 and moved[:, NEAR : SECOND_THE + 1].max() < 0.3
[(LAYERS[block + 1], prompt.split()[position - 1]) for block, position in (moved > 0.9).nonzero().tolist()]

# %%
assert number_map[3, NEAR] > 0.93 and twin_maps[:, 3, NEAR].max() < 0.85 and moved[2, NEAR] < 0.1
checks.prediction(
    guess_turn,
    {"a": "hardly a verb turns", "b": "some turn", "c": "most turn"},
    outcome="a",
    because=f"The probe's accuracy there is {number_map[3, NEAR]:.2f}, and {moved[2, NEAR]:.0%} of the verbs turn.",
)

# %% [markdown]
# There is the answer to the question of this chapter. From the subject on the probe reads the number nearly everywhere.
# Adding it changes what the model does at *two* words: at the subject, after blocks 0, 1 and 2, and at the last word,
# where the verb is chosen, a little after block 1 and ever more after that. In between, from block 2 on, it stands in
# plain sight at "near" and "the", and yet adding this direction there turns no verb. After the last block this must be
# so at every word but the last (nothing reads them any more); before, it need not. Random directions of the same length
# turn some verbs at "boy" after block 0, and nothing to speak of anywhere else.
#
# Other trainings? The table of the zoo (`utils/zoo/README.md`) has this experiment in three of them, on other sentences
# and with five random directions: the rows "number: verbs in the wrong number". In the two others the number leaves the
# subject one block earlier: after block 2 hardly a verb turns there, and all do at the last word. (In one of them
# adding at "the" turns up to a fifth of the verbs.)
#
# And taking it out? Measure how much of the logit difference between the right verb and the wrong one is left.

# %%
intact = verb_gap([])


def left(v: Float[Tensor, "d_model"], block: int, position: int) -> Tensor:
    """Share of the mean logit difference that is left when the component along v is set to zero."""
    return verb_gap(steering.ablate_after(block, v, [position] * len(tests))).mean() / intact.mean()


without, random_without = (site_map(left, v) for v in (mean_direction, steering.random_like(mean_direction, seed=0)))

# %%
plots.heatmap(
    torch.stack([without, random_without])[:, :, BOY:],
    prompt.split()[1:],
    LAYERS[1:],
    title="What is left of right minus wrong verb when a direction is taken out",
    xlabel="position",
    ylabel="layer",
    value="share of the mean difference",
    text=".2f",
    zmax=1.1,
    facets=["the direction of number", "a random direction"],
)

# %% role="result"
assert (random_without[:, BOY:] > 0.9).all() and (without[:, NEAR : SECOND_THE + 1] > 0.8).all()
assert without[3, STUDENTS].abs() < 0.1 and without[2, [BOY, STUDENTS]].max() > 0.5
[(LAYERS[block + 1], prompt.split()[position - 1]) for block, position in (without < 0.4).nonzero().tolist()]

# %% [markdown]
# Again the subject and the last word, but at fewer layers. After block 2 adding turned nearly every verb at "boy" and
# most at "students"; taking out leaves more than half of the preference at either. It takes less to turn the verb by
# adding than by removing. What is added has only to outweigh the rest; removing helps only if nothing else carries the
# number. After block 2 something does: another direction, or the other word. (In two other trainings, at "students"
# after block 2, adding turns every verb, and taking out leaves a fifth and a third of the preference.)
#
# At "boy" after block 0 and at "students" after block 3 nothing is left, on average. Is the model undecided there? Keep
# the question; "How this can fool you" takes it up.
#
# *A probe says what can be read. Where the model keeps what it uses is for an intervention to say.* Chapter 02 pursues
# the difference.
#
# Does it matter which direction you add? Stretch the weights of logistic regression to the length of the mass-mean
# direction. Compare at the places where mass-mean turned something (this choice favours it a little):

# %%
logistic = fit_linear(after_blocks, plural).weight
logistic = logistic * (mean_direction.norm(dim=-1) / logistic.norm(dim=-1))[..., None]
places = [(0, BOY), (1, BOY), (2, BOY), (1, STUDENTS), (2, STUDENTS), (3, STUDENTS)]
by_kind = torch.stack([torch.stack([turned(v[place], *place) for place in places]) for v in (mean_direction, logistic)])
plots.bars(
    by_kind,
    [f"{prompt.split()[position - 1]}, {LAYERS[block + 1]}" for block, position in places],
    names=["mass-mean", "logistic, same length"],
    title="Share of verbs turned round, by two directions",
    xlabel="place",
    ylabel="share",
)

# %% role="result"
assert (by_kind[0] >= by_kind[1] - 0.05).all()
[bool(share > 0.7) for share in by_kind[0]]

# %% [markdown]
# For moving the model mass-mean is at least as good at each of these places, and clearly better at two: it says what
# *is different* when the subject is plural, not what best tells plural from singular. Marks & Tegmark (2023) write of
# truth in larger models that difference-in-mean probes "generalize as well as other probing techniques while
# identifying directions which are more causally implicated in model outputs".

# %% [markdown]
# ## 7 Ordered labels, unequal classes
#
# So far a label said yes or no, and both were equally frequent. Not every label is like that. Raimondi & Gabbrielli
# (2026) read the six levels of Bloom's taxonomy ("remember" to "create") from the stream of language models, with about
# 95 % accuracy. With *ordered* levels there is more to see than accuracy: a probe that has found the order errs to a
# neighbour, one that guesses errs anywhere. And levels are rarely equally frequent.
#
# Our levels: in which fifth of its century does a war end? "The war began in 16 33 and ended in 16 **59**": level 2.
# Wars end after they begin, so late years are far more frequent.

# %%
wars = world.sentences("greater_than", 4000, seed=1, template="greater_than/1")
end = torch.tensor([int(s.answer) for s in wars])
level = end // 20
plots.bars(
    level.bincount(),
    ["00-19", "20-39", "40-59", "60-79", "80-99"],
    title="4000 wars by the end of their last year",
    xlabel="level",
    ylabel="number of sentences",
)

# %% [markdown]
# A probe that always says "80-99" is right in about half of them. **Down-sampling** removes that: keep as many rows
# of each class as the rarest has.

# %% [markdown] exercise="1.7" role="task"
# ### Exercise 1.7 · Down-sample to equal classes
#
# `y` holds a class (any whole number) for each row. Choose rows at random, without repetition, so that every class
# that occurs in `y` has as many rows as the rarest class. Every row of a class must have the same chance. The same
# `seed` gives the same rows, another seed others.
#
# **Return** the numbers of the chosen rows, in any order.

# %% exercise="1.7" role="answer" minutes=10 difficulty=1 importance=2
def downsample(y: Int[Tensor, "n"], seed: int) -> Int[Tensor, "chosen"]:
    """Row numbers of a random subset in which all classes are equally frequent."""
    ### BEGIN SOLUTION
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).to(y.device)
    classes, counts = y.unique(return_counts=True)
    return torch.cat([order[y[order] == c][: counts.min()] for c in classes])
    ### END SOLUTION


# %% exercise="1.7" role="check" points=1
checks.downsample(downsample)
### BEGIN HIDDEN TESTS
checks.downsample(downsample, hidden=True)
### END HIDDEN TESTS

# %% [markdown] exercise="1.8" role="task"
# ### Exercise 1.8 · Do errors go to the neighbour?
#
# `true` and `predicted` hold levels 0 to `n_levels` − 1; at least one prediction is wrong. Compute, over the *wrong*
# predictions only,
#
# - the share that lies exactly one level from the truth, on either side;
# - the share that would do so if every wrong prediction were drawn at random from the other `n_levels` − 1 levels,
#   all equally likely. Mind that the first and the last level have one neighbour, the others two: average over the
#   errors you have.
#
# **Return** a pair `(share, expected)` of numbers.

# %% exercise="1.8" role="answer" minutes=15 difficulty=2 importance=2
def adjacent_errors(true: Int[Tensor, "n"], predicted: Int[Tensor, "n"], n_levels: int) -> tuple[Tensor, Tensor]:
    """Share of the errors that go to an adjacent level, and the share expected if errors fell at random."""
    ### BEGIN SOLUTION
    is_error = true != predicted
    true, predicted = true[is_error], predicted[is_error]
    share = ((true - predicted).abs() == 1).float().mean()
    neighbours = (true > 0).float() + (true < n_levels - 1).float()
    return share, (neighbours / (n_levels - 1)).mean()
    ### END SOLUTION


# %% exercise="1.8" role="check" points=2
checks.adjacent_errors(adjacent_errors)
### BEGIN HIDDEN TESTS
checks.adjacent_errors(adjacent_errors, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# Read the level at the year's own word (its `answer_position`) in the embeddings, where no other word can help. Years
# are held out as groups: a probe that is asked about 59 has usually seen 58 and 60, but no 59. Three sets of rows: as
# many as they come; the first of each level, equally many (the sentences come in random order); and, as a control,
# these with the levels shuffled among the years, so that there is nothing to find.

# %%
rarest = level.bincount().min()
so_far = torch.nn.functional.one_hot(level).cumsum(0)[torch.arange(len(level)), level]  # rows of this level up to here
equal = (so_far <= rarest).nonzero()[:, 0]  # the sentences come in random order
as_they_come = torch.arange(len(equal))
shuffled = torch.randperm(100, generator=torch.Generator().manual_seed(0))[end] // 20


def read_levels(model: TransformerBridge, rows: Int[Tensor, "row"], labels: Int[Tensor, "n"]) -> Int[Tensor, "row"]:
    """The label that a probe reads in each row, from folds in which its year was held out."""
    x = stream(model, [wars[i].text for i in rows])[0, :, wars[0].answer_position]
    held_out = probes.group_folds(end[rows], 6)
    guesses = probes.fit_multinomial(x, labels[rows], C=0.1, standardize=True, folds=held_out).predict(x)
    return guesses.gather(0, held_out.int().argmin(0, keepdim=True).to(guesses.device))[0].cpu()


# %%
sets = {"as they come": (as_they_come, level), "equal": (equal, level), "shuffled levels": (equal, shuffled)}
accuracies = torch.zeros(2, 3)
for i, m in enumerate((model, twin)):
    for j, (rows, labels) in enumerate(sets.values()):
        accuracies[i, j] = (read_levels(m, rows, labels) == labels[rows]).float().mean()
plots.bars(
    accuracies,
    list(sets),
    names=["trained", "untrained twin"],
    title="The level of a year, read by a probe in the embeddings",
    xlabel="classes",
    ylabel="accuracy (years held out)",
)

# %%
shares = [labels[rows].bincount().max() / len(rows) for rows, labels in sets.values()]
print("always the commonest level:", ", ".join(f"{name} {share:.2f}" for name, share in zip(sets, shares)))
assert abs(shares[0] - 0.5) < 0.05 and accuracies[0, 0] > shares[0] + 0.05 and accuracies[0, 1] > 0.45
assert accuracies[1, 1] < accuracies[0, 1] - 0.2 and accuracies[:, 2].max() < 0.4

# %% [markdown]
# As they come, the commonest level alone gives half, and the twin falls below even that. With equal classes a guess
# gives a fifth, and the trained model is far above it. The twin is not: where the levels were shuffled its probe does
# as well. The trained model's probe still errs in nearly half of the rows. But look *where to*:

# %%
def error_table(model: TransformerBridge) -> Float[Tensor, "true read"]:
    """How often each level is read as which."""
    pairs = (level[equal], read_levels(model, equal, level))
    return torch.zeros(5, 5).index_put(pairs, torch.ones(len(equal)), accumulate=True)


def near_share(table: Float[Tensor, "true read"]) -> float:
    """Share of the errors that stand beside the diagonal."""
    beside = table.diagonal(1).sum() + table.diagonal(-1).sum()
    return float(beside / (table.sum() - table.trace()))


def scattered(table: Float[Tensor, "true read"]) -> Float[Tensor, "true read"]:
    """The same errors, each row's spread evenly over the other levels."""
    errors = table.sum(1) - table.diagonal()
    return errors[:, None] / 4 * (1 - torch.eye(5))


tables = torch.stack([error_table(model), error_table(twin)])

# %%
plots.heatmap(
    tables,
    ["00-19", "20-39", "40-59", "60-79", "80-99"],
    ["00-19", "20-39", "40-59", "60-79", "80-99"],
    title="Levels, and what was read",
    xlabel="read",
    ylabel="true",
    value="sentences",
    diverging=False,
    text=".0f",
    facets=["trained", "untrained twin"],
)

# %%
near = [near_share(table) for part in tables for table in (part, scattered(part))]
print("errors to a neighbour: trained {:.2f} (at random {:.2f}), twin {:.2f} (at random {:.2f})".format(*near))
assert near[0] > near[1] + 0.3 and near[2] < near[0] - 0.2

# %% [markdown]
# The ends are read well; 20-39 and 40-59 are taken for each other more often than for themselves. But in the trained
# model nearly all errors are such near misses, far more than at random. Its embeddings have the years in
# order, though a year is a word like any other to it, and the probe was never told that level 2 lies between 1 and 3.
# The accuracy alone would have hidden that.

# %% [markdown]
# ## How this can fool you
#
# In section 6, with the direction of number set to zero at "students" after block 3, nothing was left of the preference
# for the right verb, *on average*. Half of the sentences have a singular subject, half a plural one. Look at each half,
# at the three places where on average least was left. And set the component to another value too: the middle between
# the mean of the singular sentences and that of the plural ones (`ablate_after` takes it as `component=`).

# %%
def class_means(block: int, position: int) -> tuple[float, float]:
    """Mean component along the direction of number, singular and plural."""
    v = mean_direction[block, position]
    along = after_blocks[block, position] @ v / v.norm()
    return along[~plural].mean().item(), along[plural].mean().item()


def gaps(block: int, position: int, component: float) -> Float[Tensor, "number"]:
    """Mean of right minus wrong verb, singular and plural subjects apart, when the component is set."""
    hooks = steering.ablate_after(block, mean_direction[block, position], [position] * len(tests), component)
    gap = verb_gap(hooks)
    return torch.stack([gap[~is_plural].mean(), gap[is_plural].mean()])


# %%
emptied = [(0, BOY), (1, BOY), (3, STUDENTS)]
middles = [sum(class_means(*place)) / 2 for place in emptied]
nothing_done = torch.stack([intact[~is_plural].mean(), intact[is_plural].mean()])
at_zero = torch.stack([gaps(*place, 0.0) for place in emptied])
at_middle = torch.stack([gaps(*place, middle) for place, middle in zip(emptied, middles)])
plots.bars(
    torch.cat([torch.stack([nothing_done, *rows]).T for rows in (at_zero, at_middle)]),
    ["nothing done", *(f"{prompt.split()[position - 1]}, {LAYERS[block + 1]}" for block, position in emptied)],
    names=["singular, 0", "plural, 0", "singular, middle", "plural, middle"],
    title="Right minus wrong verb when the component is 0, or in the middle",
    xlabel="place",
    ylabel="logit difference",
)

# %%
print("class means at 'students' after block 3: singular {:.0f}, plural {:.0f}".format(*class_means(3, STUDENTS)))

# %% role="result"
assert at_zero[2].mean().abs() < 0.5 and at_middle[2].abs().max() < 1
bool(at_zero[2, 0] * at_zero[2, 1] < 0)

# %% [markdown]
# At "students" after block 3 with the component at 0 the model is not undecided at all. It says the *plural* verb,
# whatever the subject: wrong by 2.4 for the singular, right by 2.6 for the plural. The average of the two is nothing.
#
# *Zero is not "no number".* The singular sentences lie far on one side of it and the plural ones near it on the other,
# so zero looks plural. Half-way between the two the model really is nearly undecided. But half-way is no rule either:
# at "boy" after block 0 it makes the model say the *singular*, whatever the subject. At "boy" after block 1 zero
# happens to *be* the middle, and the right verb still wins in both classes. (In two other trainings the middle at
# "students" is again nearly neutral, and zero looks singular.) Where a model is neutral has to be measured, and in each
# class by itself.

# %% [markdown]
# ## On a real model
#
# Your `ridge_probes` on the smallest GPT-2, for the number of a subject, the verdict of a review, and the truth of a
# claim such as "Rabat is a city". The sentences are those of `world`, in words that GPT-2 knows; the probe is fitted
# and tested on different words, and read at the last token. It needs a network once, to fetch the weights, and then
# reads about a thousand short texts, one at a time. Without a network the next cells print one line and go on.

# %%
gpt2 = session.real_model("gpt2")

# %%
SETS = {
    "number": ("agreement", {"form": "pp"}, "plural"),
    "sentiment": ("review", {"form": "plain"}, "positive"),
    "truth": ("claim", {"template": "category/0"}, "true"),
}


def english(sentence: world.Sentence) -> str:
    """The prompt as GPT-2 has met text: a claim without its frame, no space before a mark."""
    text = sentence.prompt.removeprefix("Claim : ").removesuffix(" ?")
    for mark in (".", ":", "!"):
        text = text.replace(f" {mark}", mark)
    return text[0].upper() + text[1:]


# %% [markdown]
# Texts of unequal length are read one at a time, each at its own last token.

# %%
def last_token(model: TransformerBridge, texts: list[str]) -> Float[Tensor, "layer text d_model"]:
    """The stream at the last token, before the first block and after each."""
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers))]
    caches = (model.run_with_cache(text, names_filter=names)[1] for text in texts)
    return torch.stack([torch.stack([cache[name][0, -1] for name in names]) for cache in caches], dim=1)


def real_data(model: TransformerBridge, kind: str, split: str, n: int) -> tuple[Tensor, Tensor]:
    """Activations [layer n d_model] of n sentences, in minimal pairs, and their labels 1 or -1."""
    type, fixed, value = SETS[kind]
    drawn = world.sentences(type, n // 2, seed=1, split=split, **fixed)
    both = [*drawn, *(sentence.corrupted for sentence in drawn)]
    signs = torch.tensor([1.0 if sentence.labels[kind] == value else -1.0 for sentence in both])
    return last_token(model, [english(sentence) for sentence in both]), signs.to(session.device())


# %% [markdown]
# Standardise by the fitting sentences, fit a ridge probe at every layer, and count on sentences with other words:

# %%
def real_accuracy(model: TransformerBridge, kind: str) -> Float[Tensor, "layer"]:
    """Accuracy of your ridge probes by layer, fitted on 240 sentences, tested on 120 with other words."""
    x, y = real_data(model, kind, "train", 240)
    x_new, y_new = real_data(model, kind, "held_out_words", 120)
    mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True).clamp_min(1e-6)
    weight, bias = ridge_probes((x - mean) / std, y, 100.0)
    read = ((x_new - mean) / std @ weight[..., None])[..., 0] + bias[:, None]
    return ((read > 0) == (y_new > 0)).float().mean(-1)


# %%
if gpt2 is not None:
    print(english(world.sentences("claim", 1, seed=1, template="category/0")[0]))
    real = {kind: real_accuracy(gpt2, kind) for kind in SETS}
    display(
        plots.lines(
            real,
            ["embeddings", *(f"after block {i}" for i in range(gpt2.cfg.n_layers))],
            title="GPT-2: what your ridge probes read at the last token",
            xlabel="layer",
            ylabel="accuracy (new words; chance 0.5)",
        )
    )

# %% [markdown]
# What to ask of your curves: at which layer does the number become readable across a noun of the other number? (Half of
# the test sentences have one.) Does truth become linear at all in so small a model? Marks & Tegmark (2023) find it "at
# sufficient scale". And what would you have to run before you believe any of it? The control is one line:
# `real_accuracy(models.untrained_twin("gpt2"), "number")`, a GPT-2 with random weights.
#
# *This section has been tested on a model of GPT-2's architecture with random weights, not yet on GPT-2 itself.*

# %% [markdown]
# ## What you have now
#
# - A linear probe is a weighted sum with a threshold; **logistic regression** (1.1), **ridge** (1.2) and
#   **mass-mean** (1.5) are three ways to choose it. Reading best and pointing along what was written are different
#   aims.
# - What you hold out decides what you measure: new sentences, new words, new entities (1.3).
# - A **control task** says how much the probe could learn by heart (1.4); the **untrained twin** says what the words
#   alone give away.
# - Equal classes make accuracies comparable (1.7); where the errors go says whether an order was found (1.8).
# - A probe finds number at every word from the subject on. An **intervention** (1.6) finds it used at two. *Readable is
#   not used.* And zero is not "no number": look at each class by itself.
#
# **Open questions**
#
# - A direction was added with $\alpha = 1$. How far can one go before the stream is no longer one the model knows?
# - That adding a direction at "near" changes nothing does not prove that nothing there is used: perhaps by another
#   task, or in another direction. How would you look for a reader? (Chapter 02 takes whole subspaces out.)
# - Which control is the right one? Hewitt & Liang's random labels, an untrained model and held-out words answer three
#   different questions. Is there a measure that takes the effort of the probe into account? (Chapter 02: description
#   length.)

# %%
progress.table()

# %% [markdown]
# ## References
#
# - Alain & Bengio (2016), *Understanding intermediate layers using linear classifier probes*, [arXiv
#   1610.01644](https://arxiv.org/abs/1610.01644).
# - Belinkov (2022), *Probing Classifiers: Promises, Shortcomings, and Advances*, [arXiv
#   2102.12452](https://arxiv.org/abs/2102.12452).
# - Haufe et al. (2014), *On the interpretation of weight vectors of linear models in multivariate neuroimaging*,
#   NeuroImage 87: why weights that read are not patterns that were written.
# - Hewitt & Liang (2019), *Designing and Interpreting Probes with Control Tasks*, [arXiv
#   1909.03368](https://arxiv.org/abs/1909.03368).
# - Marks & Tegmark (2023), *The Geometry of Truth*, [arXiv 2310.06824](https://arxiv.org/abs/2310.06824): mass-mean
#   probes.
# - Raimondi & Gabbrielli (2026), *Mechanistic Interpretability of Cognitive Complexity in LLMs via Linear Probing
#   using Bloom's Taxonomy*, [arXiv 2602.17229](https://arxiv.org/abs/2602.17229).
