"""The machinery beneath every check: messages, protection of inputs, hints, predictions, progress."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from utils import progress
from utils.checks import core
from utils.checks.core import Attempt, CheckFailed, exercise


@pytest.fixture
def double(monkeypatch):
    """A small exercise of its own: return twice the input."""
    monkeypatch.setattr(core, "EXERCISES", {})

    @exercise("9.1", hints=("first", "second"))
    def double(attempt: Attempt) -> None:
        x = attempt.randn(2, 3)
        with attempt.holds("twice the input"):
            attempt.close(attempt(x), 2 * x, slips=[(x, "this is the input itself"), (x.sum(), "this is its sum")])

    return double


def message(check, answer, **options) -> str:
    with pytest.raises(CheckFailed) as failure:
        check(answer, **options)
    return str(failure.value)


def test_success_is_one_deterministic_line(double, capsys):
    double(lambda x: 2 * x)
    double(lambda x: x + x)
    line = "✓ 9.1 double · 1 of 1 properties hold\n"
    assert capsys.readouterr().out == line + line


@pytest.mark.parametrize(
    "damage",
    [
        lambda ends, skip: ends.pop(0),
        lambda ends, skip: ends[1].mul_(2),
        lambda ends, skip: skip.add(7),
    ],
    ids=["list", "tensor in a list", "set"],
)
def test_lists_and_sets_that_are_changed_are_told_and_the_checks_own_stay(monkeypatch, damage):
    monkeypatch.setattr(core, "EXERCISES", {})
    ends, skip = [3, torch.ones(2), 5], {1, 2}

    @exercise("9.3", hints=("first",))
    def count(attempt: Attempt) -> None:
        with attempt.holds("counts"):
            attempt.close(attempt(ends, skip), 5.0)

    count(lambda ends, skip: len(ends) + len(skip))
    assert "was changed in place" in message(count, lambda ends, skip: damage(ends, skip) is None or 5)
    assert len(ends) == 3 and ends[1].tolist() == [1, 1] and skip == {1, 2}


def test_a_sparse_tensor_is_a_tensor(double):
    double(lambda x: (2 * x).to_sparse())


def test_hidden_run_is_silent_and_on_other_inputs(double, capsys):
    seen = []
    double(lambda x: seen.append(x) or 2 * x)
    double(lambda x: seen.append(x) or 2 * x, hidden=True)
    assert capsys.readouterr().out.count("\n") == 1
    assert not torch.equal(seen[0], seen[1])
    constant = 2 * seen[0]
    double(lambda x: constant)
    assert "the largest gap" in message(double, lambda x: constant, hidden=True)


def test_class_seed_changes_hidden_inputs(double, monkeypatch):
    seen = []
    for seed in ("a", "b"):
        monkeypatch.setenv(core.CLASS_SEED, seed)
        double(lambda x: seen.append(x) or 2 * x, hidden=True)
    assert not torch.equal(*seen)


def test_slips_are_named_even_where_the_shape_differs(double):
    assert "the input itself" in message(double, lambda x: x)
    assert "its sum" in message(double, lambda x: x.sum())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda x: (2 * x).T, "the axes are there, in another order"),
        (lambda x: (2 * x)[:, :, None], "an axis of length 1"),
        (lambda x: (2 * x)[0], "one axis is missing"),
        (lambda x: torch.stack([x, x]), "one axis is too many"),
        (lambda x: 2 * x * float("nan"), "6 NaN among 6"),
        (lambda x: (2 * x).to(torch.complex64), "real numbers"),
        (lambda x: "2x", "a tensor"),
        (lambda x: [x[0], x[0, :2]], "a tensor"),
        (lambda x: [x, None], "a tensor"),
        (lambda x: 10**400, "a tensor"),
        (lambda x: x.mul_(2), "`x` was changed in place"),
        (lambda x: None, "is there a `return`"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
        (lambda: 1, "must stay as the stub gives them"),
        (3, "the function `double` itself"),
        (lambda x: 2 * x + torch.inf, "inf"),
    ],
)
def test_bad_answers_are_told_what_is_wrong(double, answer, says):
    assert says in message(double, answer)


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: (2 * x).double(),
        lambda x: (2 * x).requires_grad_(),
        lambda x: (2 * x).numpy(),
        lambda x: (2 * x).tolist(),
        lambda x: [2 * row for row in x],
        lambda x: tuple((2 * row).requires_grad_() for row in x),
        lambda x, factor=2: factor * x,
        lambda x: 2 * x + 1e-6,
    ],
)
def test_right_answers_written_otherwise_pass(double, answer):
    double(answer)


def test_learner_error_names_their_line(double, tmp_path):
    source = "def answer(x):\n    y = x + 1\n    return y @ y\n"
    file = tmp_path / "cell.py"
    file.write_text(source)
    namespace: dict = {}
    exec(compile(source, str(file), "exec"), namespace)
    text = message(double, namespace["answer"])
    assert "RuntimeError" in text and "line 3 of your cell:  return y @ y" in text


def test_not_implemented_elsewhere_is_not_taken_for_the_stub(double):
    def answer(x):
        raise NotImplementedError("no kernel for this device")

    assert "no kernel" in message(double, answer)


def test_random_state_of_the_learner_is_untouched(double):
    torch.manual_seed(0)
    double(lambda x: 2 * x + 0 * torch.randn(2, 3))
    after = torch.randn(3)
    torch.manual_seed(0)
    assert torch.equal(after, torch.randn(3))


def test_a_check_that_checks_nothing_is_an_error(monkeypatch):
    monkeypatch.setattr(core, "EXERCISES", {})

    @exercise("9.2", hints=())
    def empty(attempt: Attempt) -> None:
        attempt()

    with pytest.raises(RuntimeError, match="without checking"):
        empty(lambda: 1)


def test_two_exercises_cannot_share_an_id(double):
    with pytest.raises(ValueError, match=r"'9.1' is used by 'double' and by 'other'"):

        @exercise("9.1", hints=())
        def other(attempt: Attempt) -> None: ...


class TestModelsAreProtected:
    """Hooks left on a model and changed weights are found, named and undone."""

    def attempt(self, answer) -> Attempt:
        entry = core.Exercise("9.3", "use_model", "test", ())
        return Attempt(entry, answer, seed=0)

    def test_left_hooks(self):
        model = core.small_model()

        def answer(model):
            model.add_hook("hook_embed", lambda value, hook: value * 0)
            return 1

        with pytest.raises(CheckFailed, match="with hooks left on it"):
            self.attempt(answer)(model)
        assert not any(point.has_hooks() for point in core.small_model().hook_dict.values())

    def test_changed_weights(self):
        before = core.small_model().W_E.clone()

        def answer(model):
            model.W_E.data.add_(1)
            return 1

        with pytest.raises(CheckFailed, match="were changed"):
            self.attempt(answer)(core.small_model())
        assert torch.equal(before, core.small_model().W_E)

    def test_changed_dtype(self):
        """It would make every later check on this model fail, whatever the answer."""
        with pytest.raises(CheckFailed, match="were changed"):
            self.attempt(lambda model: model.to(torch.float64, print_details=False))(core.small_model())
        assert core.small_model().W_E.dtype == torch.float32

    def test_damage_before_an_error_is_not_handed_on(self):
        def answer(model):
            model.W_E.data.add_(1)
            raise ValueError("stopped half-way")

        before = core.small_model().W_E.clone()
        with pytest.raises(CheckFailed, match="stopped half-way"):
            self.attempt(answer)(core.small_model())
        assert torch.equal(before, core.small_model().W_E)

    def test_gradients_and_train_mode_are_no_damage(self):
        model = core.small_model()

        def answer(model):
            model.requires_grad_(True).train()
            model(torch.tensor([[1, 4]])).sum().backward()
            return 1

        assert self.attempt(answer)(model) == 1
        assert core.small_model() is model and not model.training
        assert not any(p.requires_grad or p.grad is not None for p in model.parameters())

    @pytest.mark.parametrize("place", ["blocks.0", "ln_final", "", "blocks.1.mlp.hook_out"])
    @pytest.mark.parametrize(
        "kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"]
    )
    def test_left_torch_hooks(self, place, kind):
        """A model that had run before and one that had not: the libraries' own hooks come with the first run."""
        for used in (False, True):
            core.small_model.cache_clear()
            model = core.small_model()
            if used:
                model(torch.tensor([[1, 4]]))

            def answer(model):
                model(torch.tensor([[1, 4]]))
                getattr(model.get_submodule(place), f"register_{kind}")(lambda *args: None)
                return 1

            says = f"a torch hook left on `{place}`" if place else "a torch hook left on it"
            with pytest.raises(CheckFailed, match=says):
                self.attempt(answer)(model)
            assert core.small_model() is not model

    def test_torch_hooks_that_are_removed(self):
        model = core.small_model()

        def answer(model):
            handle = model.blocks[0].register_forward_hook(lambda *args: None)
            model.run_with_cache(torch.tensor([[1, 4]]))
            handle.remove()
            return 1

        assert self.attempt(answer)(model) == 1 and core.small_model() is model

    @pytest.mark.parametrize(
        ("replace", "says"),
        [
            (lambda model: setattr(model, "ln_final", torch.nn.Identity()), "whose part `ln_final` was replaced"),
            (lambda model: setattr(model, "ln_final", torch.nn.LayerNorm(16)), "whose part `ln_final` was replaced"),
            (lambda model: setattr(model.blocks[1], "mlp", model.blocks[0].mlp), r"whose part `blocks\.1\.mlp` was"),
            (lambda model: setattr(model, "blocks", model.blocks[:1]), r"whose part `blocks\.1` was replaced"),
            (lambda model: setattr(model, "forward", lambda *a: torch.zeros(1)), "whose `forward` was replaced"),
            (
                lambda model: setattr(model.blocks[1], "forward", lambda x: (x,)),
                r"whose `blocks\.1\.forward` was replaced",
            ),
            (lambda model: setattr(model, "to_tokens", lambda text: None), "whose `to_tokens` was replaced"),
            (lambda model: setattr(model.cfg, "eps", 1e-6), r"whose setting `cfg\.eps` was changed"),
            (lambda model: setattr(model.cfg, "n_layers", 1), r"whose setting `cfg\.n_layers` was changed"),
            (lambda model: model.set_use_attn_result(True), r"whose setting `cfg\.use_attn_result` was changed"),
        ],
    )
    @pytest.mark.parametrize("make", [core.small_model, core.shipped_model])
    def test_replaced_parts_methods_and_settings(self, make, replace, says):
        model = make()
        with pytest.raises(CheckFailed, match=says):
            self.attempt(lambda model: replace(model) or 1)(model)
        assert make() is not model
        assert isinstance(make().ln_final, type(core.small_model().ln_final)) and make().cfg.eps == 1e-5

    def test_parts_that_are_put_back(self):
        model = core.small_model()

        def answer(model):
            blocks, norm = list(model.blocks), model.ln_final
            model.blocks, model.ln_final = torch.nn.ModuleList(blocks[::-1]), torch.nn.Identity()
            model(torch.tensor([[1, 4]]))
            model.blocks, model.ln_final = torch.nn.ModuleList(blocks), norm
            return 1

        assert self.attempt(answer)(model) == 1 and core.small_model() is model

    def test_any_module_is_watched(self):
        def answer(model):
            model[0] = torch.nn.Linear(2, 3)
            return 1

        with pytest.raises(CheckFailed, match="whose part `0` was replaced"):
            self.attempt(answer)(torch.nn.Sequential(torch.nn.Linear(2, 3)))

    def test_trained_parameters_are_named(self):
        model = core.small_model()

        def answer(model):
            model.requires_grad_(True)
            model.unembed(torch.ones(1, 1, 16)).sum().backward()
            model.requires_grad_(False)
            return 1

        attempt = self.attempt(answer)
        attempt(model)
        assert attempt.trained == ["lm_head._original_component.weight"]
        attempt.answer = lambda model: model.requires_grad_(True) and 1
        attempt(model)
        assert len(attempt.trained) == len(list(model.parameters()))
        attempt.answer = lambda model: 1
        attempt(model)
        assert attempt.trained == []

    @pytest.mark.parametrize("stops", [False, True])
    def test_default_dtype_is_put_back(self, stops):
        def answer(x):
            torch.set_default_dtype(torch.float64)
            return 1 / 0 if stops else 1

        says = "ZeroDivisionError" if stops else r"torch\.float64, for everything that comes after"
        with pytest.raises(CheckFailed, match=says):
            self.attempt(answer)(1)
        assert torch.get_default_dtype() == torch.float32

    def test_forbidden_method(self):
        model = core.small_model()
        attempt = self.attempt(lambda model: model.run_with_cache(torch.tensor([[1, 4]])))
        with (
            pytest.raises(CheckFailed, match=r"a call of model\.run_with_cache"),
            attempt.without(model, "run_with_cache", "build it"),
        ):
            attempt(model)
        assert model.run_with_cache(torch.tensor([[1, 4]]))

    def test_forbidden_class_method_is_given_back(self):
        class Library:
            def fit(self):
                return 1

        attempt = self.attempt(lambda x: Library().fit())
        with (
            pytest.raises(CheckFailed, match=r"a call of the library's fit"),
            attempt.without(Library, "fit", "build it", "the library's fit"),
        ):
            attempt(1)
        assert Library().fit() == 1

    def test_dictionaries_of_tensors(self):
        attempt = self.attempt(lambda parts: parts["a"].add_(1))
        with pytest.raises(CheckFailed, match="`parts` was changed in place"):
            attempt({"a": torch.zeros(2)})


