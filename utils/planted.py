"""Models whose weights are set by hand, so that what they compute is known exactly.

They are GPT-2s like any other and go through the same tools. LayerNorm, which would make a construction inexact, is
made neutral: with an epsilon of 10⁶ and a scale of 10³ it divides by ``sqrt(1 + variance / 10⁶)``, which is 1 but for
rounding, and the features are directions of mean zero, so that subtracting the mean changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformer_lens import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from utils import models

CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Peru": "Lima"}
FOLLOWERS = {"<bos>": "The", "The": "capital", "capital": "of"} | dict.fromkeys(CAPITALS, "is")
FOLLOWERS |= dict.fromkeys(CAPITALS.values(), ".")
WORDS = ("<bos>", "<unk>", "The", "capital", "of", *CAPITALS, "is", *CAPITALS.values(), ".")
N_LAYERS, N_HEADS, D_MODEL, N_CTX = 4, 2, 48, 16


@dataclass(frozen=True)
class SecondThought:
    """A model that writes one capital, erases it, and says another; see `second_thought`.

    Attributes:
        model: a processed bridge.
        prompts: "The capital of France is", ..., one for each country.
        answers: what the model says, the right capitals.
        first_thoughts: the wrong capitals that it writes early on.
        country: directions that carry the country to the last position, [country d_model], of length 1.
        written_in, erased_in, answered_in: blocks whose MLP does so; `erased_in` is None where nothing is erased.
    """

    model: TransformerBridge
    prompts: Sequence[str]
    answers: Sequence[str]
    first_thoughts: Sequence[str]
    country: Float[Tensor, "country d_model"]
    written_in: int
    erased_in: int | None
    answered_in: int


def second_thought(seed: int = 0, erased: bool = True) -> SecondThought:
    """A model in which the logit lens reads, for sure, what has no bearing on the output.

    At "is" a head of block 0 fetches the country into directions that no word's unembedding shares. An MLP then
    writes the unembedding of a *wrong* capital, another one for each country, with a logit of 8. Some blocks later an
    MLP subtracts exactly as much of every capital as there is. The MLP of block 3 reads the country and writes the
    right capital, with a logit of 12. So the wrong capital is read with high probability for some layers, and taking
    it out changes nothing: there is just less to erase.

    Args:
        seed: draws the basis of the residual stream, which wrong capital belongs to which country, and the blocks that
            write and erase.
        erased: False leaves the wrong capital where it is, so that taking it out does change the output.
    """
    drawing = torch.Generator().manual_seed(seed)
    shift = 1 + int(torch.randint(len(CAPITALS) - 1, (), generator=drawing))
    written_in, erased_in = ((0, 1), (0, 2), (1, 2))[int(torch.randint(3, (), generator=drawing))]
    countries, capitals = list(CAPITALS), list(CAPITALS.values())
    thoughts = capitals[shift:] + capitals[:shift]
    names = [f"{kind} {word}" for kind in ("read", "say") for word in WORDS] + [f"at end {c}" for c in countries]
    feature = _features(names, drawing)

    hf = _empty()
    embed, unembed = hf.transformer.wte.weight, hf.lm_head.weight
    for i, word in enumerate(WORDS):
        unembed[i] = feature[f"say {word}"]
        embed[i] = feature[f"read {word}"]
        follower = FOLLOWERS.get(word)
        embed[i] += 8 * feature[f"say {follower}"] if follower else 0
    embed[WORDS.index("of")] += sum(8 * feature[f"say {c}"] for c in countries)

    read = [feature[f"read {c}"] for c in countries]
    at_end = [feature[f"at end {c}"] for c in countries]
    _move(hf, query=feature["read is"], rest=feature["read <bos>"], sources=read, targets=at_end)
    is_here = feature["read is"]
    _mlp(hf, written_in, [(a + is_here, -1.0, 8 * feature[f"say {w}"]) for a, w in zip(at_end, thoughts, strict=True)])
    if erased:
        _mlp(hf, erased_in, [(feature[f"say {c}"], 0.0, -feature[f"say {c}"]) for c in capitals])
    _mlp(hf, 3, [(a + is_here, -1.0, 12 * feature[f"say {c}"]) for a, c in zip(at_end, capitals, strict=True)])

    return SecondThought(
        model=models.wrap(hf, _tokenizer(), "second_thought"),
        prompts=[f"The capital of {c} is" for c in countries],
        answers=capitals,
        first_thoughts=thoughts,
        country=torch.stack(at_end),
        written_in=written_in,
        erased_in=erased_in if erased else None,
        answered_in=3,
    )


def _features(names: Sequence[str], drawing: torch.Generator) -> Mapping[str, Float[Tensor, " d_model"]]:
    """An orthonormal direction of mean zero for each name."""
    drawn = torch.randn(D_MODEL, len(names), generator=drawing, dtype=torch.float64)
    basis = torch.linalg.qr(drawn - drawn.mean(0)).Q.T
    return dict(zip(names, basis.float(), strict=True))


def _empty() -> GPT2LMHeadModel:
    """A GPT-2 without gradients whose weights are all zero, with neutral LayerNorms and ReLU."""
    config = GPT2Config(
        vocab_size=len(WORDS), n_positions=N_CTX, n_embd=D_MODEL, n_layer=N_LAYERS, n_head=N_HEADS, n_inner=8,
        activation_function="relu", layer_norm_epsilon=1e6, tie_word_embeddings=False, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn
        hf = GPT2LMHeadModel(config).requires_grad_(False)
    for name, parameter in hf.named_parameters():
        parameter.fill_(1e3 if "ln_" in name and name.endswith("weight") else 0.0)
    return hf


def _move(hf: GPT2LMHeadModel, query: Tensor, rest: Tensor, sources: list[Tensor], targets: list[Tensor]) -> None:
    """Head 0 of block 0: where `query` is, look for a source and write its target; elsewhere rest on <bos>."""
    attention, d_head = hf.transformer.h[0].attn, D_MODEL // N_HEADS
    to_q, to_k, to_v = attention.c_attn.weight.split(D_MODEL, dim=1)  # views
    sharpness = 40 * d_head**0.5
    attention.c_attn.bias[0] = 1.0  # every query asks for <bos>,
    to_k[:, 0] = sharpness / 2 * rest
    to_q[:, 1] = query  # and this one, twice as much, for a source
    to_k[:, 1] = sharpness * sum(sources)
    for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
        to_v[:, i] = source
        attention.c_proj.weight[i] = target


def _mlp(hf: GPT2LMHeadModel, block: int, neurons: list[tuple[Tensor, float, Tensor]]) -> None:
    """Neurons (reads, bias, writes): ReLU(reads · x + bias) times what each writes."""
    mlp = hf.transformer.h[block].mlp
    for i, (reads, bias, writes) in enumerate(neurons):
        mlp.c_fc.weight[:, i], mlp.c_fc.bias[i], mlp.c_proj.weight[i] = reads, bias, writes


def _tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<bos>", unk_token="<unk>", eos_token="<bos>", pad_token="<bos>",
        add_bos_token=True, model_max_length=N_CTX, name_or_path="planted",
    )  # fmt: skip
