"""MIMIC-IV discharge notes and their ICD codes (Johnson et al. 2023), from the files of PhysioNet.

1. `hosp/d_icd_diagnoses`, `hosp/d_icd_procedures`: every described code of one ICD version is a
   label; diagnoses come first. Codes are strings throughout (leading zeros count), and always go
   with their version: the same letters mean other things in ICD-9 and ICD-10.
2. `hosp/diagnoses_icd`, `hosp/procedures_icd`: the codes of an admission, in order of `seq_num`,
   diagnoses first. A code without a description is no label: it is counted and kept apart.
3. `note/discharge`: streamed. A note joins its admission's codes on `hadm_id`; notes without text
   or without a code of this version are left out.
4. Splits come from a file that gives `hadm_id` a split, as Edin et al. (2023) publish theirs.

The data are credentialed: nothing of a note may leave the run folder. `text_is_private` says so,
documents hide their text in `repr`, and no error here shows a value of a note.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow

from workbench.errors import InputError
from workbench.labels.corpus import (
    BROKEN,
    Document,
    bad_line,
    broken_gzip,
    check_split,
    need_file,
    numbered_lines,
    open_binary,
)
from workbench.labels.icd10cm import load_icd10cm
from workbench.labels.space import Label, LabelSpace

Kind = Literal["diagnosis", "procedure"]
KINDS: tuple[Kind, ...] = ("diagnosis", "procedure")
SPLITS = ("train", "val", "test")
ALL = "all"
"""The one split when there is no file of splits."""

_DESCRIPTIONS: dict[Kind, str] = {
    "diagnosis": "d_icd_diagnoses.csv",
    "procedure": "d_icd_procedures.csv",
}
_CODES: dict[Kind, str] = {"diagnosis": "diagnoses_icd.csv", "procedure": "procedures_icd.csv"}
_VERSIONS = ("9", "10")
_CHUNK = 200_000
_NOTE_COLUMNS = ("note_id", "hadm_id", "text")
_LONGEST_FIELD = 2**24  # a note is one field; the module's own limit of 128 kB is near the longest


def dotted(code: str, version: int, kind: Kind) -> str:
    """A code as it is written with its dot: E1165 → E11.65, E8801 (ICD-9) → E880.1, 0331 → 03.31.

    ICD-10 procedures have no dot.
    """
    if kind == "procedure":
        cut = 2 if version == 9 else len(code)
    else:
        cut = 4 if version == 9 and code.startswith("E") else 3
    return f"{code[:cut]}.{code[cut:]}" if len(code) > cut else code


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

    Raises:
        InputError: a file or a column is missing, or, with file and line, a broken gzip, a code
            described twice, an id that is no number, an ICD version that is neither 9 nor 10.
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
        hosp = Path(folder)
        described: dict[Kind, pd.Series] = {
            kind: self._add_labels(hosp, kind) for kind in KINDS if kind in kinds
        }
        self._admissions, self._starts, self._codes = self._read_codes(hosp, described)
        self._split_of = _read_splits(Path(splits)) if splits else None
        self.splits = SPLITS if splits else (ALL,)

    def _add_labels(self, hosp: Path, kind: Kind) -> pd.Series:
        """Undotted codes → positions of the labels that they are."""
        path = need_file(hosp, f"hosp/{_DESCRIPTIONS[kind]}", _DESCRIPTIONS[kind])
        (table,) = _tables(path, ["icd_code", "icd_version", "long_title"], chunk=None)
        _check_versions(path, table)
        twice = table.duplicated(["icd_code", "icd_version"])
        if twice.any():
            row = table.loc[twice].iloc[0]
            what = f"code {row.icd_code[:16]!r} of ICD-{row.icd_version} is described twice"
            raise bad_line(path, _line_of(twice), f"{what}; each (icd_code, icd_version) once")
        table = table[(table.icd_version == str(self.version)) & (table.long_title != "")]
        first = len(self.label_ids)
        self.label_ids += [dotted(code, self.version, kind) for code in table.icd_code]
        self.label_texts += table.long_title.tolist()
        self.kinds.extend(kind for _ in range(len(table)))
        return pd.Series(range(first, len(self.label_ids)), index=table.icd_code)

    def _read_codes(
        self, hosp: Path, described: dict[Kind, pd.Series]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Admissions, where the codes of each start, and the codes as positions of labels."""
        nothing = np.empty(0, dtype=np.int64)
        columns = ([nothing], [nothing], [nothing])
        for place, (kind, positions) in enumerate(described.items()):
            path = need_file(hosp, f"hosp/{_CODES[kind]}", _CODES[kind])
            needed = ["hadm_id", "seq_num", "icd_code", "icd_version"]
            for table in _tables(path, needed, chunk=_CHUNK):
                _check_versions(path, table)
                hadm = _whole_numbers(path, table.hadm_id)
                order = _whole_numbers(path, table.seq_num)
                ours = (table.icd_version == str(self.version)).to_numpy()
                codes = table.icd_code[ours]
                label = positions.reindex(codes).fillna(-1).to_numpy(dtype=np.int32)
                self.undescribed.update(
                    dotted(code, self.version, kind) for code in codes[label < 0]
                )
                found = np.flatnonzero(ours)[label >= 0]
                columns[0].append(hadm[found])
                columns[1].append(order[found] + place * 2**32)  # diagnoses before procedures
                columns[2].append(label[label >= 0])
        hadm, order, label = (np.concatenate(parts) for parts in columns)
        by = np.lexsort((order, hadm))
        admissions, starts = np.unique(hadm[by], return_index=True)
        return admissions, np.append(starts, len(by)), label[by]

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
        for line, note_id, hadm_id, text in _notes(self._notes):
            if note_id in seen:
                raise bad_line(self._notes, line, "note_id occurs twice; note_ids are distinct")
            seen.add(note_id)
            if not hadm_id.isdecimal():
                raise bad_line(self._notes, line, "hadm_id is not a whole number")
            admission = int(hadm_id)
            if self._split_of is not None and self._split_of.get(admission) != split:
                continue
            labels = self.codes_of(admission)
            if labels and text:
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