def test_notebooks_show_one_block_and_no_stack(double):
    """As IPython shows it; tests/test_environments.py does the same with IPython 7.34."""
    shell = InteractiveShell.instance()
    shell.user_ns["check"] = double
    with redirect_stdout(io.StringIO()) as out:
        result = shell.run_cell("check(lambda x: x)")
    shown = out.getvalue()
    assert isinstance(result.error_in_exec, CheckFailed)
    assert "✗ 9.1 double" in shown and "the input itself" in shown
    assert "Traceback" not in shown and "core.py" not in shown
    InteractiveShell.clear_instance()


def test_hints_come_one_by_one(double, capsys):
    core._shown.clear()
    core.hint("9.1")
    assert capsys.readouterr().out == "hint 1 of 2 · first\n"
    core.hint("9.1")
    core.hint("9.1")
    assert capsys.readouterr().out.endswith("hint 1 of 2 · first\nhint 2 of 2 · second\n(that was the last one)\n")
    with pytest.raises(ValueError, match=r"no exercise '9.9' here; there are: 9.1"):
        core.hint("9.9")


def test_predictions_never_raise(capsys):
    options = {"a": "it rises", "b": "it falls"}
    for guess, says in [("a", "Your prediction: (a) it rises"), (" B ", "That is what happened"), (None, "No pred")]:
        core.prediction(guess, options, "b", "Because.")
        shown = capsys.readouterr().out
        assert says in shown and shown.endswith("Because.\n")
    for odd in (3, "z", ["a"], np.nan):
        core.prediction(odd, options, "b", "Because.")


