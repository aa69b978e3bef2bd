"""How prompts show themselves: coloured text in a notebook or a terminal, and in one line."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from itertools import accumulate, groupby, takewhile
from typing import Any

from workbench.errors import InputError
from workbench.markup import ROLE_COLOUR, Bar, Piece, table, text
from workbench.models.pieces import Pieces
from workbench.prompts.given_chains import step_ends
from workbench.prompts.prompt import DecisionEvent, PromptSet, Variant, as_event
from workbench.prompts.text import common_suffix

EVIDENCE, STEP = "evidence", "step"
STEP_COLOUR = "#7b3fa0"
TERMINAL = {
    "evidence": "bold green",
    "gold": "bold yellow",
    "near": "red",
    "far": "blue",
    "other": "dim",
    STEP: "magenta",
}
"""Colours that every terminal has."""
_CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0x2426),
}
"""Characters that a terminal obeys, as characters that stand for them."""
MOST_EVENTS, MOST_HTML = 3, 6_400
"""Of a prompt set: events that it shows, and characters of HTML for one."""
MOST_PLAIN, MOST_SWAPPED = 160, 240
"""Characters of a stretch of text without a role, and of a counterfactual, that are shown of it."""


@dataclass(frozen=True)
class Stretch:
    """Text of the clean prompt that has one role: evidence, gold, near, far, other, or none.

    `label` is that of an option.
    """

    text: str
    role: str
    label: str = ""
    ends_step: bool = False
    """Whether a step of a chain of thought ends with it."""


@dataclass(frozen=True, repr=False)
class Shown:
    """An event to look at, with the options' probabilities where an answer is given."""

    event: DecisionEvent
    answer: Any = None

    def _repr_html_(self) -> str:
        return event_html(self.event, self.answer)

    def __rich__(self) -> Any:
        return event_rich(self.event, self.answer)

    def __repr__(self) -> str:
        from rich.console import Console

        # Else rich prints into a notebook what is to be a text.
        plain = {"force_jupyter": False, "color_system": None}
        console = Console(file=StringIO(), width=100, **plain)
        console.print(self)
        return console.file.getvalue().rstrip()  # pyright: ignore[reportAttributeAccessIssue]


def show(event: DecisionEvent, answer: Any = None) -> Shown:
    """An event to look at: its text with evidence, options and steps marked, and its options.

    In a notebook it is HTML, in a terminal (`rich.print`) colours, and its `repr` plain text.

    Args:
        event: with a tokenizer.
        answer: what the model answers there (`wb.answer(model, event)`), for probabilities.

    Raises:
        InputError: the event has no tokenizer, or the answer is not one to its options.
    """
    _ = as_event(event).needed_tokenizer
    labels = [option.label for option in event.options]
    if answer is not None and list(answer.table["label"]) != labels:
        raise InputError(f"prompt {event.id!r} event {event.event}: the answer has other options")
    return Shown(event, answer)


def _roles(event: DecisionEvent) -> list[tuple[str, str]]:
    """Role and label of each token of the clean prompt; evidence counts before options."""
    roles = [("", "")] * len(event.clean)
    spans = [(option.span, (str(option.role), option.label)) for option in event.options]
    fine = [(event.fine_evidence, (EVIDENCE, ""))] if event.fine_evidence else []
    for (start, end), role in [*spans, *fine, (event.evidence, (EVIDENCE, ""))]:
        roles[start:end] = [role] * (end - start)
    return roles


def stretches(event: DecisionEvent) -> list[Stretch]:
    """The text of the clean prompt, cut where roles change and where steps end.

    Raises:
        InputError: the event has no tokenizer.
    """
    strings, roles = event.str_tokens(), _roles(event)
    starts = {start for start, _ in [event.evidence, *(one.span for one in event.options)]}
    ends = set(step_ends(event, event.needed_tokenizer))
    numbers = list(accumulate(at in starts or at - 1 in ends for at in range(len(strings))))
    found = []
    for key, places in groupby(range(len(strings)), key=lambda at: (numbers[at], *roles[at])):
        here = list(places)
        words = "".join(strings[at] for at in here)
        found.append(Stretch(words, key[1], key[2], here[-1] in ends))
    return found


def counterfactual(event: DecisionEvent, variant: Variant) -> str:
    """What a variant has where it differs from the clean prompt, in whole tokens.

    Raises:
        InputError: the event has no tokenizer.
    """
    clean, other = event.clean, event.variant(variant)
    shared = min(common_suffix([clean, other]), len(clean) - event.evidence[1])
    shared = min(max(shared, event.aligned_suffix), len(other))
    pairs = zip(clean, other[: len(other) - shared], strict=False)
    first = min(
        sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)), event.evidence[0]
    )
    return event.pieces(variant).of((first, len(other) - shared)).strip()


def describe(event: DecisionEvent) -> str:
    """The event in a line, without a word of it."""
    counts = {role: len(event.with_role(role)) for role in ("gold", "near", "far", "other")}
    options = ", ".join(f"{n} {role}" for role, n in counts.items() if n)
    return (
        f"prompt {event.id!r} event {event.event}: {len(event.clean)} tokens "
        f"({event.aligned_suffix} shared at the end), options: {options}"
    )


