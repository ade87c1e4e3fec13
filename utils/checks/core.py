"""What every check is made of: a protected call of the learner's function, comparisons, tidy messages.

A check module declares its checks like this; everything else (counting, messages, hints, progress)
happens here::

    @exercise("0.3", hints=("Which axis runs over keys?", "Use softmax(dim=-1)."))
    def attention_pattern(attempt: Attempt) -> None:
        q, k = ...
        got = attempt(q, k)                       # the learner's function, on protected inputs
        with attempt.holds("rows sum to 1"):
            attempt.close(got, truth, slips=[(wrong, "softmax runs over the keys")])

The decorated name is what learners call: ``checks.attention_pattern(attention_pattern)``.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import linecache
import numbers
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformer_lens import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from utils import models, progress, session

CLASS_SEED = "GROUND_TRUTH_CLASS_SEED"
EXERCISES: dict[str, Exercise] = {}
_COURSE = Path(__file__).resolve().parents[1]
_NO_VALUE = object()


class CheckFailed(AssertionError):
    """An answer lacks the property that was checked. Notebooks show it as one block, without a stack.

    Args:
        title: exercise and function, for example ``"0.3 attention_pattern"``.
        expected: what a right answer does.
        got: what this answer did.
        slip: the likely reason, where one fits.
        where: the learner's line, where their own code stopped.
    """

    def __init__(self, title: str, expected: str, got: str, slip: str = "", where: str = ""):
        self.title, self.expected, self.got, self.slip, self.where = title, expected, got, slip, where
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """The message, line by line, without colour."""
        rows = [("expected", self.expected), ("got", self.got), ("at", self.where), ("likely", self.slip)]
        body = [_row(name, text) for name, text in rows if text]
        return [f"✗ {self.title}", *body]

    def _render_traceback_(self) -> list[str]:
        # IPython (7 to 9) shows these lines in place of a stack.
        first, *rest = self.lines()
        return [f"\x1b[1;31m{first}\x1b[0m", *rest]


def _row(name: str, text: str) -> str:
    first, *more = text.splitlines()
    return "\n".join([f"  {name:<9} {first}", *(f"  {'':<9} {line}" for line in more)])


@dataclass(frozen=True)
class Exercise:
    """One entry of the register that hints and the progress table read."""

    id: str
    name: str
    topic: str
    hints: tuple[str, ...]

    @property
    def order(self) -> tuple[int, int, str]:
        """Sort key: chapter, running number, letter."""
        chapter, _, rest = self.id.partition(".")
        return int(chapter), int(rest) if rest.isdigit() else 999, rest


def exercise(id: str, *, hints: Sequence[str]) -> Callable:
    """Turn ``body(attempt)`` into the check that learners call with their function.

    The check has the signature ``check(answer, *, hidden=False)``: ``hidden=True`` is the run of
    automatic grading, on other inputs, silent when it passes.
    """

    def decorate(body: Callable[[Attempt], None]) -> Callable[..., None]:
        topic = body.__module__.rsplit(".", 1)[-1]
        entry = Exercise(id, body.__name__, topic, tuple(hints))
        if EXERCISES.get(id, entry) != entry:
            raise ValueError(f"exercise id {id!r} is used by {EXERCISES[id].name!r} and by {entry.name!r}")
        EXERCISES[id] = entry

        def check(answer: Callable, *, hidden: bool = False) -> None:
            attempt = Attempt(entry, answer, seed=_class_seed() if hidden else 0)
            # The learner's own random state is not touched by being checked. And nbgrader gives no points to a
            # check cell that writes to stderr: a warning in a right answer must not cost them.
            with torch.random.fork_rng(devices=[]), redirect_stderr(sys.stdout):
                body(attempt)
            if attempt.held == 0:
                raise RuntimeError(f"check {id} ended without checking a property")
            if not hidden:
                print(f"✓ {id} {entry.name} · {attempt.held} of {attempt.held} properties hold")
                progress.record(id)

        check.__name__, check.__doc__, check.__module__ = body.__name__, body.__doc__, body.__module__
        return check

    return decorate


def _class_seed() -> int:
    """The seed of hidden runs: a teacher sets it, so that it differs from class to class."""
    text = os.environ.get(CLASS_SEED, "20260")
    return 1 + int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


class Attempt:
    """One run of a check: calls the learner's function and compares what it returns.

    Attributes:
        generator: seeded ``torch.Generator`` (CPU) for fresh inputs; depends on exercise and seed.
        seed: 0 for the run that learners see, another number for the hidden run.
        held: how many properties have held so far.
        on_error: words of an error message -> the likely slip, for errors that the answer's own code raises.
        trained: the model's parameters that the last call left with a gradient or with another ``requires_grad``.
            Both are put back and no mistake as such; a check may ask for more.
    """

    def __init__(self, entry: Exercise, answer: Callable, seed: int):
        self.entry, self.answer, self.seed, self.held = entry, answer, seed, 0
        digest = hashlib.sha256(f"{entry.id}/{seed}".encode()).digest()
        self.on_error: dict[str, str] = {}
        self.trained: list[str] = []
        self.generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))
        self._property = ""
        if not callable(answer):
            self.fail(
                f"the function `{entry.name}` itself",
                f"{describe(answer)}",
                f"pass the function without calling it: checks.{entry.name}({entry.name})",
            )

    # ------------------------------------------------------------------ inputs

    def randn(self, *shape: int) -> Tensor:
        """Standard normal float32 numbers of this shape, seeded, on the notebook's device."""
        return torch.randn(*shape, generator=self.generator).to(session.device())

    def randint(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers from ``low`` up to ``high - 1`` (int64), seeded, on the notebook's device."""
        return torch.randint(low, high, shape, generator=self.generator).to(session.device())

    # -------------------------------------------------------------------- call

    def __call__(self, *args: Any) -> Any:
        """Call the learner's function on copies of the tensors in ``args``; report what goes wrong there.

        Models are passed as they are. Hooks that the answer leaves on one, and weights, parts, methods and settings
        that it changes, are found and reported, and no later check gets such a model.
        """
        given = [_copy(arg) for arg in args]
        models = [_ModelState(arg) for arg in args if isinstance(arg, torch.nn.Module)]
        damage: list[tuple[str, str] | None] = []
        dtype_before = dtype_after = torch.get_default_dtype()
        try:
            result = self.answer(*given)
        except NotImplementedError as error:
            if str(error) in ("", "your code here"):
                self.fail("your own code", "the empty stub: replace its line `raise NotImplementedError`")
            self._learner_error(error)
        except CheckFailed:
            raise
        except Exception as error:
            self._learner_error(error)
        finally:
            dtype_after = torch.get_default_dtype()
            torch.set_default_dtype(dtype_before)
            damage = [state.damage() for state in models]
            self.trained = [name for state in models for name in state.trained]
        for kind, remedy in filter(None, damage):
            self.fail("a model that is the same after the call as before", f"a model {kind}", remedy)
        if dtype_after != dtype_before:
            self.fail(
                f"torch's default dtype as it was, {dtype_before}",
                f"{dtype_after}, for everything that comes after the call",
                "give the dtype to the tensors that you make instead of calling torch.set_default_dtype",
            )
        for position, (before, after) in enumerate(zip(args, given, strict=True)):
            if not _same(before, after):
                name = self._parameter(position)
                self.fail(
                    f"`{name}` unchanged by the call",
                    f"`{name}` was changed in place",
                    "work on a copy (.clone()), and avoid +=, *= and functions whose names end in _",
                )
        if result is None:
            self.fail("a return value", "None", "is there a `return` at the end of your function?")
        return result

    def _parameter(self, position: int) -> str:
        try:
            return list(inspect.signature(self.answer).parameters)[position]
        except (TypeError, ValueError, IndexError):
            return f"argument {position + 1}"

    def _learner_error(self, error: Exception) -> None:
        frame = _learner_frame(error, self.answer)
        where, slip = "", ""
        if frame is not None:
            code = linecache.getline(frame.filename, frame.lineno or 0).strip()
            where = f"line {frame.lineno} of your cell" + (f":  {code}" if code else "")
        else:
            slip = "the function's arguments must stay as the stub gives them (same number, same order)"
        slip = next((told for words, told in self.on_error.items() if words in str(error)), slip)
        message = str(error).strip().splitlines()
        text = f"{type(error).__name__}: {message[0][:200]}" if message else type(error).__name__
        raise CheckFailed(self.title, "a result", f"your code stopped with {text}", slip, where) from None

    # ------------------------------------------------------------- comparisons

    @contextmanager
    def without(self, owner: Any, name: str, instead: str, shown: str = ""):
        """Inside the block, calling ``owner.name`` fails with a pointer to what the exercise is about.

        Args:
            owner: a model, a class or a module.
            shown: what the message calls it, default ``model.name``.
        """

        def forbidden(*args: Any, **kwargs: Any) -> None:
            self.fail(f"your own {self.entry.name}", f"a call of {shown or f'model.{name}'}", instead)

        with mock.patch.object(owner, name, forbidden):
            yield

    @property
    def title(self) -> str:
        """Exercise and function, as messages name them."""
        return f"{self.entry.id} {self.entry.name}" + (" (hidden run, other inputs)" if self.seed else "")

    def fail(self, expected: str, got: str, slip: str = "") -> None:
        """Raise ``CheckFailed`` with what was expected, what came, and the likely slip."""
        title = f"{self.title} · {self._property}" if self._property else self.title
        raise CheckFailed(title, expected, got, slip) from None

    @contextmanager
    def holds(self, name: str):
        """Everything inside belongs to one property; it is counted when the block ends without failure."""
        self._property = name
        yield
        self._property = ""
        self.held += 1

    def require(self, condition: bool, expected: str, got: str, slip: str = "") -> None:
        """Fail with this message unless ``condition`` is true."""
        if not condition:
            self.fail(expected, got, slip)

    def tensor(self, value: Any, shape: Sequence[int] | None = None, what: str = "your result") -> Tensor:
        """The learner's value as a finite float64 tensor on the CPU (any dtype, device, list or array).

        Fails with a message where the type, the shape or a NaN stands in the way.
        """
        if isinstance(value, list | tuple) and value and all(isinstance(part, Tensor) for part in value):
            with suppress(RuntimeError):  # parts of unequal shapes
                value = torch.stack([part.detach().cpu() for part in value])
        elif isinstance(value, np.ndarray | numbers.Number | list | tuple):
            with suppress(TypeError, ValueError, OverflowError):
                value = torch.as_tensor(np.asarray(value, dtype=np.float64))
        if not isinstance(value, Tensor):
            self.fail("a tensor", describe(value))
        value = value.detach().to("cpu")
        value = value if value.layout == torch.strided else value.to_dense()
        if value.is_complex():
            self.fail("real numbers", describe(value))
        value = value.to(torch.float64)
        if shape is not None and tuple(value.shape) != tuple(shape):
            self.fail(
                f"{what} of shape {list(shape)}",
                f"shape {list(value.shape)}",
                _shape_slip(tuple(value.shape), tuple(shape)),
            )
        n_nan = int(torch.isnan(value).sum())
        if n_nan:
            self.fail(f"{what} without NaN", f"{n_nan} NaN among {value.numel()} numbers")
        return value

    def pair(self, value: Any, first: str, second: str) -> tuple[Any, Any]:
        """The two parts of a result that has to be a pair; their names are for the message."""
        is_sequence = isinstance(value, tuple | list)
        self.require(
            is_sequence and len(value) == 2,
            f"two results ({first}, {second})",
            f"{len(value)} results" if is_sequence else describe(value),
            f"return both: `return {first}, {second}`",
        )
        return value[0], value[1]

    def number(self, value: Any, what: str = "your result") -> float:
        """The learner's value as one finite number; a tensor with one element will do."""
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.reshape(())
        number = self.tensor(value, what=what)
        if number.dim() != 0:
            self.fail(f"{what} to be one number", f"shape {list(number.shape)}")
        if not torch.isfinite(number):
            self.fail(f"{what} to be finite", str(number.item()))
        return number.item()

    def close(
        self,
        got: Any,
        want: Tensor | float,
        *,
        atol: float = 1e-4,
        rtol: float = 1e-4,
        what: str = "your result",
        slips: Iterable[tuple[Any, str]] = (),
    ) -> Tensor:
        """Fail unless ``got`` equals ``want`` within ``atol + rtol * |want|``, elementwise.

        Args:
            slips: pairs (what a known slip would give, its explanation); the first that fits is told.

        Returns:
            ``got`` as a float64 CPU tensor.
        """
        want = torch.as_tensor(want).detach().to("cpu", torch.float64)
        # A slip can have another shape than the right answer: look for it before complaining of the shape.
        loose = self.tensor(got, what=what)
        if loose.shape != want.shape or not torch.allclose(loose, want, atol=atol, rtol=rtol):
            for wrong, message in slips:
                wrong = torch.as_tensor(wrong).detach().to("cpu", torch.float64)
                if wrong.shape == loose.shape and torch.allclose(loose, wrong, atol=atol, rtol=rtol):
                    self.fail(*_difference(loose, want, what), message)
        got = self.tensor(got, want.shape, what)
        if not torch.allclose(got, want, atol=atol, rtol=rtol):
            self.fail(*_difference(got, want, what))
        return got


class _ModelState:
    """A model as it was before a call; ``damage`` names what the call did to it.

    Attributes:
        trained: after ``damage()``, the parameters that the call left with a gradient or another ``requires_grad``.
    """

    def __init__(self, model: torch.nn.Module):
        self.model = model
        self.weights = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
        self.training = model.training
        self.parts, self.settings = _parts(model), _settings(model)
        self.set_on = {part: (_torch_hooks(part), _own_methods(part)) for part in set(self.parts.values())}
        self.trained: list[str] = []

    def damage(self) -> tuple[str, str] | None:
        """What a later user of the model would suffer from, if anything, and how to avoid it.

        Gradients, gradient flags and train mode are put back: using them is no mistake. A model that was
        damaged is given up: the next check makes a fresh one.
        """
        found = self._added_or_replaced()
        for name, parameter in self.model.named_parameters():
            before, requires_grad = self.weights.get(name, (parameter, False))
            if not found and not _same(before, parameter):
                found = f"whose weights `{name}` were changed", "write into copies (.clone()), not into weights"
            if parameter.grad is not None or parameter.requires_grad != requires_grad:
                self.trained.append(name)
            parameter.requires_grad_(requires_grad)
        found = found or self._switched()
        if self.trained:
            self.model.zero_grad(set_to_none=True)
        if any(part.training != self.training for part in self.set_on):
            self.model.train(self.training)
        if found:
            shipped_model.cache_clear()
            small_model.cache_clear()
        return found

    def _added_or_replaced(self) -> tuple[str, str] | None:
        """Hooks, parts and methods that are not what they were."""
        if any(point.has_hooks() for point in getattr(self.model, "hook_dict", {}).values()):
            return "with hooks left on it", "run_with_hooks and run_with_cache remove their hooks; add_hook leaves them"
        parts = _parts(self.model)
        names = self.parts.keys() | parts.keys()
        replaced = [name for name in names if not _same_part(self.parts.get(name), parts.get(name))]
        if replaced:
            name = _plainest(replaced)
            return f"whose part `{name}` was replaced", "put it back before the return, or work without replacing it"
        for part, (hooks, methods) in self.set_on.items():
            left, own = _torch_hooks(part) - hooks, _own_methods(part)
            changed = [name for name in own.keys() | methods.keys() if own.get(name) is not methods.get(name)]
            if left or changed:
                name = _plainest([name for name, other in parts.items() if other is part])
            if left:
                remove = "call .remove() on what register_forward_hook and its kin return (try: ... finally: ...)"
                return f"with a torch hook left on {f'`{name}`' if name else 'it'}", remove
            if changed:
                method = ".".join(filter(None, [name, min(changed)]))
                return f"whose `{method}` was replaced", "change by a hook what it reads or what it returns"
        return None

    def _switched(self) -> tuple[str, str] | None:
        """Settings that are not what they were."""
        settings = _settings(self.model)
        for key in sorted(self.settings.keys() | settings.keys()):
            if settings.get(key, _NO_VALUE) != self.settings.get(key, _NO_VALUE):
                return f"whose setting `cfg.{key}` was changed", "read model.cfg only; put back what you switch on"
        return None


def _parts(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Every module of a model by each of its names; of a bridge, those of the wrapped model too."""
    parts = dict(model.named_modules(remove_duplicate=False))
    wrapped = vars(model).get("original_model")
    if isinstance(wrapped, torch.nn.Module):
        parts |= {f"original_model.{name}".rstrip("."): part for name, part in wrapped.named_modules()}
    return parts


def _same_part(before: Any, after: Any) -> bool:
    """The same module; of a mere list of modules, another list will do (its entries have names of their own)."""
    containers = (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Sequential)
    return before is after or (type(before) is type(after) and isinstance(before, containers))


def _plainest(names: list[str]) -> str:
    """Of a part's names the one that learners write: a bridge passes on what is set on it to what it wraps."""
    return min(names, key=lambda name: (name.count("original"), len(name), name)).replace("._original_component", "")


def _torch_hooks(module: torch.nn.Module) -> set[tuple[str, int]]:
    """The torch hooks on a module, apart from those that the libraries set for themselves when a model first runs."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        (kind, number)
        for kind in kinds
        for number, hook in getattr(module, kind).items()
        if str(getattr(hook, "__module__", "")).partition(".")[0] not in ("transformer_lens", "transformers")
    }


def _own_methods(module: torch.nn.Module) -> dict[str, Any]:
    """What stands in the place of the class's methods in this one module, such as another ``forward``."""
    own = vars(module)
    return {name: own[name] for name in own.keys() & _methods(type(module))}


@functools.cache
def _methods(kind: type) -> frozenset[str]:
    return frozenset(name for name in dir(kind) if inspect.isroutine(inspect.getattr_static(kind, name, None)))


def _settings(model: torch.nn.Module) -> dict[str, Any]:
    """The plain values of ``model.cfg``."""
    plain = bool | int | float | str | None | torch.dtype
    values = getattr(getattr(model, "cfg", None), "__dict__", {})
    return {name: value for name, value in values.items() if isinstance(value, plain)}


def _copy(value: Any) -> Any:
    """Tensors cloned, also inside dictionaries and lists, and sets copied; everything else as it is."""
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_copy(part) for part in value]
    return value.clone() if isinstance(value, Tensor) else set(value) if isinstance(value, set) else value


def _same(before: Any, after: Any) -> bool:
    """Whether what a function was given is what it left behind (tensors, lists, sets, dictionaries)."""
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)
    if isinstance(before, list):
        return len(before) == len(after) and all(map(_same, before, after))
    if not isinstance(before, Tensor):
        return not isinstance(before, set | str | int | float) or before == after
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    if torch.equal(before, after):
        return True
    return bool(torch.equal(torch.nan_to_num(before.detach()), torch.nan_to_num(after.detach())))


