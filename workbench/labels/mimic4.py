"""MIMIC-IV discharge notes and their ICD codes (Johnson et al. 2023), from the files of PhysioNet.

1. `hosp/d_icd_diagnoses`, `hosp/d_icd_procedures`: the codes of one ICD version are labels. Codes
   are strings throughout (leading zeros count), and a label's id says version and kind:
   `icd10cm:E11.65`, `icd9pcs:00.30`. Dots, small letters and spaces in the files do not matter;
   codes that lost their leading zeros are left out (`icd_codes`).
2. `hosp/diagnoses_icd`, `hosp/procedures_icd`: the codes of an admission, in order of `seq_num`,
   diagnoses first. One without a description is a label all the same: the code is its text.
3. `note/discharge`: streamed. A note joins its admission's codes on `hadm_id`, and addenda
   (`note_type` AD) join their note. Notes without an admission, text or code of this version are
   left out, and counted.
4. Splits come from a file that gives `hadm_id` a split, or from lists of them (`mimic4_layout`).

The data are credentialed: nothing of a note may leave the run folder. `text_is_private` says so,
documents hide their text in `repr`, and no error here shows a value of a note.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pandas as pd

from workbench.errors import InputError
from workbench.labels.corpus import Document, check_split
from workbench.labels.icd10cm import load_icd10cm
from workbench.labels.icd_codes import KINDS, Kind, plain
from workbench.labels.lines import bad_line, text_lines
from workbench.labels.mimic4_codes import NO_ADMISSION, Codes, listed
from workbench.labels.mimic4_files import (
    NO_NOTE,
    SPLITS,
    Note,
    notes,
    read_lists,
    read_splits,
    with_addenda,
)
from workbench.labels.mimic4_layout import find_splits, hosp_folder, notes_file
from workbench.labels.space import Label, LabelSpace

ALL = "all"
"""The one split when there is no file of splits."""
FIND = "find"
"""Stands for the split whose files lie in the folder."""

_NO_ID = "without a note_id"
_NO_SPLIT = "of admissions in no split"
_EVERY_TIME = (NO_ADMISSION, _NO_ID, _NO_SPLIT, NO_NOTE)
"""Why notes are left out that are met in the reading of every split."""
_TOP = "TOP_50_CODES.csv"


class Mimic4:
    """Discharge notes of MIMIC-IV (2.2 or later) with codes of one ICD version.

    A `LabelledCorpus`: labels and codes in memory, notes streamed. Label ids are dotted codes with
    their version and kind.

    Args:
        folder: holds `hosp/` of MIMIC-IV, or PhysioNet's folder of it; files gzipped or plain.
        notes: holds `note/` of MIMIC-IV-Note; by default the same folder, or the one beside it.
        splits: a csv, feather or parquet file with the columns `hadm_id` (or `_id`) and `split`
            (train, val, test); or the name of a split whose files lie in the folder, as "full"
            or "50" for `train_full_hadm_ids.csv` and its like; or "find" for the only one there.
            Without it there is one split, "all".
        version: 9 or 10, the ICD version whose codes are labels; an admission is coded in one.
        kinds: which codes are labels.
        codes: a file of codes, one a line; no others are labels. Lists of the split "50" bring
            their own.
        name: what the corpus is called; mimic4-icd10 or mimic4-icd9 by default, with what is
            chosen of the codes behind it.

    Attributes:
        kinds: "diagnosis" or "procedure", for every label.
        undescribed: dotted codes without a description, with the number of rows that have them.
        ambiguous: the same of codes left out because they lost a leading zero, or may have.

    Raises:
        InputError: a file or a column is missing, or, with file and line, what `Codes` refuses.
    """

    text_is_private = True

    def __init__(
        self,
        folder: str | Path,
        *,
        notes: str | Path | None = None,
        splits: str | Path | None = None,
        version: int = 10,
        kinds: tuple[Kind, ...] = KINDS,
        codes: str | Path | None = None,
        name: str | None = None,
    ) -> None:
        if version not in (9, 10):
            raise InputError(f"ICD version {version!r} is neither 9 nor 10")
        if not kinds or not set(kinds) <= set(KINDS):
            raise InputError(f"kinds of codes {kinds!r}: any of {', '.join(KINDS)} are right")
        self.version = version
        folder = Path(folder)
        hosp = hosp_folder(folder)
        self._notes = notes_file(Path(notes or folder), hosp)
        self._split_of, top = _read_split(folder, splits, version)
        self._splits_missing = splits == FIND and self._split_of is None
        self.splits = (ALL,) if self._split_of is None else SPLITS
        only = _read_codes(Path(codes)) if codes else (_read_codes(top) if top else None)
        self._codes = Codes(hosp, version, kinds, only)
        self.label_ids, self.label_texts = self._codes.ids, self._codes.texts
        if not self.label_ids:
            these = "of the list of codes " if only is not None else ""
            raise InputError(f"{hosp}: no code {these}is one of ICD-{version}; none is a label")
        self.kinds = self._codes.kinds
        self.undescribed, self.ambiguous = self._codes.undescribed, self._codes.ambiguous
        chosen = "" if set(kinds) == set(KINDS) else f"-{kinds[0]}"
        chosen += f"-{len(only)}" if only is not None else ""
        self.name = name or f"mimic4-icd{version}{chosen}"
        self._left: dict[str, Counter[str]] = {}

    @property
    def left_out(self) -> tuple[str, ...]:
        """What of the files is not used, in a line each: rows of codes, and notes read so far."""
        lines = self._codes.said
        if self._splits_missing:
            lines.append("warning: no file of splits in the folder, all notes are one split")
        left: Counter[str] = Counter()
        for counts in self._left.values():
            left += counts
            for reason in _EVERY_TIME:
                left[reason] = max(each[reason] for each in self._left.values())
        if n := left.total():
            lines.append(f"{n} notes are left out: {listed(dict(sorted(left.items())))}")
        return tuple(lines)

    def codes_of(self, hadm_id: int) -> tuple[int, ...]:
        """Labels of an admission by position, diagnoses first, each once; empty if it has none."""
        return self._codes.of(hadm_id)

    def documents(self, split: str = ALL) -> Iterator[Document]:
        """The notes of a split with their codes, streamed; a document's id is its `note_id`.

        Notes of admissions that the file of splits leaves out are in no split.

        Raises:
            InputError: no such split; or, with file and line, a `hadm_id` that is no number, a
                `note_id` for the second time, a row of the wrong length, or a broken gzip.
        """
        check_split(self, split)
        return self._stream(split)

    def _stream(self, split: str) -> Iterator[Document]:
        left = self._left[split] = Counter()
        for note in with_addenda(self._admitted(left), left):
            assert note.admission is not None
            if self._split_of is not None:
                own = self._split_of.get(note.admission)
                left[_NO_SPLIT] += own is None
                if own != split:
                    continue
            labels = self._codes.of(note.admission)
            if not labels:
                left[f"without a code of ICD-{self.version}"] += 1
            elif not note.text.strip():
                left["without text"] += 1
            else:
                yield Document(id=note.id, title="", text=note.text, labels=labels)

    def _admitted(self, left: Counter[str]) -> Iterator[Note]:
        """Notes with an id, which is theirs alone, and an admission."""
        seen: set[str] = set()
        for note in notes(self._notes):
            if not note.id.strip():
                left[_NO_ID] += 1
                continue
            if note.id in seen:
                what = "note_id occurs twice; note_ids are distinct"
                raise bad_line(self._notes, note.line, what)
            seen.add(note.id)
            if note.admission is None:
                left[NO_ADMISSION] += 1
            else:
                yield note

    @cached_property
    def space(self) -> LabelSpace:
        """The labels with their taxonomy, made when first asked for.

        ICD-10-CM codes have the taxonomy and the inclusion terms of `load_icd10cm` where it knows
        them, else their three-character category; so have other diagnoses (E and three digits in
        ICD-9). Procedures have their first three characters, marked as procedures since the same
        characters may name a category of diagnoses.
        """
        known = {label.id: label for label in load_icd10cm()} if self.version == 10 else {}
        rows = zip(self.label_ids, self.label_texts, self.kinds, strict=True)
        labels = []
        for label_id, text, kind in rows:
            code = label_id.partition(":")[2]
            if kind == "procedure":
                above, synonyms = (f"procedure {code.replace('.', '')[:3]}",), ()
            elif code in known:
                above, synonyms = known[code].ancestors, known[code].synonyms
            else:
                above, synonyms = (code.split(".")[0],), ()
            labels.append(Label(label_id, text, above, synonyms))
        return LabelSpace(self.name, labels)

    def cluster(self, label: int) -> str | None:
        """The taxonomy node of a label, by position, as in `LabelSpace.cluster`."""
        return self.space.cluster(self.label_ids[label])


load_mimic4 = Mimic4


def _read_split(
    folder: Path, splits: str | Path | None, version: int
) -> tuple[dict[int, str] | None, Path | None]:
    """`hadm_id` → split, and the list of codes that comes with it; None where there is none."""
    if splits is None:
        return None, None
    if splits != FIND and (isinstance(splits, Path) or Path(splits).suffix):
        path = Path(splits)
        return read_splits(path if path.exists() else folder / path), None
    found = find_splits(folder, version, None if splits == FIND else str(splits))
    if found is None:
        return None, None
    if found.table:
        return read_splits(found.table), None
    top = found.folder / _TOP
    return read_lists(found.lists), top if found.name == "50" and top.is_file() else None


def _read_codes(path: Path) -> frozenset[str]:
    """The codes of a list, undotted.

    Raises:
        InputError: the file cannot be read, or holds none.
    """
    lines = [text for _, text in text_lines(path, Counter()) if text.strip()]
    if not lines:
        raise InputError(f"{path}: holds no codes; one a line is needed")
    return frozenset(plain(pd.Series(lines)))
