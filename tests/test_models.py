"""Loading: what comes out is complete, silent and the same as TransformerLens gives; what is broken is refused."""

import copy
import json
import logging
import random
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer, BertConfig, GPT2Config, GPT2LMHeadModel
from transformers.utils import logging as hf_logging

from tests.local_gpt2 import PLACES, WORLD_WORDS, make_local_gpt2, make_local_world, write_card
from utils import models

TEXT = "The capital of France is"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("a test opened a socket")

    for function in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, function, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"gpt2": make_local_gpt2(folder / "gpt2"), "world": make_local_world(folder / "world", card=True)}


@pytest.fixture
def gpt2_folder(originals, tmp_path):
    return Path(shutil.copytree(originals["gpt2"], tmp_path / "local"))


@pytest.fixture
def zoo(originals, tmp_path, monkeypatch):
    """A zoo with one model, `planet`."""
    folder = Path(shutil.copytree(originals["world"], tmp_path / "zoo" / "planet"))
    write_card(folder, name="planet")
    monkeypatch.setattr(models, "ZOO", tmp_path / "zoo")
    return tmp_path / "zoo"


@pytest.fixture(scope="module")
def gpt2(originals):
    return models.load(originals["gpt2"], device="cpu")


@pytest.fixture(scope="module")
def world(originals):
    return models.load(originals["world"], device="cpu")


def refused(name, *parts, load=models.load):
    """`load` of `name` raises a ModelError of one line that contains all `parts`."""
    with pytest.raises(models.ModelError) as caught:
        load(name)
    message = str(caught.value)
    assert "\n" not in message
    assert 40 < len(message) < 700
    error = caught.value
    assert error.__context__ is None or error.__suppress_context__  # no stack of another library above the sentence
    for part in parts:
        assert part in message, message


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


# --- What comes out


def test_is_the_model_in_the_folder(originals):
    hf_model = GPT2LMHeadModel.from_pretrained(originals["gpt2"]).eval()
    model = models.load(originals["gpt2"], processed=False, device="cpu")
    tokens = model.to_tokens(TEXT)
    torch.testing.assert_close(model(tokens), hf_model(tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "world"])
def test_processing_keeps_the_predictions(originals, name):
    raw, processed = (models.load(originals[name], processed=p, device="cpu") for p in (False, True))
    tokens = raw.to_tokens(TEXT)
    torch.testing.assert_close(raw(tokens).log_softmax(-1), processed(tokens).log_softmax(-1), atol=1e-4, rtol=0)


def test_same_as_transformer_lens_alone(originals, gpt2):
    theirs = TransformerBridge.boot_transformers(str(originals["gpt2"]), device="cpu")
    ours = models.load(str(originals["gpt2"]), processed=False, device="cpu")
    assert vars(ours.cfg) == vars(theirs.cfg)
    assert gpt2.cfg.default_prepend_bos == theirs.cfg.default_prepend_bos
    assert gpt2.cfg.tokenizer_prepends_bos == theirs.cfg.tokenizer_prepends_bos
    for text in (TEXT, "<|endoftext|>" + TEXT, [TEXT, "Rome"]):
        for prepend_bos in (None, True, False):
            expected = theirs.to_tokens(text, prepend_bos=prepend_bos)
            assert gpt2.to_tokens(text, prepend_bos=prepend_bos).equal(expected)
    tokens = theirs.to_tokens(TEXT)
    assert ours(tokens).equal(theirs(tokens))


def test_the_stand_in_tokenizes_like_gpt2(gpt2):
    assert gpt2.to_str_tokens(TEXT) == ["<|endoftext|>", "The", " capital", " of", " France", " is"]
    for country, city in PLACES.items():
        assert gpt2.to_string(gpt2.to_single_token(f" {city}")) == f" {city}"
        assert gpt2.to_string(gpt2.to_single_token(f" {country}")) == f" {country}"
    assert gpt2.tokenizer.bos_token_id == gpt2.tokenizer.eos_token_id
    assert gpt2.to_string(gpt2.to_tokens("naïve ∑ 😀", prepend_bos=False)[0]) == "naïve ∑ 😀"


