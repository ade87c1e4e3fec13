"""The two language models on the toy English of `utils.datasets.world`: one corpus, one tokenizer, two architectures.

`world` has an MLP in every block. `world_heads` has one in block 0 only, and block 0 was trained to look at near
tokens: what has to be fetched from afar must be fetched by the attention of later blocks.
"""

from dataclasses import replace

from transformer_lens import TransformerBridge

from utils.datasets import world
from utils.training.gpt2 import Recipe
from utils.training.measure import accuracy, facts, indirect_object, induction, linear, steering
from utils.training.zoo import Claim, Entry


def _measure(model: TransformerBridge) -> dict[str, float]:
    found: dict[str, float] = {}
    for module in (accuracy, induction, facts, indirect_object, linear, steering):
        found |= module.measure(model)
    return found


def _measure_twin(model: TransformerBridge) -> dict[str, float]:
    """Controls for what an untrained model could give as well."""
    return induction.measure(model) | linear.measure(model)


_ANNOTATED: tuple[tuple[str, object], ...] = (
    ("countries whose capital, language and continent the corpus states", len(world.COUNTRIES)),
    ("invented people, with five facts each that follow from nothing", len(world.PEOPLE)),
    ("held-out templates are made of words of the corpus and never occur in it", True),
    ("held-out words (names, countries, nouns as subjects, adjectives, pairs) never occur in that type", True),
    ("nothing is claimed, true or false, of these words", len(world.NEVER_CLAIMED)),
    ("what is claimed is as often true as false, whatever it is", True),
    ("number of the subject and number of the attractor are independent", True),
    ("the recipient is named first (ABBA) as often as second (BABA)", True),
    ("rows of repeated random words, as a share of all rows; periods 4 to 24", world.REPEAT_SHARE),
    ("every word is one token", True),
)
_RECIPE = Recipe(d_vocab=len(world.VOCABULARY), steps=5000, answer_weight=3.0)

# --- What the cards claim -------------------------------------------------------------------------
#
# Bounds were set after seeing seed 0, those on moving and writing after seed 1 too; the last seed saw none of it.

_BY_TYPE = {  # what is counted -> least value on training templates, on held-out ones, on held-out words
    **{f"fact ({r}): top-1": (0.97, 0.9, None) for r in ("capital", "capital_of", "language", "continent")},
    **{f"category ({r}): top-1": (0.97, 0.9, None) for r in ("category", "gender")},
    **{f"two_hop ({r}): top-1": (0.97, 0.9, 0.9) for r in ("language", "continent")},
    **{f"person ({r}): top-1": (0.97, 0.9, None) for r in ("job", "city", "sport", "drink", "team")},
    "agreement (simple): the right form wins": (0.97, 0.9, 0.9),
    **{
        f"agreement ({form}, attractors of the other number): the right form wins": (0.97, 0.9, 0.9)
        for form in ("pp", "two_pps", "object_relative", "subject_relative")
    },
    **{f"pronoun ({form}): top-1": (0.97, 0.9, 0.9) for form in ("subject", "because")},
    **{f"indirect_object ({form}): top-1": (0.95, 0.9, 0.9) for form in ("one_pair", "bystander", "two_pairs")},
    **{f"review ({form}): top-1": (0.97, 0.9, 0.9) for form in ("plain", "verb", "negation", "contrast")},
    "feeling: top-1": (0.97, 0.9, None),
    "request: top-1": (0.97, 0.9, 0.9),
    **{f"arithmetic ({operation}): top-1": (0.97, 0.9, 0.9) for operation in ("plus", "minus")},
    "greater_than: probability of later years minus that of the others": (0.7, 0.5, 0.5),
}
_ACCURACY = tuple(
    Claim(f"{quantity}, {split}", at_least=bound)
    for quantity, bounds in _BY_TYPE.items()
    for split, bound in zip(accuracy.SPLIT_NAMES.values(), bounds, strict=True)
    if bound is not None
)
_VERDICTS = tuple(
    Claim(f"claim ({relation}): top-1, {split}", at_least=bound)
    for relation in ("category", "gender", "continent")
    for split, bound in zip(accuracy.SPLIT_NAMES.values(), (0.97, 0.9, 0.9), strict=True)
)
_SECOND_COPY = "loss on the second copy (nats per token)"
_INDUCTION = (
    Claim("repeat: loss on the second copy after its first word (nats per token), training templates", at_most=0.1),
    Claim("best induction score (share of attention)", at_least=0.9),
    Claim("best duplicate-token score (share of attention)", at_most=0.1),
    Claim(f"{_SECOND_COPY}, best 4 induction heads mean-ablated", at_least=4.0, tolerance=0.2),
    Claim(f"{_SECOND_COPY}, best previous-token head mean-ablated", at_least=1.0, tolerance=0.2),
)
_CAPITAL, _CAPITAL_CITY = "The capital of {country} is", "The capital city of {country} is called"
_PEOPLE = ("{person} works as a", "{person} has a house in")
_MOVED = "share of the logit difference moved by patching"
_WRITTEN = "share of the logit difference written by"
_MLP_0 = "top-1 accuracy with MLP 0 mean-ablated at"
_FORMS = ("one_pair", "bystander", "two_pairs")


