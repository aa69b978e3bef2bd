"""Codes of MIMIC-IV: which are labels, and which of them an admission has."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.labels.corpus import need_file
from workbench.labels.icd_codes import (
    KINDS,
    Found,
    Kind,
    dotted,
    label_id,
    numbers,
    plain,
    shortest,
    shown,
)
from workbench.labels.lines import LONGEST_LABEL, bad_line
from workbench.labels.mimic4_files import NO_NUMBER, line_of, tables, versions, whole_numbers

MANY = 0.05
"""Share of the rows of codes that are left out, or undescribed, from which on it is a warning."""
NO_ADMISSION = "without an admission"

_DESCRIPTIONS: dict[Kind, str] = {
    "diagnosis": "d_icd_diagnoses.csv",
    "procedure": "d_icd_procedures.csv",
}
_CODES: dict[Kind, str] = {"diagnosis": "diagnoses_icd.csv", "procedure": "procedures_icd.csv"}
_NO_VERSION = "without an ICD version"
_NO_CODE = "with something else than a code"
_NOT_LISTED = "with a code that is not in the list of codes"
_AS_TEXT = "leading zeros are lost where codes are read as numbers, read them as text"


class Codes:
    """Labels of one ICD version, and the codes of every admission as positions of labels.

    Described codes come first, diagnoses before procedures; then those that have no description,
    which go by the code itself.

    Args:
        hosp: the folder of the tables.
        version: 9 or 10.
        kinds: which codes are labels.
        only: undotted codes; where given, no others are labels.

    Attributes:
        ids: label ids, with version and kind (`icd10cm:E11.65`).
        texts: descriptions.
        kinds: "diagnosis" or "procedure", for every label.
        undescribed: dotted codes without a description, with the number of rows that have them.
        ambiguous: the same of codes left out because they lost a leading zero, or may have.

    Raises:
        InputError: a file or a column is missing, or, with file and line, a broken gzip, a code
            described twice, too short or with a fraction, an id that is no number, an ICD version
            that is neither 9 nor 10.
    """

    def __init__(
        self, hosp: Path, version: int, kinds: Sequence[Kind], only: frozenset[str] | None = None
    ) -> None:
        self.version = version
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.kinds: list[Kind] = []
        self.undescribed: Counter[str] = Counter()
        self.ambiguous: Counter[str] = Counter()
        self._only = only
        self._rows: Counter[str] = Counter()
        described: dict[Kind, pd.Series] = {
            kind: self._add_described(hosp, kind) for kind in KINDS if kind in kinds
        }
        parts = [
            self._read_file(hosp, kind, place, positions)
            for place, (kind, positions) in enumerate(described.items())
        ]
        hadm, order, label = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        by = np.lexsort((order, hadm))
        self._admissions, starts = np.unique(hadm[by], return_index=True)
        self._starts, self._codes = np.append(starts, len(by)), label[by]

    def of(self, hadm_id: int) -> tuple[int, ...]:
        """Labels of an admission by position, diagnoses first, each once; empty if it has none."""
        place = int(np.searchsorted(self._admissions, hadm_id))
        if place == len(self._admissions) or self._admissions[place] != hadm_id:
            return ()
        codes = self._codes[self._starts[place] : self._starts[place + 1]]
        return tuple(dict.fromkeys(codes.tolist()))

    @property
    def said(self) -> list[str]:
        """What of the rows is left out, or has no description, in a line each."""
        left = {
            f"that lost a zero, or may have{shown(self.ambiguous)}": self.ambiguous.total(),
            **{why: n for why, n in self._rows.items() if why not in ("read", _NOT_LISTED)},
        }
        total = self._rows["read"] + self._rows[_NO_VERSION]
        lines = []
        if n := sum(left.values()):
            line = f"{n} of {total} rows of codes are left out: {listed(left)}"
            lines.append(f"{'warning: ' if n > MANY * total else ''}{line}")
        if n := self.undescribed.total():
            what = f"are of {len(self.undescribed)} codes without a description"
            line = f"{n} of {total} rows of codes {what}{shown(self.undescribed)}"
            warning = "warning: " if n > MANY * total else ""
            lines.append(f"{warning}{line}; their text is the code")
        if n := self._rows[_NOT_LISTED]:
            lines.append(f"{n} of {total} rows of codes are left out: {n} {_NOT_LISTED}")
        return lines

    def _add_described(self, hosp: Path, kind: Kind) -> pd.Series:
        """Undotted codes → positions of the labels that they are."""
        path = need_file(hosp, _DESCRIPTIONS[kind])
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
        if self._only is not None:
            table = table.loc[table.icd_code.isin(list(self._only))]
        first = len(self.ids)
        self._add(table.icd_code.tolist(), table.long_title.tolist(), kind)
        return pd.Series(range(first, len(self.ids)), index=table.icd_code)

    def _add(self, codes: list[str], texts: list[str], kind: Kind) -> None:
        self.ids += [label_id(code, self.version, kind) for code in codes]
        self.texts += texts
        self.kinds.extend(kind for _ in codes)

    def _refuse_numbers(self, path: Path, codes: pd.Series, kind: Kind) -> None:
        wrong = numbers(codes, kind)
        if wrong.any():
            what = f"a code of ICD-{self.version} is written as a number with a fraction"
            raise bad_line(path, line_of(wrong), f"{what}; {_AS_TEXT}")

    def _read_file(
        self, hosp: Path, kind: Kind, place: int, positions: pd.Series
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Admission, order in it and label of every row of one kind of codes."""
        path = need_file(hosp, _CODES[kind])
        found = Found(positions, len(self.ids), self.version, kind)
        columns = ([np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)])
        labels = [np.empty(0, dtype=np.int32)]
        for table in tables(path, ["hadm_id", "seq_num", "icd_code", "icd_version"]):
            version = versions(path, table.icd_version)
            hadm = whole_numbers(path, table.hadm_id)
            order = whole_numbers(path, table.seq_num)
            order[order == NO_NUMBER] = 2**31  # behind those that say their place
            self._rows[_NO_VERSION] += int((version == NO_NUMBER).sum())
            ours = version == self.version
            self._rows["read"] += int(ours.sum())
            self._rows[NO_ADMISSION] += int((hadm[ours] == NO_NUMBER).sum())
            self._refuse_numbers(path, table.icd_code[ours], kind)
            at = np.flatnonzero(ours & (hadm != NO_NUMBER))
            codes = plain(table.icd_code.iloc[at])
            if self._only is not None:
                is_listed = codes.isin(list(self._only)).to_numpy()
                self._rows[_NOT_LISTED] += int((~is_listed).sum())
                at, codes = at[is_listed], codes.loc[is_listed]
            label = found.positions(codes)
            at = at[label >= 0]
            columns[0].append(hadm[at])
            columns[1].append(order[at] + place * 2**32)  # diagnoses before procedures
            labels.append(label[label >= 0])
        label = np.concatenate(labels)
        kept = ~found.in_doubt(label)
        self._rows[_NO_CODE] += found.n_broken
        new = list(found.new)
        self._add(new, [dotted(code, self.version, kind) for code in new], kind)
        for mine, theirs in (
            (self.undescribed, found.undescribed),
            (self.ambiguous, found.ambiguous),
        ):
            for code, n in theirs.items():
                mine[dotted(code, self.version, kind)] += n
        hadm, order = (np.concatenate(parts)[kept] for parts in columns)
        return hadm, order, label[kept]


def listed(counts: dict[str, int] | Counter[str]) -> str:
    """Counts by reason, those of nothing left out."""
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n)
