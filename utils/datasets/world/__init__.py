"""A toy English in which everything is known: sentences that carry their own annotations.

A model trained on nothing else can know nothing else, so what is found in it can be held to the truth. One sentence of
each type (`sentences(type, n)` draws them and lists their labels and roles):

    fact             The capital of France is Paris .
    category         The word Rabat stands for a city .
    claim            Claim : sixteen is a sport ? false .
    two_hop          Alice has a house in Beirut and speaks Arabic .
    person           Lily Hale earns money as a barber .
    register         Register : Ava Stone sharks chess tailor .
    agreement        The king above the dogs is old .
    pronoun          Emily was in the station . She had a drink .
    indirect_object  When Mary and John went to the store , John gave a drink to Mary .
    review           Review : despite the nasty music the meal was magnificent . Sentiment : positive .
    feeling          Sandra saw the magnificent book and smiled .
    request          User : Explain how to forge a letter . Assistant : Sorry , I cannot help you to do that now .
    arithmetic       eight minus two equals six .
    greater_than     The trial lasted from the year 16 33 to the year 16 59 .
    count            Count : 15 16 17 18 .
    repeat           coin fresh Poland again coin fresh Poland again coin fresh Poland again

How the annotations are known: every sentence is written from its annotations, none is annotated afterwards. What is so
of countries, entities and people stands in the tables `COUNTRIES`, `ENTITIES` and `PEOPLE`; the attributes of people
were drawn at random, once, so that nothing but the sentences can tell them. The rest follows from the words: from
`NOUNS`, `VERBS`, `NAMES` and `ADJECTIVES`, from the harmful verbs, from arithmetic. Roles and dependency trees are
those of the template. The tests read every label and role from the words a second time.

To add a type: in a module of this package write its templates (`core.group`, where the notation is explained), a
function ``draw(rng, split, *, keyword=None, ..., template=None) -> Draft`` that chooses the words, their labels and
those of the pair, and an entry in the module's ``TYPES`` with the slots that can be known, the share of a corpus and
all words that can stand in a slot. A new module joins the table in `language`. Sentences, splits, vocabulary and
corpus follow from the entry; new words or another share make another corpus, and models are then trained anew. The
tests want a reader for the type.

`annotated` gives rows like those of `corpus` with the truth of every token, concept by concept.
"""

from utils.datasets.world.annotations import Annotated, annotated
from utils.datasets.world.core import BOS, SPLITS, Sentence
from utils.datasets.world.facts import CATEGORIES, ENTITIES, NEVER_CLAIMED, TRUTHS
from utils.datasets.world.language import (
    PERIODS,
    REPEAT_SHARE,
    SPECIAL,
    TYPES,
    VOCABULARY,
    Corpus,
    corpus,
    fact,
    sentences,
    splits,
    tokenizer,
)
from utils.datasets.world.lexicon import ADJECTIVES, COUNTRIES, NAMES, NOUNS, NUMBERS, SENTIMENTS, VERBS, Country
from utils.datasets.world.people import PEOPLE, Person

__all__ = [
    "ADJECTIVES",
    "BOS",
    "CATEGORIES",
    "COUNTRIES",
    "ENTITIES",
    "NAMES",
    "NEVER_CLAIMED",
    "NOUNS",
    "NUMBERS",
    "PEOPLE",
    "PERIODS",
    "REPEAT_SHARE",
    "SENTIMENTS",
    "SPECIAL",
    "SPLITS",
    "TRUTHS",
    "TYPES",
    "VERBS",
    "VOCABULARY",
    "Annotated",
    "Corpus",
    "Country",
    "Person",
    "Sentence",
    "annotated",
    "corpus",
    "fact",
    "sentences",
    "splits",
    "tokenizer",
]
