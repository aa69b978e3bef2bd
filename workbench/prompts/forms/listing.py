"""Which options a free reply lists."""

import re
from collections.abc import Iterable, Sequence

_SIGNS = re.compile(r"[*`\"“”„«»]")
_MARK = re.compile(r"\s*(?:[-•+#>·–—]+|\(?\d{1,3}[.):])(?=\s)\s*")
_AND = re.compile(r"\s*(?:[,;/|&+]|,?\s*\b(?:and|or)\b)\s*")
_ASIDE = re.compile(
    r"\s*(?:(?:the |my |final |best |correct |right )*"
    r"(?:answers?|options?|choices?|letters?|numbers?|labels?)(?: (?:is|are|would be))?\s*:?\s*)+",
    re.IGNORECASE,
)
_THOUGHTS = re.compile(r".*(?:</think>|^# answer\b)", re.DOTALL | re.MULTILINE | re.IGNORECASE)


def listed(reply: str, options: Sequence[str], names: Sequence[str]) -> list[int]:
    """Numbers of the options that a reply names, each once, in its order.

    A line names options at its start, behind a bullet or number: by text, whatever its case and
    spaces, the longest first, or by name; further ones behind commas or "and". What follows is an
    explanation. A line that starts in another way names the options whose texts stand in it.

    Args:
        reply: what the model wrote; of thoughts and headings before the answer nothing counts.
        options: the texts of the options.
        names: of the options.
    """
    places: dict[str, list[int]] = {}
    for number, text in enumerate(options):
        places.setdefault(_bare(text).casefold(), []).append(number)
    by_name = {name: number for number, name in enumerate(names)}
    texts = re.compile(_any(places, r"(?<!\w)", r"(?!\w)"), re.IGNORECASE)
    name = re.compile(_any(by_name, r"\(?", r"(?![\w'])\)?[.:)]?"))
    found: list[int] = []
    for line in _THOUGHTS.sub("", reply).splitlines():
        for is_text, choice in _of_line(_bare(line), texts, name):
            numbers = places.get(choice.casefold(), []) if is_text else [by_name[choice]]
            found += [number for number in numbers if number not in found][:1]
    return found


def _of_line(line: str, texts: re.Pattern[str], name: re.Pattern[str]) -> list[tuple[bool, str]]:
    """What a line names: whether it is a text, and which text or name."""
    at, found = 0, []
    while True:
        match = _at(line, at, texts, name)
        if match is None:
            break
        text, choice, at = match
        found.append((text, choice))
        more = _AND.match(line, at)
        if more is None or more.end() == len(line):
            break
        at = more.end()
    if found:
        return found
    return [(True, match[1]) for match in texts.finditer(line)]


def _at(
    line: str, at: int, texts: re.Pattern[str], name: re.Pattern[str]
) -> tuple[bool, str, int] | None:
    """The option that is named at a place of a line, and where its text or name ends."""
    aside = _ASIDE.match(line, at)
    starts = [at] + ([aside.end()] if aside else [])
    mark = _MARK.match(line, at)
    if mark:
        starts.append(mark.end())
    for start in starts:
        if found := texts.match(line, start):
            return True, found[1], found.end()
        named = name.match(line, start)
        if named:
            behind = re.compile(r"\s*").match(line, named.end())
            if behind and (found := texts.match(line, behind.end())):
                return True, found[1], found.end()
    for start in starts:
        named = name.match(line, start)
        if named and not _is_word(named[1], line[named.end() :]):
            return False, named[1], named.end()
    return None


def _is_word(name: str, rest: str) -> bool:
    """Whether a letter is a word: in "a fever" no option is named."""
    return name in ("A", "I") and re.match(r"\s+[a-z]", rest) is not None


def _any(choices: Iterable[str], before: str, behind: str) -> str:
    ordered = sorted((x for x in choices if x), key=len, reverse=True)
    return f"{before}({'|'.join(map(re.escape, ordered)) or '(?!)'}){behind}"


def _bare(text: str) -> str:
    return " ".join(_SIGNS.sub("", text).split())
