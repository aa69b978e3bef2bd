"""A folder of labelled documents, and how it is to be read, by name.

    xmc:FOLDER,titles=yes
    mimic4:FOLDER,icd=9,kinds=diagnosis,splits=full,notes=FOLDER,codes=FILE

What stands behind the folder is optional. Folders may have commas in their names.
"""

from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.labels.corpus import LabelledCorpus
from workbench.labels.icd_codes import KINDS
from workbench.labels.mimic4 import FIND, load_mimic4
from workbench.labels.xmc import load_xmc

_OPTIONS = {"xmc": ("titles",), "mimic4": ("icd", "kinds", "splits", "notes", "codes")}
_NO_SPLITS = "none"


def open_corpus(name: str) -> LabelledCorpus:
    """The documents of `xmc:FOLDER` or `mimic4:FOLDER`, with their options.

    `titles=yes` leaves the contents of XMC documents out. Of MIMIC-IV, `icd` is 9 or 10, `kinds`
    diagnosis or procedure (or both, with a +), `splits` what `Mimic4` takes, or "none"; the split
    that lies in the folder is found without it.

    Raises:
        InputError: no such option, or a folder that is not as its format has it.
    """
    form, _, rest = name.partition(":")
    if form not in _OPTIONS:
        raise InputError(f"{name!r}: no form of documents; {', '.join(_OPTIONS)} are known")
    folder, options = _options(rest, _OPTIONS[form])
    if form == "xmc":
        titles = _one_of("titles", options.get("titles", "no"), ("yes", "no"))
        return load_xmc(folder, titles_only=titles == "yes")
    return load_mimic4(folder, **_of_mimic4(options))


def _of_mimic4(options: dict[str, str]) -> dict[str, Any]:
    icd = _one_of("icd", options.get("icd", "10"), ("9", "10"))
    kinds = [
        _one_of("kinds", kind, KINDS) for kind in options.get("kinds", "+".join(KINDS)).split("+")
    ]
    splits = options.get("splits", FIND)
    return {
        "version": int(icd),
        "kinds": tuple(kinds),
        "splits": None if splits == _NO_SPLITS else splits,
        "notes": options.get("notes"),
        "codes": options.get("codes"),
    }


def _options(rest: str, known: tuple[str, ...]) -> tuple[Path, dict[str, str]]:
    folder, options = rest, dict[str, str]()
    while not Path(folder).exists() and "," in folder:
        before, _, last = folder.rpartition(",")
        key, equals, value = last.partition("=")
        if not equals:
            break
        if key not in known or not value:
            form = ", ".join(f"{name}=…" for name in known)
            raise InputError(f"option {last!r} behind a folder: {form} are known")
        if key in options:
            raise InputError(f"option {key!r} behind a folder occurs twice")
        options[key] = value
        folder = before
    return Path(folder), options


def _one_of(key: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise InputError(f"{key}={value}: {' or '.join(known)} is needed")
    return value
