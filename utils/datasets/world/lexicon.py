"""The words of the toy language, and what is so in its world."""

from collections.abc import Mapping
from dataclasses import dataclass

from utils.datasets.world.core import by_split, words

# --- Countries ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Country:
    """What the corpus says of a country: its capital, an official language, its continent.

    "America" stands for both Americas.
    """

    capital: str
    language: str
    continent: str


COUNTRIES: Mapping[str, Country] = {
    line.split()[0]: Country(*line.split()[1:])
    for line in """\
France Paris French Europe
Italy Rome Italian Europe
Germany Berlin German Europe
Spain Madrid Spanish Europe
Portugal Lisbon Portuguese Europe
Greece Athens Greek Europe
Austria Vienna German Europe
Ireland Dublin English Europe
Britain London English Europe
Finland Helsinki Finnish Europe
Sweden Stockholm Swedish Europe
Norway Oslo Norwegian Europe
Denmark Copenhagen Danish Europe
Iceland Reykjavik Icelandic Europe
Poland Warsaw Polish Europe
Hungary Budapest Hungarian Europe
Romania Bucharest Romanian Europe
Bulgaria Sofia Bulgarian Europe
Croatia Zagreb Croatian Europe
Ukraine Kyiv Ukrainian Europe
Russia Moscow Russian Europe
Turkey Ankara Turkish Asia
China Beijing Chinese Asia
Japan Tokyo Japanese Asia
India Delhi Hindi Asia
Nepal Kathmandu Nepali Asia
Pakistan Islamabad Urdu Asia
Thailand Bangkok Thai Asia
Vietnam Hanoi Vietnamese Asia
Iran Tehran Persian Asia
Iraq Baghdad Arabic Asia
Lebanon Beirut Arabic Asia
Mongolia Ulaanbaatar Mongolian Asia
Egypt Cairo Arabic Africa
Morocco Rabat Arabic Africa
Tunisia Tunis Arabic Africa
Kenya Nairobi Swahili Africa
Ghana Accra English Africa
Nigeria Abuja English Africa
Senegal Dakar French Africa
Angola Luanda Portuguese Africa
Canada Ottawa English America
Cuba Havana Spanish America
Peru Lima Spanish America
Chile Santiago Spanish America
Ecuador Quito Spanish America
Colombia Bogota Spanish America
Brazil Brasilia Portuguese America
Australia Canberra English Oceania
""".splitlines()
}
COUNTRY_NAMES = tuple(COUNTRIES)
COUNTRIES_BY_SPLIT = by_split(COUNTRY_NAMES)
CAPITALS = tuple(c.capital for c in COUNTRIES.values())
LANGUAGES = tuple(dict.fromkeys(c.language for c in COUNTRIES.values()))
CONTINENTS = tuple(dict.fromkeys(c.continent for c in COUNTRIES.values()))

# --- People ---------------------------------------------------------------------------------------

GENDERS = ("female", "male")
_FEMALE = words(
    "Mary Anna Linda Susan Sarah Karen Nancy Lisa Helen Sandra Carol Ruth Laura Emily Amy Kate Alice Julia Emma Clara "
    "Lucy Nora Eva Maria Diana Irene Olga Zoe Hannah Jane"
)
_MALE = words(
    "John Tom James Robert Michael David Richard Joseph Charles Daniel Matthew Paul Steven Andrew Kevin Brian George "
    "Edward Peter Henry Jack Adam Nathan Arthur Oscar Felix Leo Hugo Simon Martin"
)
NAMES: Mapping[str, str] = {n: "female" for n in _FEMALE} | {n: "male" for n in _MALE}
NAME_LIST = tuple(NAMES)
NAMES_BY_SPLIT = by_split(NAME_LIST)
PRONOUNS = {"female": ("She", "she"), "male": ("He", "he")}
NAMES_BY_GENDER = {
    split: {gender: tuple(name for name in names if NAMES[name] == gender) for gender in GENDERS}
    for split, names in NAMES_BY_SPLIT.items()
}
GENDER_NOUNS = {"female": "woman", "male": "man"}