def describe_set(prompts: PromptSet) -> str:
    """The prompt set in a line."""
    lengths = [len(event.clean) for event in prompts]
    options = [len(event.options) for event in prompts]
    return (
        f"prompts {prompts.task!r}: {len(prompts)} events of {len(prompts.prompt_ids)} prompts, "
        f"{_range(options)} options each, {_range(lengths)} tokens"
    )


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def event_html(event: DecisionEvent, answer: Any = None, *, short: bool = False) -> str:
    """Text with roles in colour, counterfactuals, and a table of the options.

    Without a tokenizer the table alone. A `short` one has no table, and only the ends of long
    stretches without a role.
    """
    head = text([Piece(describe(event))])
    if event.tokenizer is None:
        bare = text([Piece("token ids alone; prompts.with_tokenizer(model) gives them a text")])
        return head + bare + table(_rows(event, answer))
    pieces = []
    for stretch in stretches(event):
        shown = stretch.text if stretch.role else _cut(stretch.text, MOST_PLAIN * short)
        title = f"{stretch.role} {stretch.label}".strip()
        pieces.append(Piece(shown, ROLE_COLOUR.get(stretch.role, ""), 0.25, title=title))
        if stretch.ends_step:
            pieces.append(Piece(" ⏎", STEP_COLOUR, title="a step of the chain ends"))
    swapped = [
        {
            "counterfactual": Piece(name, ROLE_COLOUR[name], 0.25),
            "evidence": _cut(counterfactual(event, name), MOST_SWAPPED),
        }
        for name in ("far", "near")
    ]
    options = "" if short else table(_rows(event, answer))
    return head + text(pieces) + table(swapped) + options


def set_html(prompts: PromptSet) -> str:
    """The set in a line and its first events, folded; some twenty kilobytes at most."""
    parts = [text([Piece(describe_set(prompts))])]
    for event in prompts.events[:MOST_EVENTS]:
        inside = event_html(event, short=True)
        if len(inside) > MOST_HTML:
            bare = "too long to be shown here; wb.show(prompts.events[0]) shows one event whole"
            inside = text([Piece(describe(event) + "; " + bare)])
        title = escape(f"prompt {event.id} event {event.event}")
        parts.append(f"<details><summary>{title}</summary>{inside}</details>")
    if len(prompts) > MOST_EVENTS:
        parts.append(text([Piece(f"… and {len(prompts) - MOST_EVENTS:,} more")]))
    return "".join(parts)


def event_rich(event: DecisionEvent, answer: Any = None) -> Any:
    """The same for a terminal, as `rich` prints it.

    Raises:
        InputError: the event has no tokenizer.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Text()
    for stretch in stretches(event):
        shown.append(stretch.text.translate(_CONTROLS), TERMINAL.get(stretch.role, ""))
        if stretch.ends_step:
            shown.append(" ⏎", TERMINAL[STEP])
    lines = [
        Text.assemble(
            (f"{name} counterfactual: ", TERMINAL[name]),
            _cut(counterfactual(event, name), MOST_SWAPPED).translate(_CONTROLS),
        )
        for name in ("far", "near")
    ]
    rows = [{k: v for k, v in row.items() if k != "text"} for row in _rows(event, answer)]
    grid = Table(*rows[0])
    for row in rows:
        role = TERMINAL[row["role"].text]
        grid.add_row(*(_rich_cell(cell, role) for cell in row.values()))
    return Group(Text(describe(event), "bold"), shown, *lines, grid)


def _rich_cell(value: Any, role: str) -> Any:
    from rich.text import Text

    if isinstance(value, Bar):
        return Text(f"{'█' * round(12 * value.share):12} {value.share:.3f}", role)
    return Text(value.text, role) if isinstance(value, Piece) else Text(value)


def _rows(event: DecisionEvent, answer: Any) -> list[dict[str, Any]]:
    """A row for each option, cells as `workbench.markup` takes them."""
    rows = []
    for at, option in enumerate(event.options):
        colour = ROLE_COLOUR[option.role]
        row: dict[str, Any] = {"role": Piece(option.role, colour, 0.25), "label": option.label}
        if event.tokenizer is not None:
            letter = Pieces(event.tokenizer, [option.token]).text.strip()
            row = {"answer": letter} | row | {"text": event.pieces().of(option.span).strip()}
        if answer is not None:
            p, logit = answer.table["p"].iloc[at], answer.table["logit"].iloc[at]
            row |= {"p": "" if p != p else Bar(float(p), colour), "logit": f"{logit:.2f}"}
        rows.append(row)
    return rows


def _cut(words: str, most: int) -> str:
    """Both ends of a text that is longer than `most` characters, if not 0."""
    if not most or len(words) <= most:
        return words
    half = most // 2
    return f"{words[:half]} … {len(words) - 2 * half:,} characters … {words[-half:]}"
