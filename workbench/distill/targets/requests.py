"""What terms ask of the teacher: noted once, so that it can be answered later without the teacher.

A term reads the teacher through a `Reading`. `Answers` is one that notes or answers each question:
which of its fields or methods, and with what plain arguments. So what is stored follows from the
terms alone, also from those that are registered later.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from inspect import signature, unwrap
from typing import Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from workbench.distill.reading.capture import Reading
from workbench.distill.reading.positions import Marks
from workbench.errors import InputError

FIELDS = {field.name for field in fields(Reading)}
METHODS = {
    name
    for name, value in vars(Reading).items()
    if callable(value) and not name.startswith("_") and name != "to"
}
Arguments = tuple[tuple[str, Any], ...]
"""Kind and plain value of each argument; marks and modules have none, as they are the batch's and
the teacher's own."""


@dataclass(frozen=True)
class Request:
    """A question to a teacher's `Reading`, and what its answers are like.

    Attributes:
        name: field or method of `Reading`.
        arguments: what it is asked about.
        axes: names of the answer's axes.
        sizes: of the axes that are the same in every batch; 0 for the others.
        dtype: of the answer.
    """

    name: str
    arguments: Arguments
    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Request":
        """What `plain` made."""
        arguments = tuple((kind, _tupled(value)) for kind, value in given["arguments"])
        return cls(
            given["name"], arguments, tuple(given["axes"]), tuple(given["sizes"]), given["dtype"]
        )

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def like(self, sizes: Mapping[str, int]) -> "Request":
        """The same of a model of other sizes, by the names of axes."""
        of = zip(self.axes, self.sizes, strict=True)
        return replace(self, sizes=tuple(sizes.get(axis, size) for axis, size in of))

    @property
    def key(self) -> tuple[str, Arguments]:
        """What the question is."""
        return self.name, self.arguments

    @property
    def what(self) -> str:
        """Places that are asked for, as words name them."""
        words = [value for kind, value in self.arguments if isinstance(value, str)]
        return words[-1] if words else "samples"

    def put(self, reading: Reading, marks: Marks, unembedding: nn.Module) -> Tensor:
        """The answer of a teacher that was run."""
        values: dict[str, Any] = {"marks": marks, "module": unembedding}
        arguments = [_restored(kind, value, values) for kind, value in self.arguments]
        found = getattr(reading, self.name)
        if isinstance(found, Mapping):
            return found[arguments[0]]
        return found(*arguments) if self.name in METHODS else found


class Answers(Reading):
    """A teacher's reading of which every part is asked for by `answer`.

    Args:
        answer: gets the question, as `Request.key` has it, and gives its answer.
    """

    def __init__(self, answer: Callable[[str, Arguments], Tensor]) -> None:
        self._answer = answer

    def __getattribute__(self, name: str) -> Any:
        if name in METHODS:
            return lambda *given, **named: self._answer(name, _bound(name, given, named))
        if name in FIELDS:
            return _Each(name, self._answer) if name in _EACH else self._answer(name, ())
        return super().__getattribute__(name)


class _Each(Mapping[Any, Tensor]):
    """A field that holds an answer for each head or layer."""

    def __init__(self, name: str, answer: Callable[[str, Arguments], Tensor]) -> None:
        self._name, self._ask = name, answer

    def __getitem__(self, key: Any) -> Tensor:
        return self._ask(self._name, (("value", key),))

    def __iter__(self) -> Iterator[Any]:
        raise InputError(f"a loss term goes through all {self._name}: targets must be named")

    def __len__(self) -> int:
        raise InputError(f"a loss term counts {self._name}: targets must be named")


_HINTS = get_type_hints(Reading)
_EACH = {name for name, hint in _HINTS.items() if get_origin(hint) is dict}


