"""Changing the text of a decision event: the same event with other words.

An edit is of characters of the clean text. What lies outside of that which tells the variants
apart is changed in all three; what lies in the evidence, in the clean one alone. Spans go along.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import accumulate

from workbench.errors import InputError
from workbench.models.pieces import Pieces
from workbench.prompts.meaning import Meaning, check_texts
from workbench.prompts.prompt import DecisionEvent, Option, Span
from workbench.prompts.rewriting import Change, count, retokenized
from workbench.prompts.templates import CharSpan
from workbench.prompts.text import check_fast, common_suffix

_FIXED = "options cannot be added or taken away by an edit"


def edit(
    event: DecisionEvent, old: str, new: str, *, occurrence: int | None = None
) -> DecisionEvent:
    """The event with `new` in place of `old`, which is looked for in the clean text.

    `occurrence`, from 0, says which one where it stands in several places.

    Raises:
        InputError: it is not there, or in several places, or what `edit_at` refuses.
    """
    if not old:
        raise InputError(f"{_name(event)}: the text to replace is empty")
    places = [found.start() for found in re.finditer(re.escape(old), event.text())]
    if not places:
        raise InputError(f"{_name(event)}: the text to replace is not in the clean prompt")
    if occurrence is None and len(places) > 1:
        raise InputError(
            f"{_name(event)}: the text to replace stands in {len(places)} places of the clean "
            f"prompt; say which with occurrence=, 0 to {len(places) - 1}"
        )
    if not 0 <= (occurrence or 0) < len(places):
        raise InputError(
            f"{_name(event)}: occurrence is {occurrence}, the text to replace stands in "
            f"{len(places)} {'places' if len(places) > 1 else 'place'}; they count from 0"
        )
    start = places[occurrence or 0]
    return edit_at(event, start, start + len(old), new)


def with_text(event: DecisionEvent, text: str) -> DecisionEvent:
    """The event with this clean text: every stretch of words that is another one is an edit.

    Raises:
        InputError: what `edit_at` refuses of one of them.
    """
    words, wanted = (re.findall(r"\s+|\S+", one) for one in (event.text(), text))
    most = min(len(words), len(wanted))
    before = count(a == b for a, b in zip(words, wanted, strict=False))
    pairs = zip(reversed(words), reversed(wanted), strict=False)
    after = min(count(a == b for a, b in pairs), most - before)
    inner = words[before : len(words) - after], wanted[before : len(wanted) - after]
    borders = list(accumulate(map(len, words), initial=0))[before:]
    changes = SequenceMatcher(None, *inner, autojunk=False).get_opcodes()
    for kind, first, last, start, stop in reversed(changes):
        if kind != "equal":
            new = "".join(inner[1][start:stop])
            event = edit_at(event, borders[first], borders[last], new)
    return event


def edit_at(event: DecisionEvent, start: int, end: int, new: str) -> DecisionEvent:
    """The event with `new` in place of characters `start` to `end` (half-open) of the clean text.

    What is put in where a span ends lengthens it. Where the clean prompt becomes a counterfactual,
    that one becomes what the clean prompt was: roles of options stay. The label of an option that
    is part of its text changes with it; the token that selects an option does not.

    Raises:
        InputError: a place outside the text; an edit across the border of the evidence or of an
            option, or of what the variants share; one that leaves a span empty, adds or takes away
            an option or its letter, makes two variants or two options the same, or ends the prompt
            in a space; a text that the tokenizer does not give back.
    """
    check_fast(event.needed_tokenizer)
    clean = event.pieces()
    if not 0 <= start <= end <= len(clean.text):
        raise InputError(
            f"{_name(event)}: characters [{start}, {end}] are outside the clean text of "
            f"{len(clean.text)}"
        )
    if clean.text[start:end] == new:
        return event
    after = clean.text[:start] + new + clean.text[end:]
    if after.endswith(" ") and not clean.text.endswith(" "):
        raise InputError(
            f"{_name(event)}: the edited text ends in a space, after which the model writes an "
            "option in another way; end it before the space"
        )
    spans = dict(_spans(event))
    touched = {name for name, span in spans.items() if _touches(clean.chars(span), start, end)}
    _check_inside(event, clean, {name: spans[name] for name in touched}, (start, end), new)
    _check_lines(event, clean, (start, end), new)
    changed = Change(event.needed_tokenizer, _name(event), clean, start, end, new)
    rows = {"clean": changed.tokens, "far": event.far, "near": event.near}
    if touched.isdisjoint(("evidence", "fine_evidence")):
        rows |= _in_the_others(event, clean, start, end, new)
    rows |= {name: event.clean for name in ("far", "near") if rows[name] == rows["clean"]}
    moved = {name: changed.span(name, span) for name, span in spans.items()}
    options = tuple(
        replace(option, span=moved[f"options[{at}]"])
        if f"options[{at}]" not in touched
        else _edited_option(event, at, changed, moved[f"options[{at}]"])
        for at, option in enumerate(event.options)
    )
    suffix = min(changed.suffix(event.aligned_suffix), common_suffix(list(rows.values())))
    made = replace(
        event,
        **rows,
        aligned_suffix=suffix,
        evidence=moved["evidence"],
        fine_evidence=moved.get("fine_evidence"),
        options=options,
    )
    if not touched.isdisjoint(f"options[{at}]" for at in range(len(options))):
        try:
            check_texts(Meaning(made))
        except InputError as error:
            raise InputError(f"{_name(event)}: after the edit {error}") from None
    return made


def _name(event: DecisionEvent) -> str:
    return f"prompt {event.id!r} event {event.event}"


def _spans(event: DecisionEvent) -> Iterator[tuple[str, Span]]:
    yield "evidence", event.evidence
    if event.fine_evidence:
        yield "fine_evidence", event.fine_evidence
    for at, option in enumerate(event.options):
        yield f"options[{at}]", option.span


def _touches(span: CharSpan, start: int, end: int) -> bool:
    """Whether an edit is of a span; what is put in at its end is, what is put in before is not."""
    return span[0] < start <= span[1] if start == end else start < span[1] and end > span[0]


def _check_inside(
    event: DecisionEvent, clean: Pieces, touched: Mapping[str, Span], at: CharSpan, new: str
) -> None:
    """Refuse an edit that does not leave every span what it is."""
    start, end = at
    for name, span in touched.items():
        first, last = clean.chars(span)
        why = f"; {_FIXED}" if name.startswith("options") else ""
        if not (first <= start and end <= last):
            raise InputError(
                f"{_name(event)}: the edit crosses the border of {name}; change it and what is "
                f"around it one after the other{why}"
            )
        if not (clean.text[first:start] + new + clean.text[end:last]).strip():
            raise InputError(f"{_name(event)}: the edit leaves {name} empty{why}")


def _check_lines(event: DecisionEvent, clean: Pieces, at: CharSpan, new: str) -> None:
    """Refuse a line more or less among options that are lines: it would read as an option."""
    shown = [clean.chars(option.span) for option in event.options]
    first, last = min(start for start, _ in shown), max(end for _, end in shown)
    lines = "\n" in clean.text[first:last]
    before = clean.text.rfind("\n", 0, first)
    after = clean.text.find("\n", last) % (len(clean.text) + 1)
    among = lines and before <= at[1] and at[0] <= after + 1
    if among and clean.text[slice(*at)].count("\n") != new.count("\n"):
        raise InputError(f"{_name(event)}: the edit adds or takes away a line; {_FIXED}")


def _in_the_others(
    event: DecisionEvent, clean: Pieces, start: int, end: int, new: str
) -> dict[str, tuple[int, ...]]:
    """The far and the near variant with the same edit; none where either has other words there."""
    rows = {}
    for name in ("far", "near"):
        other = event.pieces(name)
        at = _same_place(event, clean, other, start, end)
        if at is None:
            return {}
        rows[name] = retokenized(
            event.needed_tokenizer, _name(event), other, at, at + end - start, new
        )
    return rows


def _edited_option(event: DecisionEvent, at: int, changed: Change, span: Span) -> Option:
    """An option whose text was edited.

    Raises:
        InputError: the letter, or first word, that selects it is another one.
    """
    option = event.options[at]
    letter = Pieces(event.needed_tokenizer, [option.token]).text.strip()
    texts = changed.before.of(option.span), changed.after.of(span)
    ends = [{words[0].rstrip(".):"), words[-1]} for words in map(str.split, texts)]
    if letter in ends[0] - ends[1]:
        raise InputError(
            f"{_name(event)}: the edit changes what selects options[{at}] at the decision; {_FIXED}"
        )
    return replace(option, span=span, label=_label(event, at, changed))


def _label(event: DecisionEvent, at: int, changed: Change) -> str:
    """An option's label after an edit of its text, of which it may be a part."""
    label, text = event.options[at].label, changed.before.text
    first, last = changed.before.chars(event.options[at].span)
    found = re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text[first:last])
    if found is None:
        return label
    first, last = first + found.start(), first + found.end()
    start, end = changed.start, changed.end
    if first <= start and end <= last:
        return (text[first:start] + changed.new + text[end:last]).strip()
    if start < last and end > first:
        raise InputError(
            f"{_name(event)}: the edit crosses the border of the label in options[{at}]; change it "
            "and what is around it one after the other"
        )
    return label


def _same_place(
    event: DecisionEvent, clean: Pieces, other: Pieces, start: int, end: int
) -> int | None:
    """Where a variant has what the clean one has there; None where it has something else."""
    n, m = len(clean.tokens), len(other.tokens)
    most = min(n, m)
    left = count(a == b for a, b in zip(clean.tokens, other.tokens, strict=False))
    pairs = zip(clean.tokens[: left - n - 1 : -1], other.tokens[::-1], strict=False)
    right = min(count(a == b for a, b in pairs), most - left)
    if end <= clean.borders[left]:
        return start
    if start >= clean.borders[n - right]:
        return start + len(other.text) - len(clean.text)
    if start < clean.borders[left] or end > clean.borders[n - right]:
        raise InputError(
            f"{_name(event)}: the edit crosses the border of what the variants share; change "
            "both sides of it one after the other"
        )
    inner = clean.tokens[left : n - right], other.tokens[left : m - right]
    for block in SequenceMatcher(None, *inner, autojunk=False).get_matching_blocks():
        first, last = clean.chars((left + block.a, left + block.a + block.size))
        if first <= start and end <= last and block.size:
            return other.borders[left + block.b] + start - first
    return None