def test_ready_for_inspection(gpt2, world):
    for model in (gpt2, world):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        _, cache = model.run_with_cache(TEXT)
        assert cache["pattern", 0].shape == (1, 2, 6, 6)
        assert cache["blocks.0.attn.hook_z"].shape[2] == 2


def test_gradients_on_request(originals):
    model = models.load(originals["world"], device="cpu").requires_grad_(True)
    _, cache = model.run_with_cache(TEXT, return_type="loss", incl_bwd=True)
    assert cache["blocks.0.hook_resid_post_grad"].abs().sum() > 0


@pytest.mark.parametrize("name", ["gpt2", "world"])
def test_direct_logit_attribution_adds_up(originals, name):
    from transformer_lens.tools.analysis import direct_logit_attribution

    model = models.load(originals[name], device="cpu")
    answer, wrong = (" Paris", " Rome") if name == "gpt2" else ("Paris", "Rome")
    result = direct_logit_attribution(model, TEXT, answer, wrong)
    ids = [model.to_single_token(word) for word in (answer, wrong)]
    difference = (model(TEXT)[0, -1] - model.b_U)[ids]
    torch.testing.assert_close(result.attribution.sum(), difference[0] - difference[1], atol=1e-4, rtol=1e-4)


def test_half_precision_files_load_in_single(gpt2_folder):
    def halve(weights):
        weights.update({key: value.half() for key, value in weights.items()})

    edit_weights(gpt2_folder, halve)
    model = models.load(gpt2_folder, device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_loads_are_independent(originals):
    first, second = (models.load(originals["world"], device="cpu") for _ in range(2))
    before = second(TEXT)
    first.W_E.data.zero_()
    first.add_hook("blocks.0.hook_resid_post", lambda activation, hook: activation * 0)
    first.tokenizer.padding_side = "left"
    assert second(TEXT).equal(before)
    assert second.tokenizer.padding_side == "right"
    assert not first(TEXT).equal(before)


@pytest.fixture
def talkative_transformers():
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_warning()
    hf_logging.enable_progress_bar()
    yield
    hf_logging.set_verbosity(verbosity)
    if not bars:
        hf_logging.disable_progress_bar()


def test_silent_and_without_traces(originals, talkative_transformers, capfd):
    capfd.readouterr()

    def state():
        return (
            torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(),
            torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(),
            hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled(), logging.root.manager.disable,
        )  # fmt: skip

    before = state()
    for name in originals.values():
        models.load(name, device="cpu")
        models.load(name, processed=False)
    with pytest.raises(models.ModelError):
        models.load("./nowhere")
    assert state() == before
    assert capfd.readouterr() == ("", "")


def test_device(originals):
    on_cpu = models.load(originals["world"], device=torch.device("cpu"))
    assert on_cpu.W_E.device.type == on_cpu.to_tokens(TEXT).device.type == "cpu"
    default = models.load(originals["world"])
    assert default.W_E.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert default(TEXT).device.type == default.W_E.device.type


def test_kinds_of_names(zoo, gpt2_folder, monkeypatch):
    assert models.available() == ["planet"]
    monkeypatch.chdir(gpt2_folder.parent)
    for name in ("planet", Path("local"), "local", "./local", "local/", str(gpt2_folder)):
        assert models.load(name, device="cpu").cfg.n_layers == 2
    for name in (None, 3, ["planet"], b"planet"):
        with pytest.raises(TypeError, match=f"name must be a str or a path, got {type(name).__name__}"):
            models.load(name)


def test_weights_saved_from_the_bare_transformer(gpt2_folder, gpt2):
    """The Hub's own GPT-2 files have no `transformer.` prefix and hold the constant attention masks."""

    def strip(weights):
        for key in list(weights):
            weights[key.removeprefix("transformer.")] = weights.pop(key)
        for layer in range(2):
            weights[f"h.{layer}.attn.bias"] = torch.ones(128, 128).tril()[None, None]

    edit_weights(gpt2_folder, strip)
    assert models.load(gpt2_folder, device="cpu")(TEXT).equal(gpt2(TEXT))


# --- What is refused


def test_unknown_name(zoo):
    refused(
        "planett",
        "'planett' is neither a shipped model (shipped: planet; near: planet) nor a folder",
        "cannot be reached",
    )
    refused("", "shipped: planet", "check the name")
    refused("no such name", "nor a model on the Hugging Face Hub: check the name")


def test_no_such_folder(tmp_path):
    for name in (tmp_path / "nowhere", str(tmp_path / "nowhere"), "./nowhere", "a/b/c", "nowhere/", Path("nowhere")):
        refused(name, "There is no folder", str(name), "check the path")


def test_file_instead_of_folder(gpt2_folder):
    refused(gpt2_folder / "model.safetensors", "is a file: pass the folder that contains it")


def test_folder_without_config(tmp_path):
    refused(tmp_path, str(tmp_path), "has no config.json", "pass the folder")


def test_other_architecture(gpt2_folder):
    BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(gpt2_folder)
    refused(gpt2_folder, "config.json", "BertForMaskedLM", "pass a model that predicts the next token")


def test_unknown_architecture_runs_no_code(gpt2_folder):
    (gpt2_folder / "code.py").write_text("raise SystemExit('code of a model folder was run')")
    edit_json(gpt2_folder / "config.json", model_type="mystery", auto_map={"AutoConfig": "code.Config"})
    refused(gpt2_folder, "config.json", "copy the complete folder again")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", '{"model_type": "gpt2",', "[1, 2]", "\x00\x01"])
def test_corrupt_json(gpt2_folder, file, content):
    (gpt2_folder / file).write_text(content)
    refused(gpt2_folder, str(gpt2_folder), file.split("_")[0], "copy the complete folder again")


@pytest.mark.parametrize(
    "changes", [{"n_embd": 33}, {"n_embd": "many"}, {"n_layer": -1}, {"n_head": 0}, {"vocab_size": None}]
)
def test_impossible_config(gpt2_folder, changes):
    edit_json(gpt2_folder / "config.json", **changes)
    refused(gpt2_folder, str(gpt2_folder))


def test_broken_tokenizer(gpt2_folder):
    (gpt2_folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "BPE"}}')
    refused(gpt2_folder, "tokenizer.json", "cannot be read", "copy the complete folder again")