def _learner_frame(error: Exception, answer: Callable) -> traceback.FrameSummary | None:
    """The innermost frame of the learner's own code: a notebook cell, or the file of the function."""
    own = getattr(inspect.unwrap(answer), "__code__", None)
    own_file = own.co_filename if own else None

    def is_own(file: str) -> bool:
        return file == own_file or "ipykernel" in Path(file).parent.name or "<ipython" in file

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_own(frame.filename)]
    return frames[-1] if frames else None


def _shape_slip(got: tuple[int, ...], want: tuple[int, ...]) -> str:
    if sorted(got) == sorted(want) and got != want:
        return "the axes are there, in another order"
    if [n for n in got if n != 1] == [n for n in want if n != 1]:
        return "an axis of length 1 is left over or missing: squeeze() or keepdim"
    if len(got) == len(want) - 1:
        return "one axis is missing: was it summed or indexed away?"
    if len(got) == len(want) + 1:
        return "one axis is too many: was it not summed or indexed away?"
    return ""


def _difference(got: Tensor, want: Tensor, what: str) -> tuple[str, str]:
    """What was expected and what came, where the two differ most."""
    if got.shape != want.shape:
        return f"{what} of shape {list(want.shape)}", f"shape {list(got.shape)}"
    gap = (got - want).abs()
    gap = torch.where(torch.isfinite(gap), gap, torch.full_like(gap, float("inf")))
    if got.dim() == 0:
        return f"{what} to be {want.item():.4g}", f"{got.item():.4g}"
    at = tuple(int(i) for i in np.unravel_index(int(gap.argmax()), tuple(gap.shape)))
    place = f"[{', '.join(map(str, at))}]"
    return f"{what} to be {want[at].item():.4g} at {place}", f"{got[at].item():.4g} there (the largest gap)"


