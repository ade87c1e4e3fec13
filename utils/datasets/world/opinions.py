"""Reviews with their verdict, and feelings."""

import random

from utils.datasets.world import lexicon as lex
from utils.datasets.world.core import Draft, Group, Type, choose, choose_template, group, kind_of, pick

_VERDICT = " Sentiment : {answer} ."


def _review_group(form: str, bodies: list[str], held_out: list[str]) -> Group:
    return group(form, [f"Review : {b}{_VERDICT}" for b in bodies], [f"Review : {b}{_VERDICT}" for b in held_out])


REVIEW: dict[str, Group] = {
    "plain": _review_group(
        "plain",
        [
            "the {item} was {adjective} and the {part} was {adjective_2} .",
            "this {item} has a {adjective} {part} and a {adjective_2} {part_2} .",
            "what a {adjective} {item} !",
            "I think the {part} of the {item} was {adjective} .",
        ],
        ["I think the {item} was {adjective} .", "the {part} was {adjective} and the {part_2} was {adjective_2} ."],
    ),
    "verb": _review_group(
        "verb",
        [
            "I {verb} the {item} because the {part} was {adjective} .",
            "we {verb} the {adjective} {part} of the {item} .",
        ],
        ["I {verb} the {adjective} {item} ."],
    ),
    "negation": _review_group(
        "negation",
        [
            "the {part} of the {item} was not {opposite} .",
            "the {item} was not {opposite} and the {part} was {adjective} .",
            "this was not a {opposite} {item} .",
        ],
        ["the {item} was not {opposite} .", "I think the {part} was not {opposite} ."],
    ),
    "contrast": _review_group(
        "contrast",
        [
            "the {part} was {opposite} but overall the {item} was {adjective} .",
            "despite the {opposite} {part} the {item} was {adjective} .",
            "the {part} was {opposite} but I {verb} the {item} .",
        ],
        ["the {part} was {opposite} but the {item} was {adjective} ."],
    ),
}
FORMS = tuple(REVIEW)


def _by_sentiment(rng: random.Random, sentiment: str, split: str) -> dict[str, str]:
    good, bad = (lex.ADJECTIVES_BY_SPLIT[s][split] for s in (sentiment, lex.OPPOSITE[sentiment]))
    return {
        "adjective": pick(rng, good),
        "adjective_2": pick(rng, good),
        "opposite": pick(rng, bad),
        "verb": pick(rng, lex.OPINION_VERBS[sentiment]),
        "answer": sentiment,
    }


def _review(rng: random.Random, split: str, *, form=None, sentiment=None, template=None) -> Draft:
    form = choose(rng, "form", kind_of(template, form), FORMS)
    sentiment = choose(rng, "sentiment", sentiment, lex.SENTIMENTS)
    chosen = choose_template(rng, REVIEW[form], split, template)
    part, part_2 = rng.sample(lex.PARTS, 2)
    shared = {"item": pick(rng, lex.REVIEWED), "part": part, "part_2": part_2}
    flipped = lex.OPPOSITE[sentiment]
    return Draft(
        chosen,
        shared | _by_sentiment(rng, sentiment, split),
        {"sentiment": sentiment, "form": form},
        shared | _by_sentiment(rng, flipped, split),
        {"sentiment": flipped, "form": form},
    )


# What people do about it: where the adjectives held out from reviews show what they mean.
_FEELING = {
    "feeling": group(
        "feeling",
        """
        The {item} was {adjective} , so {name} {answer} .
        The {item} was {adjective} and {name} {answer} .
        Because the {item} was {adjective} , {name} {answer} .
        {name} saw the {adjective} {item} and {answer} .
        """,
        "Today the {item} was {adjective} , so {name} {answer} .",
    )
}
_REACTION = {"positive": "smiled", "negative": "frowned"}


def _feeling(rng: random.Random, split: str, *, sentiment=None, template=None) -> Draft:
    sentiment = choose(rng, "sentiment", sentiment, lex.SENTIMENTS)
    chosen = choose_template(rng, _FEELING["feeling"], split, template)
    shared = {"item": pick(rng, lex.REVIEWED + lex.OBJECTS), "name": pick(rng, lex.NAME_LIST)}

    def fills(s: str) -> dict[str, str]:
        return shared | {"adjective": pick(rng, lex.ADJECTIVES[s]), "answer": _REACTION[s]}

    flipped = lex.OPPOSITE[sentiment]
    return Draft(chosen, fills(sentiment), {"sentiment": sentiment}, fills(flipped), {"sentiment": flipped})


TYPES = {
    "review": Type(
        _review, ("answer",), 0.05, REVIEW,
        [
            *lex.REVIEWED, *lex.PARTS, *lex.SENTIMENTS, *(a for s in lex.SENTIMENTS for a in lex.ADJECTIVES[s]),
            *(v for s in lex.SENTIMENTS for v in lex.OPINION_VERBS[s]),
        ],
        "adjectives, which stand elsewhere only in feelings",
    ),
    "feeling": Type(_feeling, ("answer",), 0.02, _FEELING, [*_REACTION.values(), *lex.OBJECTS, *lex.NAMES]),
}  # fmt: skip
