"""Which options a free reply lists."""

import re
from collections.abc import Iterable, Sequence

_SIGNS = re.compile(r"[*`\"“”„«»{}]|\\(?:boxed|text)\b|</?answer>")
_MARK = re.compile(r"(?:[-•+#>|·–—]+|\(?\d{1,3}[.):])\s+")
_AND = re.compile(r"\s*(?:[,;/|&+]|,?\s*\b(?:and|or)\b)\s*")
_KINDS = r"(?:answer|option|choice|letter|number|label|entry|code|package)s?"
_ASIDE = re.compile(
    rf"(?:(?:the|my|final|best|correct|right)\s+)*{_KINDS}(?:\s+(?:is|are|would be))?\W*", re.I
)
_BEHIND = rf"\b(?:is|are|{_KINDS})\b\W*"
_THOUGHTS = re.compile(r".*(?:</think>|^\W*# answer\b)", re.DOTALL | re.MULTILINE | re.I)
_SPACES = re.compile(r"\s*")


def listed(reply: str, options: Sequence[str], names: Sequence[str]) -> list[int]:
    """Numbers of the options that a reply names, each once, in its order.

    A line names options at its start, behind a bullet or a number: by text, whatever its case and
    spaces, the longest first, or by name; further ones behind commas or "and". What follows is an
    explanation. Where no line does, options count whose texts stand somewhere, or whose names
    stand behind such a word as "answer".

    Args:
        reply: what the model wrote; of thoughts and headings before the answer nothing counts.
        options: the texts of the options.
        names: of the options.
    """
    reader = _Reader(options, names)
    lines = [_bare(line) for line in _THOUGHTS.sub("", reply).splitlines()]
    named = [number for line in lines for number in reader.at_start(line)]
    return list(dict.fromkeys(named or [x for line in lines for x in reader.anywhere(line)]))


class _Reader:
    """Finds the options of one prompt."""

    def __init__(self, options: Sequence[str], names: Sequence[str]) -> None:
        self._numbers: dict[str, list[int]] = {}
        for number, text in enumerate(options):
            self._numbers.setdefault(_folded(_bare(text)), []).append(number)
        self._names = {name: number for number, name in enumerate(names)}
        self._text = re.compile(rf"(?<!\w){_any(map(_bare, options))}(?!\w)", re.I)
        name = rf"{_any(self._names)}(?![\w'])"
        self._name = re.compile(rf"\(?{name}\)?[.:)]?")
        self._alone = re.compile(rf"\W*{_any(self._names)}\W*", re.I)
        self._behind = re.compile(rf"(?i:{_BEHIND}){name}")

    def at_start(self, line: str) -> list[int]:
        """What a line begins with."""
        if alone := self._alone.fullmatch(line):
            return [self._names.get(alone[1], self._names.get(alone[1].upper(), 0))]
        at, found = 0, []
        while (one := self._at(line, at)) is not None:
            number, at = one
            found.append(number)
            more = _AND.match(line, at)
            if more is None:
                break
            at = more.end()
        return found

    def anywhere(self, line: str) -> list[int]:
        """What stands somewhere in a line."""
        texts = [self._of_text(found[1]) for found in self._text.finditer(line)]
        if texts:
            return texts
        behind = self._behind.finditer(line)
        return [self._names[x[1]] for x in behind if not _is_word(x[1], line[x.end() :])]

    def _of_text(self, text: str) -> int:
        """Of options with one text each in turn."""
        numbers = self._numbers[_folded(text)]
        numbers.append(numbers.pop(0))
        return numbers[-1]

    def _at(self, line: str, at: int) -> tuple[int, int] | None:
        """The option that is named at a place of a line, and where its text or name ends."""
        skipped = [found.end() for each in (_ASIDE, _MARK) if (found := each.match(line, at))]
        names = [self._name.match(line, start) for start in (at, *skipped)]
        behind = [_SPACES.match(line, name.end()).end() for name in names if name]  # pyright: ignore[reportOptionalMemberAccess]
        for start in (at, *skipped, *behind):
            if text := self._text.match(line, start):
                return self._of_text(text[1]), text.end()
        for name in names:
            if name and not _is_word(name[1], line[name.end() :]):
                return self._names[name[1]], name.end()
        return None


def _is_word(name: str, rest: str) -> bool:
    """Whether a letter is a word: in "A fever" no option is named."""
    return name in ("A", "I") and re.match(r"\s+[a-z]", rest) is not None


def _any(choices: Iterable[str]) -> str:
    ordered = sorted(filter(None, choices), key=len, reverse=True)
    return f"({'|'.join(map(re.escape, ordered)) or '(?!)'})"


def _folded(text: str) -> str:
    """Alike for what `re.IGNORECASE` takes for alike."""
    return re.sub("[İı]", "i", text).casefold()


def _bare(text: str) -> str:
    return " ".join(_SIGNS.sub("", text).split())