class Noted:
    """What was asked of a teacher's reading, in order."""

    def __init__(self, reading: Reading, marks: Marks, unembedding: nn.Module) -> None:
        self.requests: dict[tuple[str, Arguments], Request] = {}
        self._of = reading, marks, unembedding

    @property
    def reading(self) -> Reading:
        """To be handed to the terms."""
        return Answers(self._note)

    def _note(self, name: str, arguments: Arguments) -> Tensor:
        found = Request(name, arguments, (), (), "").put(*self._of)
        axes = _axes(name)
        if len(axes) != found.dim() or axes[0] != "batch":
            raise InputError(f"targets: the annotation of Reading.{name} does not name its axes")
        sizes = tuple(
            0 if axis in PLACES else size for axis, size in zip(axes, found.shape, strict=True)
        )
        dtype = str(found.dtype).removeprefix("torch.")
        request = Request(name, arguments, axes, sizes, dtype)
        self.requests[request.key] = request
        return found


PLACES: dict[str, Callable[[Marks, str], Tensor]] = {
    "batch": lambda marks, what: marks.real.any(dim=1),
    "row": lambda marks, what: marks.queries >= 0,
    "key": lambda marks, what: marks.real,
    "token": lambda marks, what: marks.real,
    "option": lambda marks, what: marks.offered,
    "place": lambda marks, what: marks.exist(what),  # pyright: ignore[reportArgumentType]
    "position": lambda marks, what: torch.cat(
        [marks.sampled, marks.early.there, marks.late.there], dim=1
    ),
}
"""Which entries along an axis there are in a batch, [batch, axis], by the name of the axis and the
places that are asked for; other axes are as long in every batch."""

NEEDED: dict[str, Callable[[Marks, str], Tensor]] = {
    "logits": lambda marks, what: marks.targets,
    "hidden": lambda marks, what: marks.rows,
}
"""Which tokens are compared, of what is read of all tokens."""


def there(request: Request, marks: Marks, upto: int | None = None) -> Tensor:
    """Which entries of an answer there are, [batch, *axes], over its leading axes.

    These are all up to the last one whose length differs from batch to batch, or `upto` of them.
    """
    n = upto or max(i for i, axis in enumerate(request.axes) if axis in PLACES) + 1
    batch = len(marks.real)
    found = torch.ones((batch,), dtype=torch.bool, device=marks.real.device)
    for axis, size in zip(request.axes[1:n], request.sizes[1:n], strict=True):
        chosen = NEEDED.get(request.name, PLACES["token"]) if axis == "token" else PLACES.get(axis)
        inside = found.new_ones(batch, size) if chosen is None else chosen(marks, request.what)
        found = found[..., None] & inside.view(batch, *[1] * (found.dim() - 1), -1)
    return found


def _axes(name: str) -> tuple[str, ...]:
    if name in METHODS:
        hint = unwrap(getattr(Reading, name)).__annotations__["return"]
    else:
        hint = next((one for one in get_args(_HINTS[name]) if hasattr(one, "dim_str")), None)
    return tuple(getattr(hint, "dim_str", "").split())


def _bound(name: str, given: Sequence[Any], named: Mapping[str, Any]) -> Arguments:
    """All arguments, in order, with those that are left out."""
    bound = signature(unwrap(getattr(Reading, name))).bind(None, *given, **named)
    bound.apply_defaults()
    return tuple(_named(argument) for argument in bound.args[1:])


def _named(argument: Any) -> tuple[str, Any]:
    if isinstance(argument, Marks):
        return "marks", None
    if isinstance(argument, nn.Module):
        return "module", None
    if isinstance(argument, Mapping):
        return "weights", tuple((*head, float(weight)) for head, weight in argument.items())
    if argument is None or isinstance(argument, str | int | float | bool):
        return "value", argument
    if isinstance(argument, Iterable) and not isinstance(argument, Tensor):
        return "value", tuple(argument)
    raise InputError(
        f"a loss term asks for what the teacher does by a {type(argument).__name__}: targets are "
        "asked for by heads, marks and words"
    )


def _restored(kind: str, value: Any, values: Mapping[str, Any]) -> Any:
    if kind == "weights":
        return {(layer, head): weight for layer, head, weight in value}
    return values.get(kind, value)


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