def test_missing_tokenizer(gpt2_folder):
    (gpt2_folder / "tokenizer.json").unlink()
    refused(gpt2_folder, "has no tokenizer.json", "copy the complete folder again")
    (gpt2_folder / "tokenizer_config.json").unlink()
    refused(gpt2_folder, "has no tokenizer.json")


def test_tokenizer_larger_than_model(originals, tmp_path):
    folder = make_local_world(tmp_path / "small", words=WORLD_WORDS[:5])
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(originals["world"] / file, folder / file)
    refused(folder, "tokenizer.json", "ids up to 21", "vocab_size 9", "pass a folder whose tokenizer")


def test_missing_weights(gpt2_folder):
    (gpt2_folder / "model.safetensors").unlink()
    refused(gpt2_folder, "has no model.safetensors", "copy the complete folder again")


def test_pickle_only(gpt2_folder):
    (gpt2_folder / "model.safetensors").rename(gpt2_folder / "pytorch_model.bin")
    refused(gpt2_folder, "pytorch_model.bin", "can run code", "save the model again as model.safetensors")


@pytest.mark.parametrize("n_bytes", [0, 4, 1000, -100])
def test_truncated_weights(gpt2_folder, n_bytes):
    path = gpt2_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:n_bytes])
    refused(gpt2_folder, "model.safetensors", "cut short", "copy the complete folder again")