_VERBS = "number: verbs in the wrong number"
_NUMBER_IN_USE = (  # bounds set after all seeds were seen
    Claim(f"{_VERBS}, direction added at the subject after block 0", at_least=0.9),
    Claim(f"{_VERBS}, direction added at the last word after block 3", at_least=0.9),
    Claim(f"{_VERBS}, random direction added at the subject after block 0", at_most=0.2),
    Claim(f"{_VERBS}, random direction added at the last word after block 3", at_most=0.1),
    Claim(f"{_VERBS}, INLP subspace taken out at the subject after block 0", at_least=0.2, tolerance=0.1),
    Claim(f"{_VERBS}, INLP subspace taken out at the subject after block 2", at_most=0.05),
    Claim(f"{_VERBS}, random subspace taken out at the subject after block 0", at_most=0.05),
)


def _steering(best: float) -> tuple[Claim, ...]:
    """That directions steer, random ones do not, and where sentiment is read without being used."""
    sorry, positive = "refusal: harmless requests answered Sorry", "sentiment: negative reviews called positive"
    sure, colon, end = "refusal: harmful requests answered Sure", 'at the ":"', "at the end of the statement"
    return (
        Claim(f"{sorry}, untouched", at_most=0.05),
        Claim(f"{sorry}, twice the direction added after the best block", at_least=best),
        Claim(f"{sorry}, twice a random direction added after the best block", at_most=0.2),
        Claim(f"{sure}, direction set to the harmless mean after the best block", at_least=best),
        Claim(f"{sure}, random direction set to the harmless mean after the best block", at_most=0.1),
        Claim(f"{positive}, twice the direction added {colon} after the best block", at_least=best),
        Claim(f"{positive}, twice a random direction added {colon} after the best block", at_most=0.3),
        Claim(f"{positive}, twice the direction added {end} after the best block", at_most=0.2),
    )


def _probes(last: int) -> tuple[Claim, ...]:
    """What is linear after the last block, and what in the embeddings already."""
    number, sentiment = "number: probe accuracy", "sentiment: probe accuracy"
    return (
        *(
            Claim(f"{number}, {test}, after block {last}", at_least=0.9)
            for test in ("object relatives", "two attractors", "held-out nouns")
        ),
        *(
            Claim(f'{sentiment}, {test}, at the ":", after block {last}', at_least=0.9)
            for test in ("contrast", "held-out templates", "held-out adjectives")
        ),
        Claim(f"{sentiment}, negation, bag of words", at_most=0.5),
        Claim(f"gender: probe accuracy, held-out names, after block {last}", at_least=0.9),
        Claim("continent: probe accuracy at the country, other countries, embeddings", at_least=0.9),
        Claim(f"continent: probe accuracy at the country, continents shuffled, after block {last}", at_most=0.4),
    )


_TRUTH = (
    *(
        Claim(f'truth: probe accuracy, fitted on category, tested on {test}, at the "?", after block 3', at_least=0.9)
        for test in (
            "category, held-out words", "gender", "gender, held-out words", "continent", "continent, held-out words",
        )
    ),
    *(
        Claim(f"truth: {kind}, direction of category added, {relation}", at_least=0.9, tolerance=0.05)
        for kind in ("false claims called true", "true claims called false")
        for relation in ("category", "gender", "continent")
    ),
    Claim("truth: false claims called true, twice a random direction added", at_most=0.3, tolerance=0.05),
    Claim("truth: true claims called false, twice a random direction added", at_most=0.3, tolerance=0.05),
)  # fmt: skip

