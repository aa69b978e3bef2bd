"""Questions, and what they are made of: the text before it is cut, and what stands around it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from workbench.prompts.forms.cutting import fewer, pieces, shown_text, sizes_of
from workbench.prompts.forms.form import Form
from workbench.prompts.forms.names import Names
from workbench.prompts.templates import CharSpan


@dataclass(frozen=True)
class Question:
    """A question up to the decision; its `repr` holds no text.

    Attributes:
        text: of the prompt.
        tokens: of the text.
        names: what selects option i.
        option_tokens: tokens that follow `tokens` when option i is chosen; at least one each, and
            none begins another.
        document: characters of `text`: the document, as far as it is shown.
        shown: characters of the document as given that are shown.
        options: characters of `text`: each line of the options.
        quoted: characters of `text` where no control token is meant.
        gap: what stands between `text` and a name.
    """

    text: str = field(repr=False)
    tokens: tuple[int, ...] = field(repr=False)
    names: tuple[str, ...]
    option_tokens: tuple[tuple[int, ...], ...] = field(repr=False)
    document: CharSpan
    shown: tuple[CharSpan, ...]
    options: tuple[CharSpan, ...] = field(repr=False)
    quoted: CharSpan
    gap: str


@dataclass(frozen=True)
class Layout:
    """What stands around the document and so many options."""

    before: str
    between: str
    after: str
    names: Names
    ending: tuple[int, ...]
    """Tokens with which a question ends where the names' tokens hold."""


@dataclass
class Draft:
    """A question that may have to be cut."""

    document: str
    offered: tuple[str, ...]
    layout: Layout
    keep: Sequence[CharSpan]
    parts: Sequence[CharSpan] = ()
    sizes: Sequence[int] = ()
    kept: frozenset[int] = frozenset()
    numbers: Sequence[int] | None = None
    """Of the pieces that are shown; None for all of the document."""

    def written(self, form: Form, gap: str) -> Question:
        """The text, as far as it is to be shown, without tokens."""
        if self.numbers is None:
            told, shown = self.document, ((0, len(self.document)),)
        else:
            told, shown = shown_text(self.document, self.parts, self.numbers)
        layout, names = self.layout, self.layout.names
        start = len(layout.before)
        document = (start, start + len(told))
        at = document[1] + len(layout.between)
        lines, spans = [], []
        for name, text in zip(names.names, self.offered, strict=True):
            line = form.option_line(name, text)
            lines.append(line)
            spans.append((at, at + len(line)))
            at += len(line) + 1
        text = f"{layout.before}{told}{layout.between}" + "\n".join(lines) + layout.after
        return Question(
            text,
            (),
            names.names,
            (),
            document,
            shown if self.document else (),
            tuple(spans),
            (start, spans[-1][1]),
            gap.removeprefix(names.lead) if names.lead else gap,
        )

    def cut(self, begins: Sequence[int], over: int, marker: int) -> bool:
        """Show so many tokens less; whether that leaves anything of the document."""
        if self.numbers is None:
            self.parts = pieces(self.document)
            self.sizes = sizes_of(self.parts, begins)
            self.kept = frozenset(
                number
                for number, (start, end) in enumerate(self.parts)
                if any(a < end and start < b for a, b in self.keep)
            )
            self.numbers = range(len(self.parts))
            over += marker * (1 + len(self.kept))
        self.numbers = fewer(self.numbers, self.sizes, self.kept, over)
        return bool(self.numbers)


def one_line(text: str) -> str:
    """A label's text as one line: a line break in it would end its option."""
    return " ".join(text.split()) if len(text.splitlines()) > 1 else text
