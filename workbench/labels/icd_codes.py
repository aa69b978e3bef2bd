"""ICD codes as files of others write them, brought to one form.

In MIMIC-IV codes have neither dots nor small letters, and their leading zeros count: 0744 is the
procedure 07.44 and 744 is 74.4. Scripts that prepare such files add dots, change the case, pad with
spaces, or take codes for numbers, and then the zeros are lost.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal

import numpy as np
import pandas as pd

Kind = Literal["diagnosis", "procedure"]
KINDS: tuple[Kind, ...] = ("diagnosis", "procedure")

_STRAY = 0.01
"""Share of the codes with leading zeros that may have lost them by mistakes in single rows."""
_SHOWN = 3
_LOOKS_RIGHT = re.compile(r"(?=.*[0-9])[A-Z0-9.]{1,8}")
_LONGEST = 7
NAMESPACES: dict[tuple[int, Kind], str] = {
    (9, "diagnosis"): "icd9cm",
    (9, "procedure"): "icd9pcs",
    (10, "diagnosis"): "icd10cm",
    (10, "procedure"): "icd10pcs",
}


def plain(codes: pd.Series) -> pd.Series:
    """Codes in capitals, without dots and spaces."""
    return codes.str.upper().str.replace(r"[\s.]", "", regex=True)


def numbers(codes: pd.Series, kind: Kind) -> pd.Series:
    """Where a code is a number with a fraction, as 4019.0 for 4019: no code's dot is there.

    Beside such rows others, as 410.0 for 0410, are taken for another code.
    """
    before = "2,3" if kind == "procedure" else "3"  # some put all dots after the third digit
    return codes.str.fullmatch(rf"(?![0-9]{{{before}}}[.])[1-9][0-9]*[.]0*")


def dotted(code: str, version: int, kind: Kind) -> str:
    """A code as it is written with its dot: E1165 → E11.65, E8801 (ICD-9) → E880.1, 0331 → 03.31.

    ICD-10 procedures have no dot.
    """
    if kind == "procedure":
        cut = 2 if version == 9 else len(code)
    else:
        cut = 4 if version == 9 and code.startswith("E") else 3
    return f"{code[:cut]}.{code[cut:]}" if len(code) > cut else code


def label_id(code: str, version: int, kind: Kind) -> str:
    """Code, version and kind in one: icd10cm:E11.65, icd9cm:003.0, icd9pcs:00.30.

    The same letters are other codes in ICD-9 and ICD-10, and of diagnoses and procedures.
    """
    return f"{NAMESPACES[version, kind]}:{dotted(code, version, kind)}"


def shortest(version: int, kind: Kind) -> int:
    """Characters that a code has at least, without its dot; a shorter one has lost its zeros."""
    return 7 if version == 10 and kind == "procedure" else 3


def with_lost_zeros(codes: Iterable[str], described: pd.Index) -> set[str]:
    """Codes of digits alone that another described code becomes when its zeros are lost."""
    digits = {code for code in codes if code.isdecimal()}
    longer = {code for code in described if code.startswith("0")}
    return {code for code in digits if {"0" + code, "00" + code} & longer}


class Found:
    """Codes of one file: labels that are described, further ones that are not, and what is no code.

    Args:
        described: codes without dots → positions of their labels.
        first: the position of the first label that is not described; the others follow.
        version: of ICD.
        kind: of all codes of the file.

    Attributes:
        new: codes without a description → positions of the labels that they become.
        undescribed: the same codes, with the number of rows that have them.
        ambiguous: codes, with their rows, that may be another one that lost its zeros, or certainly
            are. They are in doubt where more than a stray row of the file has certainly lost its
            zeros, or none has kept them though some codes have any.
        n_broken: rows with something else than a code.
    """

    def __init__(self, described: pd.Series, first: int, version: int, kind: Kind) -> None:
        self._positions, self._first = described, first
        self._shape = re.compile(rf"(?=.*[0-9])[A-Z0-9]{{{shortest(version, kind)},{_LONGEST}}}")
        codes = described.index
        self._doubtful = with_lost_zeros(codes, codes)
        self._n_kept = self._n_lost = 0
        self.new: dict[str, int] = {}
        self.undescribed: Counter[str] = Counter()
        self.ambiguous: Counter[str] = Counter()
        self.n_broken = 0

    def positions(self, codes: pd.Series) -> np.ndarray:
        """Positions of the labels that codes are; -1 where they are none."""
        label = self._positions.reindex(codes).fillna(-1).to_numpy(dtype=np.int32)
        unknown = Counter(codes[label < 0].tolist())
        self._n_kept += int(codes.str.startswith("0").sum())
        lost = with_lost_zeros(unknown, self._positions.index)
        self._n_lost += sum(unknown[code] for code in lost)
        for code, n in unknown.items():
            if code in lost:
                self.ambiguous[code] += n
            elif self._shape.fullmatch(code):
                self.new.setdefault(code, self._first + len(self.new))
                self.undescribed[code] += n
            else:
                self.n_broken += n
        if self.new and unknown:
            known = [self.new.get(code, -1) for code in codes[label < 0].tolist()]
            label[label < 0] = np.array(known, dtype=np.int32)
        return label

    def in_doubt(self, label: np.ndarray) -> np.ndarray:
        """Which of all labels found in the file may be others; they are counted."""
        if self._n_lost < _STRAY * (self._n_lost + self._n_kept):
            return np.zeros(len(label), dtype=bool)
        positions = self._positions.to_dict()
        code_at = {positions[code]: code for code in self._doubtful}
        doubtful = np.isin(label, list(code_at))
        self.ambiguous.update(code_at[int(position)] for position in label[doubtful])
        return doubtful


def shown(codes: Counter[str]) -> str:
    """A few of the most frequent codes; what does not look like a code is not printed."""
    written = [code for code, _ in codes.most_common() if _LOOKS_RIGHT.fullmatch(code)]
    more = ", …" if len(written) > _SHOWN else ""
    return f" ({', '.join(written[:_SHOWN])}{more})" if written else ""
