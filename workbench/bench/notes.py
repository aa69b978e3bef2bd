"""Made-up discharge notes that tell each diagnosis several times, each time in other words.

A note has 1 to 6 codes of ICD-10-CM, of distinct categories: a category at random, then a leaf code
of it. Each is told two to five times in as many sections, as far as there are wordings
(`note_wordings`), once at least whole. Negated findings and the illnesses of the family are named
beside them, none of a told category or in the words of a telling. Words of one label are not part
of another's, so that a telling is of one label only.

Training note i has codes of the same clusters as test note i: in a large collection, too, other
notes tell the near misses of a code. Note i of a split is the same whatever the number of notes.

The folder has the shape of MIMIC-IV, with all leaf codes as labels, and a file beside it that says
where each telling stands.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from workbench.bench.made_folders import (
    MIMIC_FILES,
    Row,
    admission,
    empty_place,
    note_row,
    write_csv,
    write_mimic_tables,
)
from workbench.bench.note_draft import Draft, MadeNote, sex_of
from workbench.bench.note_wordings import Wording, Wordings
from workbench.labels.icd10cm import category, load_icd10cm
from workbench.labels.space import Label, LabelSpace
from workbench.labels.words import words

TELLINGS = "tellings.csv"
"""In the folder: a row a telling, with its half-open characters in the note."""
TELLING_COLUMNS = ("note_id", "label", "start", "end", "way", "whole", "section")
MOST_CODES = 6
_N_CODES = (0.1, 0.2, 0.25, 0.2, 0.15, 0.1)
_LEAST, _MOST = 2, 5
"""Tellings of a diagnosis."""
_TRIES = 200
_NEAR = 4
"""Labels of a cluster that are tried."""
_PASSING = 14
"""Conditions to be named in passing, at most."""


def write_notes(
    folder: str | Path, *, n: int = 120, n_training: int = 120, seed: int = 0, hard: bool = False
) -> tuple[int, int]:
    """A folder read as `mimic4:FOLDER`: `n` notes in "test", `n_training` in "train".

    `hard` takes the wordings that share fewest words with the label.

    Returns how many diagnoses and how many tellings the notes have.

    Raises:
        InputError: a count below 1, or one of the files exists.
    """
    folder = empty_place(folder, [*MIMIC_FILES, TELLINGS], n, n_training)
    maker = NoteMaker(load_icd10cm(), hard=hard)
    notes, splits, tellings = [], [], []
    codes: list[Row] = []
    for split, made in _made(maker, n, n_training, seed):
        row = note_row(len(notes), made.text)
        subject, hadm = admission(len(notes))
        notes.append(row)
        splits.append((hadm, split))
        codes += [
            (subject, hadm, order, code.replace(".", ""), 10)
            for order, code in enumerate(made.labels, start=1)
        ]
        tellings += [
            (row[0], f"icd10cm:{one.label}", one.start, one.end, one.way, one.whole, one.section)
            for one in made.tellings
        ]
    tables: dict[str, list[Row]] = {
        "d_icd_diagnoses": [(one.id.replace(".", ""), 10, one.text) for one in maker.space],
        "d_icd_procedures": [],
        "diagnoses_icd": codes,
        "procedures_icd": [],
    }
    write_mimic_tables(folder, tables, notes, splits)
    write_csv(folder / TELLINGS, TELLING_COLUMNS, tellings)
    return len(codes), len(tellings)


def _made(maker: "NoteMaker", n: int, n_training: int, seed: int) -> Iterator[tuple[str, MadeNote]]:
    for place in range(max(n, n_training)):
        test = maker.note(random.Random(f"{seed}:notes:test:{place}"))
        if place < n:
            yield "test", test
        if place < n_training:
            yield "train", maker.note(random.Random(f"{seed}:notes:train:{place}"), test.labels)


class NoteMaker:
    """Makes notes of the labels of ICD-10-CM; `hard` as in `write_notes`."""

    def __init__(self, space: LabelSpace, *, hard: bool = False) -> None:
        self.space = space
        self._hard = hard
        self._wordings = Wordings(space)
        self._of_category: defaultdict[str, list[Label]] = defaultdict(list)
        for label in space:
            self._of_category[category(label.id)].append(label)
        self._categories = sorted(self._of_category)
        self._illnesses = [one for one in self._categories if "A" <= one[0] <= "N"]

    def note(self, rng: random.Random, beside: Sequence[str] = ()) -> MadeNote:
        """One note, whose codes are of the clusters of `beside` where these are given."""
        draft = Draft(rng, self._chosen(rng, beside))
        while len(draft.passing) < _PASSING:
            label = self._drawn(rng, self._illnesses)
            brief = self._wordings.brief(label, rng)
            if category(label.id) not in draft.categories and not _clashes(brief, draft.told):
                draft.passing.append(brief)
        return draft.note()

    def _chosen(self, rng: random.Random, beside: Sequence[str]) -> dict[Label, list[Wording]]:
        """Labels and what tells each, none in the words of another."""
        n = len(beside) or rng.choices(range(1, MOST_CODES + 1), _N_CODES)[0]
        chosen: dict[Label, list[Wording]] = {}
        sexes: set[str] = set()
        near = [label for code in beside for label in self._near(code, rng)]
        for _ in range(_TRIES):
            label = near.pop(0) if near else self._drawn(rng, self._categories)
            sex = {sex_of(label.id)} - {""}
            there = [one.text for tellings in chosen.values() for one in tellings]
            if len(sexes | sex) > 1 or category(label.id) in map(category, _ids(chosen)):
                continue
            wordings = self._wordings.of(label, rng)
            if self._hard:
                wordings.sort(key=lambda one: _shared(one.text, label.text))
            tellings = _told(wordings, rng, whole=not self._hard)
            if len(tellings) < _LEAST or any(_clashes(one.text, there) for one in tellings):
                continue
            chosen[label] = tellings
            sexes |= sex
            if len(chosen) == n:
                break
        return chosen

    def _near(self, code: str, rng: random.Random) -> list[Label]:
        """Some labels of a code's cluster: of those that do not fit in, another takes the place."""
        others = [one for one in self.space.members(self.space.cluster(code)) if one != code]
        return [self.space[one] for one in rng.sample(others, min(len(others), _NEAR))]

    def _drawn(self, rng: random.Random, categories: Sequence[str]) -> Label:
        return rng.choice(self._of_category[rng.choice(categories)])


def _told(wordings: Sequence[Wording], rng: random.Random, *, whole: bool) -> list[Wording]:
    """Two to five of the wordings, the earlier first, but other ways before the same again.

    The first is a `whole` one where that is asked for.
    """
    fitting = [one for one in wordings if one.way != "official" and (one.whole or not whole)]
    if not fitting:
        return []
    taken = [fitting[0]]
    most = rng.randint(_LEAST, _MOST)
    rest = [one for one in wordings if one is not taken[0]]
    while rest and len(taken) < most:
        ways = {one.way for one in taken}
        one = min(rest, key=lambda one: one.way in ways)
        rest.remove(one)
        taken.append(one)
    return taken


def _ids(labels: Iterable[Label]) -> list[str]:
    return [label.id for label in labels]


def _shared(text: str, official: str) -> float:
    """Share of the official words that a text has."""
    wanted = set(words(official))
    return len(wanted.intersection(words(text))) / max(1, len(wanted))


def _clashes(text: str, others: Iterable[str]) -> bool:
    """Whether one of the texts has all words of the other, in their order."""
    own = f" {' '.join(words(text))} "
    told = (f" {' '.join(words(other))} " for other in others)
    return any(own in other or other in own for other in told)
