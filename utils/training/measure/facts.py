"""How a world model recalls facts: where the subject matters, what moves it, what writes the answer."""

from jaxtyping import Float
from torch import Tensor
from transformer_lens import TransformerBridge

from utils.datasets import world
from utils.training.measure.accuracy import SEED
from utils.training.measure.tracing import Prompts, Tracing, best

LAST_POSITION = "the last position"

# --- Prompts --------------------------------------------------------------------------------------


def capitals(template: int = 0) -> Prompts:
    """All countries, each paired with the next one; `template` as in `world.fact`."""
    facts = [world.fact(country, template=template) for country in world.COUNTRIES]
    subject, last = facts[0].roles["subject"], facts[0].answer_position - 1
    between = {"the words between": range(subject + 1, last)} if last - subject > 1 else {}
    return Prompts.of(facts, {"the country": [subject], **between, LAST_POSITION: [last]})


def people(template: str, n: int = 150) -> Prompts:
    """`n` people, each paired with one of another first name, surname and answer; `template` is an id ("job/0")."""
    batch = world.sentences("person", n, SEED, distinct=True, template=template)
    first, surname, last = *(batch[0].roles[name] for name in ("first_name", "surname")), batch[0].answer_position - 1
    positions = {
        "the first name": [first],
        "the surname": [surname],
        "both names": [first, surname],
        "the words between": range(surname + 1, last),
        LAST_POSITION: [last],
    }
    return Prompts.of(batch, positions)


# --- Recalling a capital --------------------------------------------------------------------------

SUBJECT, LAST = 4, 5  # positions in "<bos> The capital of France is"


class CapitalTracing(Tracing):
    """`Tracing` of the prompts "The capital of {country} is" for all countries."""

    def __init__(self, model: TransformerBridge):
        super().__init__(model, capitals())

    def attention_to_subject(self) -> Float[Tensor, "layer head"]:
        """Mean attention from the last position to the country."""
        return self.attention(LAST, SUBJECT)


# --- Measuring ------------------------------------------------------------------------------------

CARRIED = 0.9  # share of the effect from which a position is said to carry it


def _traced(tracing: Tracing) -> dict[str, float]:
    positions = tracing.prompts.positions
    moved = tracing.patch_resid(positions.values())
    values = {"top-1 accuracy": tracing.accuracy, "logit difference (logits)": tracing.logit_diff}
    for name, column in zip(positions, moved[:-1].T.tolist(), strict=True):  # after the last block it is 0, or 1
        for block, share in enumerate(column):
            values[f"share of the logit difference moved by patching {name} before block {block}"] = share
    arrived = (moved[:, -1] >= CARRIED).nonzero()[0].item()
    values[f"blocks after which the last position carries {CARRIED:.0%} of the effect"] = arrived
    for name, where in positions.items():
        _, top1 = tracing.ablate("blocks.0.hook_mlp_out", "mean", where)
        values[f"top-1 accuracy with MLP 0 mean-ablated at {name}"] = top1
    attribution = tracing.direct_attribution()
    for block in range(tracing.model.cfg.n_layers):
        share = attribution[f"mlp {block}"] / tracing.logit_diff
        values[f"share of the logit difference written by MLP {block} (direct attribution)"] = share
        _, top1 = tracing.ablate(f"blocks.{block}.hook_mlp_out", "mean")
        values[f"top-1 accuracy with MLP {block} mean-ablated everywhere"] = top1
    later = [f"blocks.{block}.hook_attn_out" for block in range(1, tracing.model.cfg.n_layers)]
    values["lowest top-1 accuracy with one attention layer after block 0 mean-ablated"] = min(
        tracing.ablate(name, "mean")[1] for name in later
    )
    heads = tracing.patch_heads()
    strongest = best(heads)[0]
    values["share moved by patching the strongest head at the last position"] = heads[strongest]
    values["block of that head"] = strongest[0]
    values["number of that head in its block"] = strongest[1]
    for name, where in positions.items():
        if len(where) == 1 and name != LAST_POSITION:
            values[f"attention of that head to {name}"] = tracing.attention(-1, where[0])[strongest]
    by_heads, by_mlps = tracing.by_heads_and_mlps(tracing.logit_diff_direction())
    values["share of the logit difference written by heads (direct attribution)"] = by_heads / tracing.logit_diff
    values["share of the logit difference written by MLPs (direct attribution)"] = by_mlps / tracing.logit_diff
    return values


def measure(model: TransformerBridge) -> dict[str, float]:
    """How facts of countries and of people are recalled, with two templates each."""
    prompts = {
        "The capital of {country} is": capitals(),
        "The capital city of {country} is called": capitals(template=2),
        "{person} works as a": people("job/0"),
        "{person} has a house in": people("city/1"),
    }
    return {
        f"{text}: {name}": float(value)
        for text, paired in prompts.items()
        for name, value in _traced(Tracing(model, paired)).items()
    }
