"""Tracing facts and indirect objects, and induction scores: on small random models, whose truth can be computed."""

import math
from dataclasses import replace

import pytest
import torch
from transformer_lens import TransformerBridge, patching
from transformer_lens.head_detector import detect_head

from utils import models
from utils.datasets import world
from utils.training.gpt2 import GPT2, Recipe, init_weights, to_hf
from utils.training.measure import facts, indirect_object, induction
from utils.training.measure import tracing as tracing_module
from utils.training.measure.accuracy import ids_of, second_copy_nll, token_ids

SMALL = Recipe(d_vocab=len(world.VOCABULARY), steps=1, n_layers=2, d_model=32, n_heads=2, d_mlp=64)
HEADS = [(layer, head) for layer in range(SMALL.n_layers) for head in range(SMALL.n_heads)]


def _random_model() -> GPT2:
    """Every parameter is random, and large enough for attention to be uneven."""
    model = init_weights(GPT2(SMALL.config()), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def _copying_model(sign: float = 1.0) -> GPT2:
    """Head 0.0 copies names (with a negative `sign` it suppresses them), head 0.1 writes nothing.

    Names live in the first half of the residual stream, all of one length and of mean 0; head 0.0 reads and writes that
    half as it is, and the unembedding is the embedding.
    """
    model = init_weights(GPT2(replace(SMALL, n_layers=1).config()), seed=0)
    vectors = torch.randn(SMALL.d_vocab, 16, generator=torch.Generator().manual_seed(0))
    vectors = torch.nn.functional.normalize(vectors - vectors.mean(-1, keepdim=True), dim=-1)
    with torch.no_grad():
        for weight in (model.embed.weight, model.unembed.weight):
            weight.zero_()[:, :16] = vectors
        model.pos_embed.weight.zero_()
        block = model.blocks[0]
        block.qkv.weight[64:] = torch.eye(32)
        block.attn_out.weight.copy_(sign * torch.eye(32))
    return model.eval()


def _bridge(model: GPT2, folder) -> TransformerBridge:
    to_hf(model).save_pretrained(folder)
    world.tokenizer().save_pretrained(folder)
    return models.load(folder, device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> TransformerBridge:
    torch.set_num_threads(1)
    return _bridge(_random_model(), tmp_path_factory.mktemp("random"))


@pytest.fixture(scope="module")
def capitals(model) -> tracing_module.Tracing:
    return facts.CapitalTracing(model)


@pytest.fixture(scope="module")
def recipients(model) -> dict[str, indirect_object.RecipientTracing]:
    return {form: indirect_object.RecipientTracing(model, form, n=16) for form in indirect_object.FORMS}


@pytest.fixture(scope="module")
def tracings(model, capitals, recipients) -> list[tracing_module.Tracing]:
    return [capitals, tracing_module.Tracing(model, facts.people("job/0", n=20)), *recipients.values()]


# --- Prompts ---


def test_prompts_end_before_the_answer_and_differ_at_the_subject():
    for prompts in (facts.capitals(), facts.capitals(2), facts.people("job/0", 20), facts.people("city/1", 20)):
        subject = prompts.positions["both names" if "both names" in prompts.positions else "the country"]
        differs = (prompts.clean != prompts.corrupted).all(0).nonzero().flatten().tolist()
        assert differs == list(subject)
        assert list(prompts.positions["the last position"]) == [prompts.clean.shape[1] - 1]
        assert (prompts.answers != prompts.distractors).all()


def test_positions_cover_the_prompt_from_the_subject_on():
    positions = dict(facts.people("job/0", n=5).positions)
    assert list(positions.pop("both names")) == [*positions["the first name"], *positions["the surname"]] == [1, 2]
    assert [position for where in positions.values() for position in where] == [1, 2, 3, 4, 5]


def test_sentences_of_two_templates_are_refused():
    batch = [world.fact("France", template=0), world.fact("France", template=2)]
    with pytest.raises(ValueError, match=r"batch: got sentences of templates \['capital/0', 'capital/2'\]"):
        tracing_module.Prompts.of(batch)


def test_names_stand_where_they_are_said_to(recipients):
    for tracing in recipients.values():
        tokens, rows = tracing.prompts.clean, torch.arange(16)
        assert torch.equal(tokens[rows, tracing.io], tracing.prompts.answers)
        assert torch.equal(tokens[rows, tracing.s1], tracing.prompts.distractors)
        assert torch.equal(tokens[:, tracing.s2], tracing.prompts.distractors)
        assert (tracing.io < tracing.s1).sum() == 8 and (tracing.s1 < tracing.s2).all()
        found = {tracing.io, tracing.s1, *tracing.others}
        names = torch.isin(tokens, ids_of(list(world.NAMES))).sum(-1)
        assert (names == len(found) + 1).all()  # and S2
        differs = (tokens != tracing.prompts.corrupted).nonzero()
        assert (differs[:, 1] == tracing.s2).all() and len(differs) == 16


def test_corrupted_sentences_are_the_clean_ones_in_another_order(recipients):
    for tracing in recipients.values():
        clean, corrupted = (sorted(batch.tolist()) for batch in (tracing.prompts.clean, tracing.prompts.corrupted))
        assert clean == corrupted
        assert tracing.corrupted_logit_diff == pytest.approx(-tracing.logit_diff, abs=1e-5)


# --- Attribution ---


def test_attribution_sums_to_the_logit_difference(tracings):
    for tracing in tracings:
        assert sum(tracing.direct_attribution().values()) == pytest.approx(tracing.logit_diff, abs=1e-5)


def test_attribution_of_heads_and_of_output_biases_is_that_of_attention(tracings):
    for tracing in tracings:
        heads, components = tracing.direct_attribution_of_heads(), tracing.direct_attribution()
        for layer, bias in enumerate(tracing.model.b_O):
            written = heads[layer].sum() + (bias * tracing.logit_diff_direction()).sum(-1).mean()
            assert written.item() == pytest.approx(components[f"attn {layer}"], abs=1e-5)


def test_heads_and_mlps_are_summed(capitals):
    by_heads, by_mlps = capitals.by_heads_and_mlps(capitals.logit_diff_direction())
    components = capitals.direct_attribution()
    assert by_mlps == pytest.approx(components["mlp 0"] + components["mlp 1"])
    assert by_heads == pytest.approx(capitals.direct_attribution_of_heads().sum().item())


def test_attribution_to_a_name_sums_to_its_logit(recipients):
    tracing = recipients["two_pairs"]
    logits = tracing.run([])[:, -1]
    names = ids_of(list(world.NAMES))
    by_components = logits - tracing.model.b_U
    for word in (tracing.prompts.answers, tracing.prompts.distractors):
        over_mean = by_components[torch.arange(16), word] - by_components[:, names].mean(-1)
        written = sum(tracing.attribute_components(tracing.direction_of_names(word)).values())
        assert written == pytest.approx(over_mean.mean().item(), abs=1e-4)


def test_attribution_to_the_two_names_differs_by_that_to_the_logit_difference(recipients):
    roles = recipients["one_pair"].head_roles()
    assert torch.allclose(roles.attribution_to_io - roles.attribution_to_s, roles.attribution, atol=1e-6)


# --- Patching and ablation ---


def test_patching_everything_gives_the_corrupted_run(tracings):
    for tracing in tracings:
        assert tracing.patch("blocks.0.hook_resid_pre", tracing_module.EVERYWHERE) == pytest.approx(1, abs=1e-4)
        assert tracing.patch("blocks.1.hook_resid_post", -1) == pytest.approx(1, abs=1e-4)


def test_patching_what_does_not_differ_does_nothing(tracings):
    for tracing in tracings:
        first = (tracing.prompts.clean != tracing.prompts.corrupted).any(0).nonzero()[0].item()
        assert tracing.patch_resid(range(first)).abs().max() < 1e-4
        after_last_block = tracing.patch_resid()[-1]
        assert after_last_block[:-1].abs().max() < 1e-4


def test_patching_agrees_with_transformer_lens(capitals):
    def sweep(patch):
        # The library patches a "clean" cache into a "corrupted" run; here it is the other way round.
        return patch(capitals.model, capitals.prompts.clean, capitals.corrupted, metric)

    def metric(logits):
        return torch.tensor(capitals._removed(logits))

    resid = sweep(patching.get_act_patch_resid_pre)
    everywhere = sweep(patching.get_act_patch_attn_head_out_all_pos)
    by_position = sweep(patching.get_act_patch_attn_head_out_by_pos)
    assert torch.allclose(capitals.patch_resid()[:-1], resid, atol=1e-5)
    assert torch.allclose(capitals.patch_heads(tracing_module.EVERYWHERE), everywhere, atol=1e-5)
    assert torch.allclose(capitals.patch_heads(), by_position[:, -1], atol=1e-5)


def test_several_positions_are_patched_at_once(tracings):
    people = tracings[1]
    moved = people.patch_resid([[1, 2], [1], [2]])[0]
    assert moved[0] == pytest.approx(1, abs=1e-4)  # both names are all that differs
    assert not torch.allclose(moved[1:], torch.ones(2), atol=1e-2)


def test_ablating_all_heads_of_a_block_is_ablating_its_attention(capitals):
    for position in (-1, tracing_module.EVERYWHERE):
        heads = capitals.ablate_heads([(1, 0), (1, 1)], position)
        assert heads == pytest.approx(capitals.ablate("blocks.1.hook_attn_out", "mean", position), abs=1e-4)


def test_several_activations_are_ablated_at_once(capitals):
    names = [f"blocks.{layer}.hook_{part}_out" for layer in range(2) for part in ("attn", "mlp")]
    last_token_alone, _ = capitals.ablate(["hook_embed", *names], "mean")
    assert capitals.ablate(names, "mean") != capitals.ablate(names[0], "mean")
    assert abs(last_token_alone) < 1e-4  # nothing knows the country, and every capital is as often answer as distractor


def test_mean_ablation_of_what_is_the_same_in_all_prompts_does_nothing(capitals):
    intact = pytest.approx((capitals.logit_diff, capitals.accuracy), abs=1e-6)
    assert capitals.ablate("blocks.0.hook_mlp_out", "mean", 1) == intact


def test_ablation_knows_its_kinds(capitals):
    with pytest.raises(ValueError, match="kind: got 'resample', expected 'zero' or 'mean'"):
        capitals.ablate("blocks.0.hook_mlp_out", "resample")


def test_best_heads_come_in_order():
    assert tracing_module.best(torch.tensor([[0.1, 0.9], [0.5, -1.0]]), 3) == [(0, 1), (1, 0), (0, 0)]


# --- Heads of the indirect object ---


def test_head_roles(recipients):
    for form, tracing in recipients.items():
        roles = vars(tracing.head_roles())
        assert all(values.shape == (2, 2) and values.isfinite().all() for values in roles.values())
        assert (roles["attention_to_others"] == 0).all() == (form == "one_pair")


def test_attention_to_names_is_that_to_their_tokens(recipients):
    tracing = recipients["two_pairs"]
    roles, tokens, prompts = tracing.head_roles(), tracing.prompts.clean, tracing.prompts
    pattern = tracing.clean["blocks.1.attn.hook_pattern"]

    def attention(query, keys):
        return (pattern[:, :, query] * keys[:, None]).sum(-1).mean(0)

    is_io, is_s = tokens == prompts.answers[:, None], tokens == prompts.distractors[:, None]
    at_s2 = torch.arange(tokens.shape[1]) == tracing.s2
    is_name = torch.isin(tokens, ids_of(list(world.NAMES)))
    for values, query, keys in (
        (roles.attention_to_io, -1, is_io),
        (roles.attention_to_s1, -1, is_s & ~at_s2),
        (roles.attention_to_s2, -1, is_s & at_s2),
        (roles.attention_to_others, -1, is_name & ~is_io & ~is_s),
        (roles.attention_s2_to_s1, tracing.s2, is_s & ~at_s2),
    ):
        assert torch.allclose(values[1], attention(query, keys), atol=1e-6)


def test_ablation_of_heads_is_what_the_logit_difference_loses(recipients):
    tracing = recipients["one_pair"]
    left, _ = tracing.ablate_heads([(1, 0)])
    assert tracing.ablation_of_heads()[1, 0].item() == pytest.approx(tracing.logit_diff - left, abs=1e-5)


def test_patching_before_s2_has_no_effect(recipients):
    tracing = recipients["bystander"]
    assert tracing.patch_heads(slice(0, tracing.s2)).abs().max() < 1e-4


def test_a_copying_head_has_a_copying_score_of_one(tmp_path):
    tracing = indirect_object.RecipientTracing(_bridge(_copying_model(), tmp_path), "one_pair", n=64)
    copies, writes_nothing = tracing.copying()[0].tolist()
    assert copies == 1 and writes_nothing < 0.2 and tracing.suppression()[0, 0] == 0


def test_a_suppressing_head_has_a_suppression_score_of_one(tmp_path):
    tracing = indirect_object.RecipientTracing(_bridge(_copying_model(-1.0), tmp_path), "one_pair", n=64)
    suppresses, writes_nothing = tracing.suppression()[0].tolist()
    assert suppresses == 1 and writes_nothing < 0.2 and tracing.copying()[0, 0] == 0


def test_copying_is_what_the_ov_circuit_does(recipients):
    tracing, names = recipients["one_pair"], ids_of(list(world.NAMES))
    for layer, head in HEADS:
        at_io = tracing.clean[f"blocks.{layer}.ln1.hook_normalized"][torch.arange(16), tracing.io]
        ov = tracing.model.W_V[layer, head] @ tracing.model.W_O[layer, head]
        first = names[(at_io @ ov @ tracing.model.W_U)[:, names].argmax(-1)]
        expected = (first == tracing.prompts.answers).float().mean().item()
        assert tracing.copying()[layer, head].item() == pytest.approx(expected)


# --- Induction ---


def test_stripes_of_made_up_patterns():
    previous = torch.zeros(1, 1, 5, 5)
    previous[0, 0, [1, 2, 3, 4], [0, 1, 2, 3]] = 1
    assert induction.stripe(previous, 1, 1).tolist() == [1] and induction.stripe(previous, 2, 2).tolist() == [0]
    uniform = torch.ones(3, 2, 4, 4).tril() / torch.arange(1, 5)[:, None]
    assert induction.stripe(uniform, 2, 3).tolist() == [0.25, 0.25]
    assert induction.stripe(uniform, 1, 2).tolist() == pytest.approx([(1 / 3 + 1 / 4) / 2] * 2)


def test_scores_agree_with_transformer_lens(model):
    period, batch = 6, induction.repeats(n=8, period=6)
    length, texts = 2 * period + 1, [sentence.text for sentence in batch]
    scores = induction.head_scores(model, batch)
    # The library divides what lies on the stripe by the attention of all queries, those without a stripe included.
    for values, name, queries in (
        (scores.previous_token, "previous_token_head", length - 1),
        (scores.induction, "induction_head", period),
        (scores.duplicate_token, "duplicate_token_head", period),
    ):
        expected = detect_head(model, texts, name) * length / queries
        assert torch.allclose(values, expected, atol=1e-5), name


def test_loss_without_heads(model):
    batch = induction.repeats(n=4)
    assert induction.nll_without(model, batch, []) == pytest.approx(second_copy_nll(model, batch), abs=1e-6)
    hooks = tracing_module.head_ablations([(0, 1)])
    mean = model.run_with_cache(token_ids(batch))[1]["blocks.0.attn.hook_z"][:, :, 1].mean(0)
    (name, hook), z = hooks[0], torch.randn(4, mean.shape[0], 2, 16)
    assert name == "blocks.0.attn.hook_z"
    assert torch.equal(hook(z, None)[:, :, 0], z[:, :, 0]) and not hook(z, None)[:, :, 1].std(0).any()
    assert induction.nll_without(model, batch, [(0, 1)]) != induction.nll_without(model, batch, [])


# --- Tables ---


@pytest.mark.parametrize("module", [facts, indirect_object, induction])
def test_measurements_are_finite_numbers_in_a_stable_order(model, module):
    values = module.measure(model)
    assert all(isinstance(value, float) and math.isfinite(value) for value in values.values())
    assert list(module.measure(model).items()) == list(values.items())