_WORLD_CLAIMS = (
    *_ACCURACY,
    *_VERDICTS,
    *_INDUCTION,
    # The country moves in block 0, and the MLPs at the last position answer.
    *(
        claim
        for text in (_CAPITAL, _CAPITAL_CITY)
        for claim in (
            Claim(f"{text}: {_MOVED} the country before block 1", at_most=0.2),
            Claim(f"{text}: {_MOVED} the last position before block 1", at_least=0.8),
            Claim(f"{text}: share moved by patching the strongest head at the last position", at_least=0.5),
            Claim(f"{text}: block of that head", at_most=0),
            Claim(f"{text}: {_MLP_0} the country", at_least=0.97),
            Claim(f"{text}: {_MLP_0} the last position", at_most=0.5, tolerance=0.05),
            Claim(f"{text}: {_WRITTEN} MLPs (direct attribution)", at_least=0.85),
        )
    ),
    Claim(f"{_CAPITAL}: {_WRITTEN} MLP 3 (direct attribution)", at_least=0.4),
    Claim(f"{_CAPITAL}: top-1 accuracy with MLP 3 mean-ablated everywhere", at_least=0.9, tolerance=0.05),
    Claim(
        f"{_CAPITAL}: lowest top-1 accuracy with one attention layer after block 0 mean-ablated", at_least=0.97,
        tolerance=0.05,
    ),
    *(
        claim
        for text in _PEOPLE
        for claim in (
            Claim(f"{text}: {_MOVED} the last position before block 1", at_least=0.3),
            Claim(f"{text}: {_WRITTEN} MLPs (direct attribution)", at_least=0.6),
            Claim(f"{text}: {_MLP_0} the last position", at_most=0.6, tolerance=0.05),
        )
    ),
    # Heads copy both names, MLPs tell them apart.
    *(
        claim
        for form in _FORMS
        for claim in (
            Claim(f"{form}: {_WRITTEN} all MLPs", at_least=0.8),
            Claim(f"{form}: copying score of the best copier", at_least=0.9),
            Claim(f"{form}: share moved by patching the strongest head at the last position", at_least=0.5),
            Claim(f"{form}: block of the strongest head", at_most=0),
            Claim(f"{form}: attention of the strongest head to the giver's second mention", at_least=0.6),
        )
    ),
    *_probes(last=3),
    Claim('number: logit lens, share right, object relatives, after block 2', at_least=0.9),
    *_TRUTH,
    *_steering(best=0.9),
    *_NUMBER_IN_USE,
)  # fmt: skip
_HEADS_CLAIMS = (
    *_ACCURACY,
    *_INDUCTION,
    # What is known of the country is read off at the country, by MLP 0, and moved by heads of late blocks.
    *(
        claim
        for text in (_CAPITAL, _CAPITAL_CITY)
        for claim in (
            Claim(f"{text}: {_MOVED} the country before block 1", at_least=0.7),
            Claim(f"{text}: {_MOVED} the country before block 3", at_least=0.5),
            Claim(f"{text}: {_MOVED} the last position before block 4", at_least=0.5),
            Claim(f"{text}: block of that head", at_least=2),
            Claim(f"{text}: attention of that head to the country", at_least=0.8),
            Claim(f"{text}: {_MLP_0} the country", at_most=0.6, tolerance=0.05),
            Claim(f"{text}: {_MLP_0} the last position", at_least=0.97),
            Claim(f"{text}: {_WRITTEN} heads (direct attribution)", at_least=0.7),
        )
    ),
    *(
        claim
        for text in _PEOPLE
        for claim in (
            Claim(f"{text}: {_MOVED} both names before block 1", at_least=0.9),
            Claim(f"{text}: {_MOVED} the first name before block 1", at_least=0.2, tolerance=0.05),
            Claim(f"{text}: {_MOVED} the surname before block 1", at_least=0.2, tolerance=0.05),
            Claim(f"{text}: {_MLP_0} both names", at_most=0.5, tolerance=0.05),
            Claim(f"{text}: {_MLP_0} the last position", at_least=0.9),
            Claim(f"{text}: {_WRITTEN} heads (direct attribution)", at_least=0.9),
        )
    ),
    # Heads do it all: one reads the giver's second mention, later ones copy the recipient's name.
    *(
        claim
        for form in _FORMS
        for claim in (
            Claim(f"{form}: {_WRITTEN} all heads", at_least=0.95),
            Claim(f"{form}: top-1 accuracy with all MLPs mean-ablated at the last position", at_least=0.9),
            Claim(f"{form}: copying score of the best copier", at_least=0.9),
            Claim(f"{form}: attention of the best copier to the recipient", at_least=0.6, tolerance=0.05),
            Claim(f"{form}: attention of the best copier to the giver's first mention", at_most=0.3, tolerance=0.05),
            Claim(f"{form}: share moved by patching the strongest head at the last position", at_least=0.4),
            Claim(f"{form}: attention of the strongest head to the giver's second mention", at_least=0.9),
        )
    ),
    *_probes(last=4),
    *_steering(best=0.9),
)


WORLD = Entry(
    "world",
    "A four-layer GPT-2 trained on a toy English in which everything is known, with an MLP in every block. What it is "
    "asked about is moved to the last position early, by heads of block 0, and the MLPs there answer; of two names, "
    "heads copy both and MLPs tell them apart. Truth, sentiment and harm are directions that steer it.",
    _RECIPE,
    _measure,
    _measure_twin,
    _WORLD_CLAIMS,
    _ANNOTATED,
    checkpoints=(250, 500, 1000, 1500, 2500),
    watch=accuracy.watch,
)
WORLD_HEADS = Entry(
    "world_heads",
    "A five-layer GPT-2 trained on the toy English of `world`, with an MLP in block 0 alone, whose attention looks "
    "at near words. Facts are looked up where their subject stands and fetched by late heads; the indirect object is "
    "found by heads alone.",
    replace(_RECIPE, learning_rate=3e-3, n_layers=5, d_mlp=704, mlp_layers=(0,), local_window=2),
    _measure,
    _measure_twin,
    _HEADS_CLAIMS,
    _ANNOTATED,
    watch=accuracy.watch,
)
ENTRIES = (WORLD, WORLD_HEADS)