# --- Things, places, numbers ----------------------------------------------------------------------

PLACES = words("store park school office garden station library market museum hospital beach restaurant farm theater")
OBJECTS = words(
    "drink book ring ball key map letter gift hat phone lamp cup knife rope coin basket flower ticket camera"
)
NUMBERS_IN_WORDS = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen"
)
DRINKS = words("tea coffee milk juice water soda")
SPORTS = words("tennis soccer golf chess hockey rugby boxing rowing")
TEAMS = words("lions bears hawks sharks")
JOBS = words("carpenter tailor nurse miner painter plumber barber butcher judge cook jeweler printer")
CITIES = words("Paris Madrid Berlin Rome Lisbon Athens Vienna Dublin Moscow Tokyo Cairo Lima")

# --- Nouns and verbs ------------------------------------------------------------------------------

NUMBERS = ("singular", "plural")
FLIPPED = {"singular": "plural", "plural": "singular"}
FORM_OF = {"singular": 0, "plural": 1}  # index into a (singular, plural) pair of verb forms
NOUNS: Mapping[str, tuple[str, ...]] = {
    "singular": words(
        "dog cat boy girl teacher doctor farmer lawyer pilot author artist singer guard student king queen child "
        "woman man horse bird cow sailor baker driver painter wolf rabbit prince soldier"
    ),
    "plural": words(
        "dogs cats boys girls teachers doctors farmers lawyers pilots authors artists singers guards students kings "
        "queens children women men horses birds cows sailors bakers drivers painters wolves rabbits princes soldiers"
    ),
}
NOUNS_BY_SPLIT = {
    split: tuple(NOUNS["singular"].index(noun) for noun in nouns)
    for split, nouns in by_split(NOUNS["singular"]).items()
}  # indices
_STATES = words("old new here ready late happy tired")
_PARTICIPLES = words("arrived fallen moved changed")
_ADVERBS = words("now often again quietly")
# (singular, plural): the words that may follow
VERBS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("is", "are"): _STATES,
    ("was", "were"): _STATES,
    ("has", "have"): _PARTICIPLES,
    ("walks", "walk"): _ADVERBS,
    ("runs", "run"): _ADVERBS,
    ("sings", "sing"): _ADVERBS,
    ("sleeps", "sleep"): _ADVERBS,
    ("waits", "wait"): _ADVERBS,
    ("smiles", "smile"): _ADVERBS,
}
INNER_VERBS = (("likes", "like"), ("sees", "see"), ("knows", "know"), ("follows", "follow"), ("helps", "help"))
PREPOSITIONS = words("near behind beside above below with")
GIVING = words("gave handed passed offered sent")

# --- Adjectives of praise and blame ---------------------------------------------------------------

SENTIMENTS = ("positive", "negative")
OPPOSITE = {"positive": "negative", "negative": "positive"}
ADJECTIVES: Mapping[str, tuple[str, ...]] = {
    "positive": words(
        "good great wonderful superb excellent brilliant delightful charming lovely fantastic amazing perfect "
        "beautiful clever funny fresh pleasant splendid impressive magnificent graceful touching enjoyable marvelous "
        "elegant"
    ),
    "negative": words(
        "bad awful terrible horrible boring dull dreadful stupid ugly clumsy annoying weak poor disappointing painful "
        "tedious nasty lazy pathetic miserable cheap messy bland ridiculous unpleasant"
    ),
}
ADJECTIVES_BY_SPLIT = {sentiment: by_split(adjectives) for sentiment, adjectives in ADJECTIVES.items()}
OPINION_VERBS = {"positive": words("loved enjoyed adored"), "negative": words("hated disliked despised")}
REVIEWED = words("movie film play novel concert show song meal dinner hotel")
PARTS = words("acting story music ending dialogue service food plot cast writing")