def test_weights_that_do_not_fit(gpt2_folder):
    edit_json(gpt2_folder / "config.json", n_layer=3)
    refused(gpt2_folder, "model.safetensors", "missing, such as transformer.h.2.", "saved together")
    edit_json(gpt2_folder / "config.json", n_layer=1)
    refused(gpt2_folder, "model.safetensors", "unexpected, such as", "h.1.", "saved together")
    edit_json(gpt2_folder / "config.json", n_layer=2, n_positions=64)
    refused(gpt2_folder, "model.safetensors", "1 mismatched, such as transformer.wpe.weight", "saved together")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number(gpt2_folder, value):
    edit_weights(gpt2_folder, lambda weights: weights["transformer.h.1.mlp.c_fc.weight"].view(-1)[5:6].fill_(value))
    refused(gpt2_folder, "model.safetensors", "transformer.h.1.mlp.c_fc.weight", "copy the complete folder again")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_altered_shipped_file(zoo, file):
    path = zoo / "planet" / file
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    refused("planet", str(path), "altered or cut short", "card.json", "git checkout -- utils/zoo/planet")
    path.unlink()
    refused("planet", file if file != "tokenizer_config.json" else "no tokenizer_config.json", str(zoo / "planet"))


def test_shipped_without_card(zoo):
    (zoo / "planet" / "card.json").unlink()
    refused("planet", "has no card.json", "git checkout")


def test_local_folder_with_card_is_verified(originals, tmp_path):
    folder = Path(shutil.copytree(originals["world"], tmp_path / "world"))
    edit_weights(folder, lambda weights: weights["transformer.wte.weight"].mul_(2))
    refused(folder, "model.safetensors", "altered or cut short", "copy the complete folder again")


# --- The Hub


def cache_on_hub(monkeypatch, tmp_path, name, folder):
    """A Hub cache that holds `folder` under `name`."""
    root = tmp_path / "hub"
    repository = root / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    real = models.try_to_load_from_cache
    monkeypatch.setattr(models, "try_to_load_from_cache", lambda repo, file: real(repo, file, cache_dir=root))
    return repository / "snapshots" / ("a" * 40)


def test_hub_name_without_network(monkeypatch):
    monkeypatch.setattr(models, "try_to_load_from_cache", lambda repo, file: None)
    for name in ("gpt2", "roneneldan/TinyStories-1M"):
        refused(name, name, "cannot be reached", "connect to the network", "path of a local copy")


def test_hub_name_from_the_cache(monkeypatch, tmp_path, originals, gpt2):
    cache_on_hub(monkeypatch, tmp_path, "some/model", originals["gpt2"])
    model = models.load("some/model", device="cpu")
    assert model.cfg.model_name == "some/model"
    assert model(TEXT).equal(gpt2(TEXT))


def test_incomplete_cache(monkeypatch, tmp_path, originals):
    snapshot = cache_on_hub(monkeypatch, tmp_path, "gpt2", originals["gpt2"])
    (snapshot / "tokenizer.json").unlink()
    refused("gpt2", "cannot be reached", "connect to the network")
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    refused("gpt2", "pytorch_model.bin", "pickle")


def test_hub_download_takes_no_pickles(monkeypatch, tmp_path, originals):
    asked = {}

    def download(name, allow_patterns):
        asked[name] = allow_patterns
        return str(originals["gpt2"])

    monkeypatch.setattr(models, "try_to_load_from_cache", lambda repo, file: None)
    monkeypatch.setattr(models, "snapshot_download", download)
    assert models.load("gpt2", device="cpu").cfg.model_name == "gpt2"
    assert not any(pattern.endswith(models.PICKLES) for pattern in asked["gpt2"])


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (models.RepositoryNotFoundError, "nor a model on the Hugging Face Hub: check the name"),
        (models.GatedRepoError, "accept its terms"),
        (ConnectionError, "cannot be reached (no route): connect to the network"),
    ],
)
def test_hub_errors(monkeypatch, error, part):
    def fail(*args, **kwargs):
        instance = error.__new__(error)
        instance.args = ("no route",)
        raise instance

    monkeypatch.setattr(models, "try_to_load_from_cache", lambda repo, file: None)
    monkeypatch.setattr(models, "snapshot_download", fail)
    refused("some/model", "some/model", part)