def _tables(path: Path, columns: list[str], chunk: int | None) -> Iterator[pd.DataFrame]:
    """Chunks of a csv file as strings; row `i` of the file has the index `i`, in line `i` + 2."""
    done = 0
    with open_binary(path) as stream:
        try:
            # "NA" is a code like any other, not a missing value.
            reader = pd.read_csv(
                stream, usecols=columns, dtype=str, keep_default_na=False, chunksize=chunk
            )
            for table in [reader] if isinstance(reader, pd.DataFrame) else reader:
                yield pd.DataFrame({name: table[name].str.strip() for name in columns})
                done += len(table)
        except BROKEN:
            for _ in numbered_lines(path):  # reads on to the line, which is in the error it raises
                pass
            raise
        except ValueError as error:  # pandas says which line or which columns in its own words
            what = f"{' '.join(str(error).split())[:200]}; columns {', '.join(columns)} are needed"
            raise InputError(f"{path}: from line {done + 1}: {what}") from None


def _line_of(wrong: pd.Series) -> int:
    return int(wrong.index[wrong.to_numpy()][0]) + 2


def _check_versions(path: Path, table: pd.DataFrame) -> None:
    wrong = ~table.icd_version.isin(_VERSIONS)
    if wrong.any():
        raise bad_line(path, _line_of(wrong), "icd_version is neither 9 nor 10")


def _whole_numbers(path: Path, column: pd.Series) -> np.ndarray:
    wrong = ~column.str.fullmatch(r"[0-9]{1,18}")
    if wrong.any():
        raise bad_line(path, _line_of(wrong), f"{column.name} is not a whole number")
    return column.to_numpy(dtype=np.int64)


def _notes(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Line in which a note begins, note_id, hadm_id, text; texts hold line breaks."""
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    with open_binary(path) as stream:
        rows = csv.reader(io.TextIOWrapper(stream, encoding="utf-8", newline=""), strict=True)
        line = 1
        try:
            header = next(rows, [])
            missing = [column for column in _NOTE_COLUMNS if column not in header]
            if missing:
                raise bad_line(
                    path, 1, f"no column {missing[0]!r}; {', '.join(_NOTE_COLUMNS)} are needed"
                )
            at = [header.index(column) for column in _NOTE_COLUMNS]
            line = rows.line_num + 1
            for row in rows:
                if len(row) != len(header):
                    what = f"{len(row)} fields, but the header has {len(header)}"
                    raise bad_line(path, line, f"{what}; a quote may be missing")
                note_id, hadm_id, text = (row[place] for place in at)
                yield line, note_id, hadm_id.strip(), text
                line = rows.line_num + 1
        except BROKEN:
            raise broken_gzip(path, line) from None
        except UnicodeDecodeError:
            raise bad_line(path, line, "not UTF-8") from None
        except csv.Error:
            raise bad_line(path, line, "not csv; a quote is missing or out of place") from None


def _read_splits(path: Path) -> dict[int, str]:
    """`hadm_id` → split."""
    table = _read_split_table(path)
    key = next((name for name in ("hadm_id", "_id") if name in table), None)
    if key is None or "split" not in table:
        raise InputError(f"{path}: columns hadm_id (or _id) and split are needed")
    wrong = pd.Series(~table["split"].isin(SPLITS))
    if wrong.any():
        raise bad_line(path, _line_of(wrong), f"the split is none of {', '.join(SPLITS)}")
    # Feather files of others may hold whole numbers as floats.
    ids = _whole_numbers(path, table[key].astype(str).str.removesuffix(".0").rename(key))
    twice = pd.Series(ids).duplicated()
    if twice.any():
        raise bad_line(path, _line_of(twice), f"{key} occurs for the second time")
    return dict(zip(ids.tolist(), table["split"].tolist(), strict=True))


def _read_split_table(path: Path) -> pd.DataFrame:
    suffix = path.name.removesuffix(".gz").rpartition(".")[2]
    readers = {"csv": pd.read_csv, "feather": pd.read_feather, "parquet": pd.read_parquet}
    if suffix not in readers:
        raise InputError(f"{path}: a csv, feather or parquet file of splits is needed")
    try:
        return readers[suffix](path).reset_index(drop=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (*BROKEN, ValueError, pyarrow.ArrowException):
        raise InputError(f"{path}: cannot be read as {suffix}") from None
