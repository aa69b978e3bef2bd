"""Forms: how a document and its candidates are asked about, as a file that anybody can edit.

A form is a TOML file; those that come with the package lie beside this module.
"""

import hashlib
import json
import string
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from workbench.errors import InputError, shorten
from workbench.files import read_text
from workbench.labels.as_text import control_tokens

NameKind = Literal["auto", "letters", "numbers"]
_FOLDER = Path(__file__).parent
PACKAGED = tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))
"""Names of the forms that come with the package."""


@dataclass(frozen=True)
class Form:
    """What is written around documents and options; braces that are meant are doubled.

    Attributes:
        name: of the form, its file's name without an end.
        turn: what a user's turn says. It holds `{document}` and `{options}` once each, in this
            order.
        reply: of chat models: how to reply, behind the turn. It may hold `{kind}`: "letter",
            "letters" or "number".
        reason: of models that reason first: in place of `reply`. May hold `{kind}`.
        system: what the system's turn of chat models says; none where empty.
        option: a line of the options; it holds `{name}` and `{text}` once each.
        names: what options are named by; of "auto" letters while there are no more than 26, beyond
            what is one token each for the tokenizer, else numbers of equal width.
        answer: of plain models, what asks for the answer; a space follows it, unless it ends in a
            line break.
        where: the file that it was read from.
    """

    name: str
    turn: str
    reply: str = ""
    reason: str = ""
    system: str = ""
    option: str = "{name}. {text}"
    names: NameKind = "auto"
    answer: str = "Answer:"
    where: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        self.filled("turn", ("document", "options"), required=True)
        self.filled("option", ("name", "text"), required=True)
        for each in ("reply", "reason"):
            self.filled(each, ("kind",))
        for each in ("system", "answer"):
            self.filled(each, ())
        if not self.answer.strip():
            raise self._wrong("answer is empty; it asks plain models for the answer, as Answer:")

    @cached_property
    def _line(self) -> list[tuple[str, str | None]]:
        return self.filled("option", ("name", "text"), required=True)

    @property
    def sha256(self) -> str:
        """Hash of its texts, wherever they were read."""
        texts = {name: text for name, text in asdict(self).items() if name != "where"}
        return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()

    def option_line(self, name: str, text: str) -> str:
        """The line of an option."""
        values = {"name": name, "text": text, None: ""}
        return "".join(part + values[each] for part, each in self._line)

    def written(self, key: str) -> str:
        """A text without fields, `system` or `answer`, as models see it."""
        return "".join(text for text, _ in self.filled(key, ()))

    def filled(
        self, key: str, names: tuple[str, ...], *, required: bool = False
    ) -> list[tuple[str, str | None]]:
        """Parts of a text, each with the name of the field that follows it; None after the last.

        Raises:
            InputError: an unknown field, or, where they are `required`, not each of `names` once,
                and those of the turn in order.
        """
        try:
            found = [*string.Formatter().parse(getattr(self, key))]
        except ValueError:
            raise self._wrong(f"{key} has a single brace; double those that are meant") from None
        parts: list[tuple[str, str | None]] = []
        literal = ""
        for text, name, spec, turned in found:  # a doubled brace ends a piece without a field
            literal += text
            if name is not None:
                named = f"{name}:{spec or turned}" if spec or turned else name
                parts.append((literal, named))
                literal = ""
        fields_found = [name for _, name in parts]
        wanted = " and ".join(f"{{{name}}}" for name in names) or "none"
        unknown = next((name for name in fields_found if name not in names), None)
        if unknown is not None:
            raise self._wrong(
                f"{key} has other fields than {wanted}, as {shorten(unknown)}; double braces "
                "that are meant"
            )
        if required and sorted(map(str, fields_found)) != sorted(names):
            raise self._wrong(f"{key} must hold {wanted}, each once")
        if required and key == "turn" and tuple(fields_found) != names:
            raise self._wrong("turn must hold {document} before {options}")
        return [*parts, (literal, None)]

    def check_controls(self, tokenizer: Any) -> None:
        """Refuse control tokens of a tokenizer.

        Raises:
            InputError: one is written somewhere in the form.
        """
        controls = [text for text in control_tokens(tokenizer).values() if text]
        for each in fields(self):
            if any(control in getattr(self, each.name) for control in controls):
                raise self._wrong(
                    f"{each.name} holds a control token of this tokenizer; the chat template "
                    "writes them"
                )

    def _wrong(self, what: str) -> InputError:
        return InputError(f"{self.where or f'form {self.name!r}'}: {what}")


def open_form(name: str | Path | None, task: str) -> Form:
    """A form by name, or the one for documents of a task.

    Args:
        name: of a packaged form, or a file; None for the task's own.
        task: a name as `--task` takes it, such as `xmc:FOLDER`.

    Raises:
        InputError: no such form, or a file that is none.
    """
    if name is None:
        name = _of_task(task)
    if name in PACKAGED:
        return read_form(_FOLDER / f"{name}.toml")
    path = Path(name)
    if not path.exists():
        raise InputError(f"form {name}: is no file, and not one of {', '.join(PACKAGED)}")
    return read_form(path)


def _of_task(task: str) -> str:
    kind, _, rest = task.partition(":")
    if kind == "xmc" and (Path(rest.partition(",")[0]) / "debian.json").is_file():
        return "debian"
    return kind if kind in PACKAGED else "general"


def read_form(path: str | Path) -> Form:
    """Read a form from its TOML file.

    Raises:
        InputError: one line that names the file.
    """
    path = Path(path)
    text = read_text(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is not TOML: {' '.join(str(error).split())}") from None
    return _formed(path, values)


def _formed(path: Path, values: Mapping[str, Any]) -> Form:
    known = [each.name for each in fields(Form) if each.name not in ("name", "where")]
    for key, value in values.items():
        if key not in known:
            shown = key if len(key) <= 24 else f"of {len(key)} characters"
            raise InputError(f"{path}: unknown key {shown}; known are {', '.join(known)}")
        if not isinstance(value, str):
            raise InputError(f"{path}: {key} must be a text, is {type(value).__name__}")
    if values.get("names", "auto") not in get_args(NameKind):
        raise InputError(f"{path}: names must be one of {', '.join(get_args(NameKind))}")
    if "turn" not in values:
        raise InputError(f"{path}: key turn is missing: what is asked, with document and options")
    # Line breaks around a text of several lines are the file's.
    given = {key: text if key == "answer" else text.strip("\n") for key, text in values.items()}
    return Form(name=path.stem, **given, where=str(path))


def packaged_text(name: str) -> str:
    """The file of a packaged form.

    Raises:
        InputError: no such form.
    """
    if name not in PACKAGED:
        raise InputError(f"form {name!r} is not one of {', '.join(PACKAGED)}")
    return read_text(_FOLDER / f"{name}.toml")