# --- Cards


def test_card(zoo):
    card = models.card("planet")
    assert (card.name, card.recipe) == ("planet", {"seed": 0})
    assert card.facts == (models.Fact("annotated", "vocabulary size", 22, 0, (0,)),)
    assert set(card.files) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    with pytest.raises(AttributeError):
        card.name = "x"


def test_no_card(zoo, gpt2_folder):
    refused("gpt2", "'gpt2' is neither a shipped model", "pass the name of a shipped model", load=models.card)
    refused(gpt2_folder, "has no card.json", load=models.card)


GOOD_FACT = {"kind": "planted", "fact": "a", "value": 1}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"name": 3}, "name must be a text, got 3"),
        ({"recipe": []}, "recipe must be an object, got []"),
        ({"files": {}}, "files['config.json'] must be a SHA-256, got None"),
        ({"files": "all"}, "files must map file names"),
        ({"facts": None}, "is malformed"),
        ({"facts": ["true"]}, "is malformed"),
        (
            {"facts": [{**GOOD_FACT, "kind": "guessed"}]},
            "kind must be one of planted, annotated, measured, got 'guessed'",
        ),
        ({"facts": [{"kind": "planted", "fact": "a"}]}, "value"),
        ({"facts": [{**GOOD_FACT, "tolerance": "small"}]}, "tolerance must be a number, got 'small'"),
        ({"facts": [{**GOOD_FACT, "seeds": ["a"]}]}, "seeds must be integers"),
    ],
)
def test_malformed_card(zoo, changes, part):
    edit_json(zoo / "planet" / "card.json", **changes)
    for load in (models.card, models.load):
        refused("planet", "card.json is malformed", part, "git checkout", load=load)


def test_card_that_is_no_json_or_lacks_an_entry(zoo):
    path = zoo / "planet" / "card.json"
    card = json.loads(path.read_text())
    path.write_text(path.read_text()[:-5])
    refused("planet", "card.json is not valid JSON", "git checkout")
    del card["facts"]
    path.write_text(json.dumps(card))
    refused("planet", "card.json is malformed: it has no 'facts'")
    path.write_text("[]")
    refused("planet", "card.json is malformed")


def test_card_cannot_point_outside_its_folder(zoo):
    card = json.loads((zoo / "planet" / "card.json").read_text())
    edit_json(zoo / "planet" / "card.json", files={**card["files"], "../secret": "0" * 64})
    refused("planet", "files must list plain file names, got '../secret'")


# --- Words


def test_words_are_tokens(world):
    assert world.to_str_tokens(TEXT) == ["<bos>", "The", "capital", "of", "France", "is"]
    assert world.to_string(world.to_tokens(TEXT)[0]) == f"<bos> {TEXT}"
    assert world.to_string(world.to_single_token("Paris")) == "Paris"
    assert world.get_token_position("France", TEXT) == 4


def test_bos_comes_once(world):
    once = world.to_tokens(TEXT)
    assert world.to_tokens(f"<bos> {TEXT}").equal(once)
    assert world.to_tokens(f"<bos>{TEXT}", prepend_bos=True).equal(once)
    assert world.to_tokens(TEXT, prepend_bos=False).equal(once[:, 1:])
    assert world.to_tokens(f"<bos> {TEXT}", prepend_bos=False).equal(once)
    assert world.to_tokens([f"<bos> {TEXT}", "Paris"]).tolist()[1] == [1, world.to_single_token("Paris"), 0, 0, 0, 0]
    assert world.to_single_token("<bos>") == 1
    assert world(f"<bos> {TEXT}").equal(world(TEXT))