def describe(value: Any) -> str:
    """A value in a few words: type, and shape or text where it is short."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)} and dtype {str(value.dtype).removeprefix('torch.')}"
    if value is None or isinstance(value, bool | int | float | str):
        return f"{type(value).__name__} {value!r}"[:120]
    return f"{type(value).__name__}"


# ------------------------------------------------------------------------------ models for checks


@functools.cache
def shipped_model(name: str = "world"):
    """The check's own copy of a shipped model: what a learner does to theirs cannot reach it."""
    return models.load(name)


@functools.cache
def small_model(
    seed: int = 0, n_layers: int = 3, n_heads: int = 2, d_model: int = 16, d_vocab: int = 12, dtype=torch.float32
):
    """A processed random-weights model of another size than the shipped ones, with a LayerNorm that matters.

    It catches answers that lean on the size of `world`. Weights are drawn with standard deviation 0.3.
    """
    words = {word: i for i, word in enumerate(["<pad>", "<bos>", "<unk>", "<eos>", *"abcdefghijkl"][:d_vocab])}
    words_of = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words_of,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        name_or_path="small",
        add_bos_token=True,
    )
    config = GPT2Config(
        vocab_size=d_vocab,
        n_positions=16,
        n_embd=d_model,
        n_layer=n_layers,
        n_head=n_heads,
        bos_token_id=1,
        eos_token_id=3,
        tie_word_embeddings=False,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bare = GPT2LMHeadModel(config)
    model = TransformerBridge.boot_transformers("small", hf_model=bare.eval(), tokenizer=tokenizer)
    model.enable_compatibility_mode(disable_warnings=True)
    model.requires_grad_(False)
    return model.to(session.device(), dtype, print_details=False)


# -------------------------------------------------------------------------- hints and predictions

_shown: dict[str, int] = {}


def hint(id: str) -> None:
    """Print the hints of an exercise, one more at each call.

    Raises:
        ValueError: when the loaded chapters have no such exercise.
    """
    if id not in EXERCISES:
        known = ", ".join(sorted(EXERCISES, key=lambda e: EXERCISES[e].order))
        raise ValueError(f"no exercise {id!r} here; there are: {known}")
    hints = EXERCISES[id].hints
    _shown[id] = min(_shown.get(id, 0) + 1, len(hints))
    for number, text in enumerate(hints[: _shown[id]], start=1):
        print(f"hint {number} of {len(hints)} · {text}")
    if _shown[id] == len(hints):
        print("(that was the last one)")


def prediction(guess: Any, options: dict[str, str], outcome: str, because: str) -> None:
    """Set a learner's prediction beside what happened. A wrong guess is no failure; nothing is recorded.

    Args:
        guess: the letter the learner wrote, or ``None``.
        options: letter -> statement.
        outcome: the letter of what was measured.
        because: one sentence that says why.
    """
    if isinstance(guess, str) and guess.strip().lower() in options:
        letter = guess.strip().lower()
        print(f"Your prediction: ({letter}) {options[letter]}")
        hit = letter == outcome
    else:
        letters = ", ".join(f'"{letter}"' for letter in options)
        print(f"No prediction written (one of {letters}).")
        hit = False
    print("That is what happened." if hit else f"What happened: ({outcome}) {options[outcome]}")
    print(because)
