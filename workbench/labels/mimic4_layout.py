"""Where the files of MIMIC-IV are: PhysioNet's own folders, and files of splits by their names.

The two modules may share a folder (`hosp/`, `note/`), or each have the one that PhysioNet gives it:
`mimiciv/3.1/hosp` and `mimic-iv-note/2.2/note` beside it, below `physionet.org/files/`, too.

Splits are looked for in the folder, in `splits/`, and in the folders of those who publish them:
    splits.csv, mimiciv_icd10_split.feather (Edin et al. 2023), mimiciv_icd10cm_splits.feather:
        a table (csv, feather, parquet) with hadm_id or _id, and split.
    train_full_hadm_ids.csv, dev_full_…, test_full_…; train_50_… (Mullenbach et al. 2018 for
        MIMIC-III, Nguyen et al. 2023 for MIMIC-IV): a list of hadm_id each. TOP_50_CODES.csv
        beside those of 50 has their codes.
What names another ICD version, or MIMIC-III, is passed over.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from workbench.errors import InputError
from workbench.labels.corpus import find_file, need_file

_MODULES = ("", "*/", "*/*/", "physionet.org/files/*/", "physionet.org/files/*/*/")
_NOTES = "discharge.csv"
_CODES = "diagnoses_icd.csv"
_TABLE = re.compile(r"(?P<name>.*split.*)\.(?:csv|csv\.gz|feather|parquet)")
_LIST = re.compile(r"(?P<split>train|dev|val|valid|test)_(?P<name>.*_)?hadm_ids\.csv(?:\.gz)?")
_HOMES = ("", "splits/", "mimic4_icd{0}/", "mimiciv_icd{0}/", "mimicdata/mimic4_icd{0}/",
          "files/data/mimiciv_icd{0}/", "data/splits/")  # fmt: skip


@dataclass(frozen=True)
class SplitFiles:
    """One split of somebody: a table, or a list of admissions for each of its parts."""

    name: str
    table: Path | None = None
    lists: dict[str, Path] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return (self.table or next(iter(self.lists.values()))).parent


def hosp_folder(folder: Path) -> Path:
    """The folder that holds the tables of codes.

    Raises:
        InputError: no such folder, no such files, or several versions of them.
    """
    for place in (folder / "hosp", folder):
        if find_file(place, _CODES, "procedures_icd.csv"):
            return place
    found = _below(folder, "hosp", _CODES)
    return _only(found, folder, "MIMIC-IV") or need_file(folder, f"hosp/{_CODES}").parent


def notes_file(folder: Path, hosp: Path) -> Path:
    """The discharge notes: in the folder, or in that of MIMIC-IV-Note beside the one of `hosp`.

    Raises:
        InputError: no such file, or several versions of it.
    """
    if found := find_file(folder, f"note/{_NOTES}", _NOTES):
        return found
    module = hosp.resolve().parent
    beside = ("mimic-iv-note*/", "mimic-iv-note*/*/")
    for place in (folder, module.parent, module.parent.parent):
        below = _below(place, "note", _NOTES, _MODULES if place == folder else beside)
        if home := _only(below, place, "MIMIC-IV-Note"):
            return need_file(home, _NOTES)
    return need_file(folder, f"note/{_NOTES}")


def find_splits(folder: Path, version: int, name: str | None = None) -> SplitFiles | None:
    """The split whose files lie in the folder; None where there is none.

    Args:
        folder: of the data.
        version: ICD version; files that name the other one are passed over.
        name: which one, where there are several, such as "full" or "50".

    Raises:
        InputError: there are several and no name, or none of that name.
    """
    found: dict[str, SplitFiles] = {}
    for home in _HOMES:
        for split in _splits_in(folder / home.format(version), f"icd{19 - version}"):
            found.setdefault(split.name, split)
    known = ", ".join(sorted(found)) or "none"
    if name:
        if name not in found:
            raise InputError(f"{folder}: no split {name!r} in this folder; it has {known}")
        return found[name]
    if len(found) > 1:
        raise InputError(f"{folder}: several splits ({known}); say which, as splits={min(found)}")
    return next(iter(found.values()), None)


def _splits_in(place: Path, other: str) -> Iterable[SplitFiles]:
    if not place.is_dir():
        return
    lists: dict[str, dict[str, Path]] = {}
    for path in sorted(place.iterdir()):
        if other in path.name.lower() or path.name.lower().startswith("mimiciii"):
            continue
        if found := _LIST.fullmatch(path.name):
            name = (found["name"] or "full_").removesuffix("_")
            lists.setdefault(name, {})[found["split"]] = path
        elif (found := _TABLE.fullmatch(path.name)) and path.is_file():
            yield SplitFiles(found["name"], table=path)
    for name, paths in lists.items():
        yield SplitFiles(name, lists=paths)


def _below(folder: Path, last: str, file: str, patterns: Iterable[str] = _MODULES) -> list[Path]:
    places = {path.resolve() for pattern in patterns for path in folder.glob(f"{pattern}{last}")}
    return sorted(place for place in places if find_file(place, file))


def _only(places: list[Path], folder: Path, what: str) -> Path | None:
    if len(places) > 1:
        names = ", ".join(str(place.parent) for place in places)
        raise InputError(f"{folder}: several folders of {what} ({names}); name one of them")
    return places[0] if places else None