ROADS = {
    "to_tokens": lambda m, text: m.to_tokens(text),
    "to_tokens without bos": lambda m, text: m.to_tokens(text, prepend_bos=False),
    "to_tokens of a batch": lambda m, text: m.to_tokens(["The capital", text]),
    "to_str_tokens": lambda m, text: m.to_str_tokens(text),
    "to_single_token": lambda m, text: m.to_single_token(text.split()[3]),
    "get_token_position": lambda m, text: m.get_token_position("France", text),
    "call": lambda m, text: m(text),
    "call on a batch": lambda m, text: m([text, "The capital"]),
    "run_with_cache": lambda m, text: m.run_with_cache(text),
    "run_with_hooks": lambda m, text: m.run_with_hooks(text, fwd_hooks=[]),
    "generate": lambda m, text: m.generate(text, max_new_tokens=2, verbose=False),
    "tokenizer": lambda m, text: m.tokenizer(text),
    "tokenizer on a pair": lambda m, text: m.tokenizer("The capital", text),
    "tokenizer, split": lambda m, text: m.tokenizer(text.split(), is_split_into_words=True),
    "encode": lambda m, text: m.tokenizer.encode(text),
    "tokenize": lambda m, text: m.tokenizer.tokenize(text),
    "batch": lambda m, text: m.tokenizer(["The capital", text], padding=True, return_tensors="pt"),
    "ids of words": lambda m, text: m.tokenizer.convert_tokens_to_ids(text.split()),
}


@pytest.mark.parametrize("road", ROADS)
def test_unknown_words_are_named_on_every_road(world, road):
    with pytest.raises(models.UnknownWordError) as caught:
        ROADS[road](world, "The capital of Frence is")
    assert str(caught.value) == "'Frence' is not among the 18 words of `world`. Near: France."
    if road != "get_token_position":
        ROADS[road](world, TEXT)


def test_several_unknown_words(world):
    with pytest.raises(models.UnknownWordError) as caught:
        world.to_tokens("Teh capital of Frence xyzzy Frence Rome.")
    assert str(caught.value) == (
        "'Teh', 'Frence', 'xyzzy', 'Rome.' are not among the 18 words of `world`. "
        "Near: the (for 'Teh'); France (for 'Frence'); Rome (for 'Rome.')."
    )


def test_unknown_words_without_near_ones_or_beyond_the_context(world):
    with pytest.raises(models.UnknownWordError, match=r"'xyzzy' is not among the 18 words of `world`\.$"):
        world("xyzzy")
    with pytest.raises(models.UnknownWordError, match="xyzzy"):
        world.to_tokens("The " * 100 + "xyzzy")
    world.to_tokens("The " * 100)  # truncated, as TransformerLens does
    with pytest.raises(models.UnknownWordError, match="xyzzy"):
        world.tokenizer("The " * 80 + "xyzzy")


def test_upper_and_lower_case_are_near(world):
    with pytest.raises(models.UnknownWordError, match="Near: Paris"):
        world("PARIS")


def test_unk_may_be_written(world):
    assert world.to_str_tokens("The <unk> of France") == ["<bos>", "The", "<unk>", "of", "France"]
    assert world.to_tokens("").tolist() == [[1]]


def test_gpt2_style_models_take_any_text(gpt2):
    assert gpt2.to_tokens("Frence xyzzy").shape[1] > 3


def test_word_tokenizer_survives_copying_and_saving(world, tmp_path):
    twin = copy.deepcopy(world.tokenizer)
    with pytest.raises(models.UnknownWordError):
        twin("Frence")
    world.tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert again(TEXT)["input_ids"] == world.tokenizer(TEXT)["input_ids"]


# --- The untrained twin


