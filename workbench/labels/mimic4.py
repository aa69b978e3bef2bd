"""MIMIC-IV discharge notes and their ICD codes (Johnson et al. 2023), from the files of PhysioNet.

1. `hosp/d_icd_diagnoses`, `hosp/d_icd_procedures`: every described code of one ICD version is a
   label; diagnoses come first. Codes are strings throughout (leading zeros count), and always go
   with their version: the same letters mean other things in ICD-9 and ICD-10. Dots, small letters
   and spaces in them are taken out; what lost its leading zeros is left out (`icd_codes`).
2. `hosp/diagnoses_icd`, `hosp/procedures_icd`: the codes of an admission, in order of `seq_num`,
   diagnoses first. A code without a description is no label: it is counted and kept apart.
3. `note/discharge`: streamed. A note joins its admission's codes on `hadm_id`; notes without one,
   without text or without a code of this version are left out, and counted.
4. Splits come from a file that gives `hadm_id` a split, as Edin et al. (2023) publish theirs.

The data are credentialed: nothing of a note may leave the run folder. `text_is_private` says so,
documents hide their text in `repr`, and no error here shows a value of a note.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.errors import InputError
from workbench.labels.corpus import Document, check_split, need_file
from workbench.labels.icd10cm import load_icd10cm
from workbench.labels.icd_codes import KINDS, Found, Kind, dotted, numbers, plain, shortest, shown
from workbench.labels.lines import LONGEST_LABEL, bad_line
from workbench.labels.mimic4_files import (
    NO_NUMBER,
    SPLITS,
    line_of,
    notes,
    read_splits,
    tables,
    versions,
    whole_numbers,
)
from workbench.labels.space import Label, LabelSpace

ALL = "all"
"""The one split when there is no file of splits."""
MANY = 0.05
"""Share of the rows of codes that are left out from which on it is a warning."""

_DESCRIPTIONS: dict[Kind, str] = {
    "diagnosis": "d_icd_diagnoses.csv",
    "procedure": "d_icd_procedures.csv",
}
_CODES: dict[Kind, str] = {"diagnosis": "diagnoses_icd.csv", "procedure": "procedures_icd.csv"}
_NO_ADMISSION = "without an admission"
_AS_TEXT = "leading zeros are lost where codes are read as numbers, read them as text"


class Mimic4:
    """Discharge notes of MIMIC-IV (2.2 or later) with codes of one ICD version.

    A `LabelledCorpus`: labels and codes in memory, notes streamed. Label ids are dotted codes.

    Args:
        folder: holds `hosp/` of MIMIC-IV; files gzipped or plain.
        notes: holds `note/` of MIMIC-IV-Note; by default the same folder.
        splits: a csv, feather or parquet file with the columns `hadm_id` (or `_id`) and `split`
            (train, val, test). Without it there is one split, "all".
        version: 9 or 10, the ICD version whose codes are labels; an admission is coded in one.
        kinds: which codes are labels.
        name: what the corpus is called; mimic4-icd10 or mimic4-icd9 by default.

    Attributes:
        kinds: "diagnosis" or "procedure", for every label.
        undescribed: dotted codes without a description, with the number of rows that have them.
        ambiguous: the same of codes left out because they may be others that lost a leading zero.

    Raises:
        InputError: a file or a column is missing, or, with file and line, a broken gzip, a code
            described twice, too short or with a fraction, an id that is no number, an ICD version
            that is neither 9 nor 10.
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
        name: str | None = None,
    ) -> None:
        if version not in (9, 10):
            raise InputError(f"ICD version {version!r} is neither 9 nor 10")
        if not kinds or not set(kinds) <= set(KINDS):
            raise InputError(f"kinds of codes {kinds!r}: any of {', '.join(KINDS)} are right")
        self.version = version
        self.name = name or f"mimic4-icd{version}"
        self._notes = need_file(Path(notes or folder), "note/discharge.csv", "discharge.csv")
        self.label_ids: list[str] = []
        self.label_texts: list[str] = []
        self.kinds: list[Kind] = []
        self.undescribed: Counter[str] = Counter()
        self.ambiguous: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()
        self._left: dict[str, Counter[str]] = {}
        hosp = Path(folder)
        described: dict[Kind, pd.Series] = {
            kind: self._add_labels(hosp, kind) for kind in KINDS if kind in kinds
        }
        self._admissions, self._starts, self._codes = self._read_codes(hosp, described)
        self._split_of = read_splits(Path(splits)) if splits else None
        self.splits = SPLITS if splits else (ALL,)

    def _add_labels(self, hosp: Path, kind: Kind) -> pd.Series:
        """Undotted codes → positions of the labels that they are."""
        path = need_file(hosp, f"hosp/{_DESCRIPTIONS[kind]}", _DESCRIPTIONS[kind])
        (table,) = tables(path, ["icd_code", "icd_version", "long_title"], chunk=None)
        table = table[versions(path, table.icd_version) == self.version]
        self._refuse_numbers(path, table.icd_code, kind)
        table = table.assign(icd_code=plain(table.icd_code))
        twice = table.duplicated("icd_code")
        if twice.any():
            code = Counter([table.icd_code[twice].iloc[0]])
            what = f"a code of ICD-{self.version}{shown(code)} is described for the second time"
            raise bad_line(path, line_of(twice), what)
        least = shortest(self.version, kind)
        short = table.icd_code.str.len() < least
        if short.any():
            code = Counter([table.icd_code[short].iloc[0]])
            what = f"a code of ICD-{self.version}{shown(code)} has fewer than {least} characters"
            raise bad_line(path, line_of(short), f"{what}; {_AS_TEXT}")
        long = table.long_title.str.len() > LONGEST_LABEL
        if long.any():
            what = f"long_title has more than {LONGEST_LABEL:,} characters; a quote may be missing"
            raise bad_line(path, line_of(long), what)
        table = table[table.long_title != ""]
        first = len(self.label_ids)
        self.label_ids += [dotted(code, self.version, kind) for code in table.icd_code]
        self.label_texts += table.long_title.tolist()
        self.kinds.extend(kind for _ in range(len(table)))
        return pd.Series(range(first, len(self.label_ids)), index=table.icd_code)

    def _refuse_numbers(self, path: Path, codes: pd.Series, kind: Kind) -> None:
        wrong = numbers(codes, kind)
        if wrong.any():
            what = f"a code of ICD-{self.version} is written as a number with a fraction"
            raise bad_line(path, line_of(wrong), f"{what}; {_AS_TEXT}")

    def _read_codes(
        self, hosp: Path, described: dict[Kind, pd.Series]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Admissions, where the codes of each start, and the codes as positions of labels."""
        parts = [
            self._read_file(hosp, kind, place, positions)
            for place, (kind, positions) in enumerate(described.items())
        ]
        hadm, order, label = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        by = np.lexsort((order, hadm))
        admissions, starts = np.unique(hadm[by], return_index=True)
        return admissions, np.append(starts, len(by)), label[by]

    def _read_file(
        self, hosp: Path, kind: Kind, place: int, positions: pd.Series
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Admission, order in it and label of every row of one kind of codes."""
        path = need_file(hosp, f"hosp/{_CODES[kind]}", _CODES[kind])
        found = Found(positions)
        columns = ([np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)])
        labels = [np.empty(0, dtype=np.int32)]
        for table in tables(path, ["hadm_id", "seq_num", "icd_code", "icd_version"]):
            version = versions(path, table.icd_version)
            hadm = whole_numbers(path, table.hadm_id)
            order = whole_numbers(path, table.seq_num)
            order[order == NO_NUMBER] = 2**31  # behind those that say their place
            self._rows["without an ICD version"] += int((version == NO_NUMBER).sum())
            ours = version == self.version
            self._rows["read"] += int(ours.sum())
            self._rows[_NO_ADMISSION] += int((hadm[ours] == NO_NUMBER).sum())
            self._refuse_numbers(path, table.icd_code[ours], kind)
            ours &= hadm != NO_NUMBER
            label = found.positions(plain(table.icd_code[ours]))
            at = np.flatnonzero(ours)[label >= 0]
            columns[0].append(hadm[at])
            columns[1].append(order[at] + place * 2**32)  # diagnoses before procedures
            labels.append(label[label >= 0])
        label = np.concatenate(labels)
        kept = ~found.in_doubt(label)
        for mine, theirs in (
            (self.undescribed, found.undescribed),
            (self.ambiguous, found.ambiguous),
        ):
            for code, n in theirs.items():
                mine[dotted(code, self.version, kind)] += n
        hadm, order = (np.concatenate(parts)[kept] for parts in columns)
        return hadm, order, label[kept]

    @property
    def left_out(self) -> tuple[str, ...]:
        """What of the files is not used, in a line each: rows of codes, and notes read so far."""
        rows = {
            f"without a description{shown(self.undescribed)}": self.undescribed.total(),
            f"that may be others which lost a zero{shown(self.ambiguous)}": self.ambiguous.total(),
            _NO_ADMISSION: self._rows[_NO_ADMISSION],
            "without an ICD version": self._rows["without an ICD version"],
        }
        lines = []
        n = sum(rows.values())
        total = self._rows["read"] + self._rows["without an ICD version"]
        if n:
            warning = "warning: " if n > MANY * total else ""
            lines.append(f"{warning}{n} of {total} rows of codes are left out: {_listed(rows)}")
        notes: Counter[str] = Counter()
        for counts in self._left.values():
            # A note without an admission is in no split, and met in the reading of each.
            notes = notes + counts - Counter({_NO_ADMISSION: notes[_NO_ADMISSION]})
        if notes:
            lines.append(f"{notes.total()} notes are left out: {_listed(notes)}")
        return tuple(lines)

    def codes_of(self, hadm_id: int) -> tuple[int, ...]:
        """Labels of an admission by position, diagnoses first, each once; empty if it has none."""
        place = int(np.searchsorted(self._admissions, hadm_id))
        if place == len(self._admissions) or self._admissions[place] != hadm_id:
            return ()
        codes = self._codes[self._starts[place] : self._starts[place + 1]]
        return tuple(dict.fromkeys(codes.tolist()))

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
        seen: set[str] = set()
        left = self._left[split] = Counter()
        for line, note_id, admission, text in notes(self._notes):
            if not note_id.strip():
                left["without a note_id"] += 1
                continue
            if note_id in seen:
                raise bad_line(self._notes, line, "note_id occurs twice; note_ids are distinct")
            seen.add(note_id)
            if admission is None:
                left[_NO_ADMISSION] += 1
                continue
            if self._split_of is not None and self._split_of.get(admission) != split:
                continue
            labels = self.codes_of(admission)
            if not labels:
                left[f"without a code of ICD-{self.version}"] += 1
            elif not text.strip():
                left["without text"] += 1
            else:
                yield Document(id=note_id, title="", text=text, labels=labels)

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
        for code, text, kind in rows:
            if kind == "procedure":
                above, synonyms = (f"procedure {code.replace('.', '')[:3]}",), ()
            elif code in known:
                above, synonyms = known[code].ancestors, known[code].synonyms
            else:
                above, synonyms = (code.split(".")[0],), ()
            labels.append(Label(code, text, above, synonyms))
        return LabelSpace(self.name, labels)

    def cluster(self, label: int) -> str | None:
        """The taxonomy node of a label, by position, as in `LabelSpace.cluster`."""
        return self.space.cluster(self.label_ids[label])


load_mimic4 = Mimic4


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n)