class TestProgress:
    def test_records_once_and_survives_damage(self, tmp_path, monkeypatch, double):
        file = tmp_path / "deep" / "record.json"
        monkeypatch.setenv(progress.SWITCH, str(file))
        double(lambda x: 2 * x)
        first = progress.passed()
        double(lambda x: 2 * x)
        assert list(first) == ["9.1"] and progress.passed() == first
        file.write_text("{not json")
        assert progress.passed() == {} and file.with_suffix(".damaged").exists()
        double(lambda x: 2 * x)
        assert list(progress.passed()) == ["9.1"]

    def test_failed_and_hidden_runs_are_not_recorded(self, tmp_path, monkeypatch, double):
        monkeypatch.setenv(progress.SWITCH, str(tmp_path / "record.json"))
        message(double, lambda x: x)
        double(lambda x: 2 * x, hidden=True)
        assert progress.passed() == {}

    @pytest.mark.parametrize("variable", ["PYTEST_CURRENT_TEST", "NBGRADER_EXECUTION"])
    def test_off_where_nobody_learns(self, monkeypatch, variable):
        monkeypatch.delenv(progress.SWITCH)
        monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
        assert progress.path() is not None and progress.path().name == "progress.json"
        monkeypatch.setenv(variable, "autograde")
        assert progress.path() is None

    def test_unwritable_folder_is_no_obstacle(self, tmp_path, monkeypatch, double):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv(progress.SWITCH, str(tmp_path / "file" / "record.json"))
        double(lambda x: 2 * x)

    def test_table_shows_every_exercise(self, tmp_path, monkeypatch):
        monkeypatch.setenv(progress.SWITCH, str(tmp_path / "record.json"))
        progress.record("0.3")
        shown = str(progress.table())
        assert "inside_a_transformer: 1 of" in shown and "✓ 0.3" in shown and "· 0.1" in shown
        assert "✓ 0.3" in progress.table()._repr_html_()