def test_untrained_twin(zoo):
    model = models.load("planet", device="cpu")
    random_state = torch.get_rng_state()
    same, again, other = (models.untrained_twin("planet", seed=seed, device="cpu") for seed in (0, 0, 1))
    assert torch.get_rng_state().equal(random_state)
    assert same(TEXT).equal(again(TEXT))
    assert not same(TEXT).allclose(other(TEXT))
    assert not same(TEXT).allclose(model(TEXT))
    assert vars(same.cfg) == vars(model.cfg)
    assert same.to_tokens(TEXT).equal(model.to_tokens(TEXT))
    assert not same.training
    raw = models.untrained_twin("planet", processed=False, device="cpu")
    torch.testing.assert_close(raw(TEXT).log_softmax(-1), same(TEXT).log_softmax(-1), atol=1e-4, rtol=0)
    with pytest.raises(models.UnknownWordError, match="`planet`"):
        same("Frence")


def test_untrained_twin_needs_no_weights_but_the_rest(zoo):
    (zoo / "planet" / "model.safetensors").unlink()
    assert models.untrained_twin("planet", device="cpu")(TEXT).isfinite().all()
    (zoo / "planet" / "tokenizer.json").unlink()
    refused("planet", "tokenizer.json", load=models.untrained_twin)


def test_untrained_twin_of_another_shape(gpt2_folder, originals):
    refused(originals["gpt2"], "No untrained twin", "tie_word_embeddings", load=models.untrained_twin)


# --- The shipped model


def test_world():
    assert "world" in models.available()
    card = models.card("world")
    assert card.name == "world"
    assert card.facts
    model = models.load("world", device="cpu")
    assert model.to_str_tokens(TEXT) == ["<bos>", *TEXT.split()]
    assert model.to_string(model(TEXT)[0, -1].argmax()) == "Paris"
    raw = models.load("world", processed=False, device="cpu")
    torch.testing.assert_close(raw(TEXT).log_softmax(-1), model(TEXT).log_softmax(-1), atol=1e-3, rtol=0)
    with pytest.raises(models.UnknownWordError, match=r"'Frence' is not among the \d+ words of `world`.* France"):
        model("The capital of Frence is")
    twin = models.untrained_twin("world", device="cpu")
    assert not twin(TEXT).allclose(model(TEXT))


# --- Models made in memory


@pytest.mark.parametrize("processed", [True, False])
@pytest.mark.parametrize("name", ["gpt2", "world"])
def test_wrap_is_load_without_a_folder(originals, name, processed, capfd):
    hf_model = GPT2LMHeadModel.from_pretrained(originals[name], dtype=torch.float32).train()
    tokenizer = AutoTokenizer.from_pretrained(originals[name], local_files_only=True, add_bos_token=True)
    random_state = torch.get_rng_state()
    capfd.readouterr()
    wrapped = models.wrap(hf_model, tokenizer, "made here", processed=processed, device="cpu")
    assert capfd.readouterr() == ("", "")
    assert torch.get_rng_state().equal(random_state)
    loaded = models.load(originals[name], processed=processed, device="cpu")
    assert wrapped.to_tokens(TEXT).equal(loaded.to_tokens(TEXT))
    assert wrapped(TEXT).equal(loaded(TEXT))
    assert type(wrapped) is type(loaded)
    assert not any(module.training for module in wrapped.modules())
    assert not any(parameter.requires_grad for parameter in wrapped.parameters())
    if name == "world":
        with pytest.raises(models.UnknownWordError, match="'Frence' is not among the 18 words of `made here`"):
            wrapped("Frence")


def test_wrap_refuses_what_cannot_be_wrapped(originals, gpt2):
    tokenizer = gpt2.tokenizer
    refused(
        torch.nn.Linear(2, 2),
        "TransformerLens cannot wrap the model in made here",
        "GPT-2",
        load=lambda model: models.wrap(model, tokenizer, "made here", device="cpu"),
    )
    small = GPT2LMHeadModel(GPT2Config(vocab_size=5, n_embd=4, n_head=2, n_layer=1, n_positions=8, n_inner=4))
    refused(
        small,
        "made here",
        "vocab_size 5",
        load=lambda model: models.wrap(model, tokenizer, "made here", device="cpu"),
    )
