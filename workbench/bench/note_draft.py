"""The text of one made-up note, and where it tells each of its labels.

What tells is written between two signs, in the order of the text, and found by them in the end.
"""

import random
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from workbench.bench import note_frames as frames
from workbench.bench.note_wordings import Wording
from workbench.labels.icd10cm import category
from workbench.labels.space import Label

_OPEN, _CLOSE = "\ue000", "\ue001"
"""Around a telling, until its characters are known."""
_SECTIONS = {
    "official": ("course", "dx"),
    "turned": ("hpi", "course", "dx", "plan"),
    "clinical": ("hpi", "pmh", "head", "course", "dx", "plan"),
    "shorthand": ("pmh", "head", "dx", "course", "plan"),
    "inclusion": ("hpi", "pmh", "head", "course", "dx"),
    "partial": ("cc", "hpi", "pmh", "head", "course", "plan", "letter"),
    "lay": ("cc", "hpi", "letter", "plan"),
}
"""Where a wording may stand."""
_WOMEN = re.compile(r"^(?:O|N7|N8|N9[0-8]|C5[1-8]|D2[5-8]|Z3[349]|Z3A)")
_MEN = re.compile(r"^(?:N4|N5[0-3]|C6[0-3]|D29)")


@dataclass(frozen=True)
class Telling:
    """Where a note tells a label: half-open characters, in a section."""

    label: str
    start: int
    end: int
    way: str
    whole: bool
    section: str


@dataclass(frozen=True)
class MadeNote:
    """A note, its codes in order, and its tellings in the order of the text."""

    text: str
    labels: tuple[str, ...]
    tellings: tuple[Telling, ...]


class Draft:
    """A note as it is written: each telling between two signs, in the order of the text."""

    def __init__(self, rng: random.Random, chosen: Mapping[Label, list[Wording]]) -> None:
        self.rng = rng
        self.labels = [label.id for label in chosen]
        self.categories = {category(code) for code in self.labels}
        self.told = [one.text for tellings in chosen.values() for one in tellings]
        self.passing: list[str] = []
        self._placed: defaultdict[str, list[tuple[str, Wording]]] = defaultdict(list)
        self._order: list[tuple[str, Wording, str]] = []
        self._used: set[str] = set()
        sexes = {sex_of(code) for code in self.labels} - {""}
        female = (sexes or {rng.choice("fm")}) == {"f"}
        self._she, self._her, self._woman = ("she", "her", "woman") if female else _HE
        for label, tellings in chosen.items():
            self._place(label.id, tellings)

    def _place(self, code: str, tellings: Sequence[Wording]) -> None:
        """Give each telling a section of its own, where its way and its kind may stand."""
        free = set(frames.TOLD[_kind(code)])
        for one in sorted(tellings, key=lambda one: len(_SECTIONS[one.way])):
            fitting = [s for s in _SECTIONS[one.way] if s in free] or sorted(free)
            section = self.rng.choice(fitting)
            free.discard(section)
            self._placed[section].append((code, one))

    def note(self) -> MadeNote:
        """The text without its signs, and where they stood."""
        marked = self._text()
        parts = re.split(f"([{_OPEN}{_CLOSE}])", marked)
        text, borders = "", list[int]()
        for part in parts:
            if part in (_OPEN, _CLOSE):
                borders.append(len(text))
            else:
                text += part
        spans = zip(borders[::2], borders[1::2], self._order, strict=True)
        tellings = tuple(
            Telling(code, start, end, one.way, one.whole, section)
            for start, end, (code, one, section) in spans
        )
        return MadeNote(text, tuple(self.labels), tellings)

    def _text(self) -> str:
        rng = self.rng
        width = rng.choice((66, 72, 78))
        indent = rng.choice(("", "", "  ", "\t"))
        course = self._course(width)
        # The order of writing is the order of the text: what tells comes in this order.
        return "\n".join(
            [
                " ",
                "Name:  ___                    Unit No:   ___",
                " ",
                "Admission Date:  ___              Discharge Date:   ___",
                " ",
                f"Date of Birth:  ___             Sex:   {'F' if self._she == 'she' else 'M'}",
                " ",
                f"Service: {rng.choice(('MEDICINE', 'SURGERY', 'NEUROLOGY', 'ORTHOPAEDICS'))}",
                " ",
                "Allergies: ",
                rng.choice(("No Known Allergies / Adverse Drug Reactions", "Penicillins", "latex")),
                " ",
                *self._after("Chief Complaint:", course["cc"]),
                "History of Present Illness:",
                course["hpi"],
                " ",
                *self._after("Past Medical History:", course["pmh"]),
                "Social History:",
                rng.choice(frames.SOCIAL),
                " ",
                "Family History:",
                course["family"],
                " ",
                "Physical Exam:",
                *(indent + self._filled(one) for one in self._some(frames.EXAMS, 6, 11)),
                " ",
                "Pertinent Results:",
                *(self._filled(one) for one in self._some(frames.RESULTS, 4, 9)),
                " ",
                "Brief Hospital Course:",
                course["course"],
                " ",
                "Discharge Medications:",
                *(f"{at}. {one}" for at, one in enumerate(self._some(frames.MEDICINES, 4, 10), 1)),
                " ",
                "Discharge Disposition:",
                rng.choice(("Home", "Home With Service", "Extended Care")),
                " ",
                *self._after("Discharge Diagnosis:", course["dx"]),
                "Discharge Condition:",
                "Mental Status: Clear and coherent.",
                " ",
                *self._after("Transitional Issues:", course["plan"]),
                "Discharge Instructions:",
                course["letter"],
                " ",
                "Followup Instructions:",
                "___",
                "",
            ]
        )

    def _course(self, width: int) -> dict[str, str]:
        """The sections that tell something, written in the order of the text."""
        return {
            "cc": self._inline("cc"),
            "hpi": self._prose("hpi", width),
            "pmh": self._list("pmh"),
            "family": self._family(width),
            "course": self._problems(width),
            "dx": self._list("dx"),
            "plan": self._list("plan"),
            "letter": self._letter(width),
        }

    def _after(self, heading: str, content: str) -> Iterable[str]:
        return (heading, content, " ") if content else ()

    def _tell(self, section: str, code: str, wording: Wording) -> str:
        """A sentence or line of the section that tells a label."""
        self._order.append((code, wording, section))
        forms = frames.TOLD[_kind(code)].get(section) or ("{d}",)
        form = self.rng.choice([one for one in forms if one not in self._used] or forms)
        self._used.add(form)
        return self._filled(form, d=f"{_OPEN}{wording.text}{_CLOSE}")

    def _filled(self, form: str, **given: str) -> str:
        text = form.format(
            She=self._she.capitalize(),
            she=self._she,
            her=self._her,
            woman=self._woman,
            n=self.rng.randint(2, 9),
            **given,
        )
        if form.endswith("."):  # a sentence
            at = 1 if text.startswith(_OPEN) else 0
            text = text[:at] + text[at].upper() + text[at + 1 :]
        return text

    def _told_in(self, section: str) -> list[tuple[str, Wording]]:
        found = self._placed[section]
        self.rng.shuffle(found)
        return found

    def _inline(self, section: str) -> str:
        return ", ".join(self._tell(section, *one) for one in self._told_in(section))

    def _list(self, section: str) -> str:
        rng = self.rng
        mark = rng.choice(("- ", "  - ", "* ", "{}. ", " {}) ", "", "   "))
        lines = [self._tell(section, *one) for one in self._told_in(section)]
        return "\n".join(f"{mark.format(at)}{one}" for at, one in enumerate(lines, 1))

    def _prose(self, section: str, width: int) -> str:
        told = [self._tell(section, *one) for one in self._told_in(section)]
        sentences = [self._filled(self.rng.choice(frames.HPI_OPENINGS))]
        fillers = [self._filled(one) for one in self._some(frames.HPI_FILLERS, 3, 8)]
        return _wrapped(" ".join(sentences + self._mixed(told, fillers + self._negated(4))), width)

    def _problems(self, width: int) -> str:
        """The course by problem: a heading each, and sentences below it."""
        heads: dict[str, list[Wording]] = defaultdict(list)
        bodies: dict[str, list[Wording]] = defaultdict(list)
        for code, one in self._placed["head"]:
            heads[code].append(one)
        for code, one in self._placed["course"]:
            bodies[code].append(one)
        order = [code for code in self.labels if code in heads or code in bodies]
        mark = self.rng.choice(("# ", "#", "## ", "PROBLEM: "))
        parts = []
        for at, code in enumerate(order, 1):
            told = [self._tell("head", code, one) for one in heads[code]]
            head = f"{mark}{told[0] if told else f'Issue {at}'}"
            sentences = [self._tell("course", code, one) for one in bodies[code]]
            fillers = [self._filled(one) for one in self._some(frames.COURSE_FILLERS, 2, 5)]
            body = " ".join(self._mixed(sentences, fillers + self._negated(2)))
            parts.append(f"{head}\n{_wrapped(body, width)}")
        closing = "\n".join(self._some(frames.CLOSING, 2, 6))
        return "\n\n".join([*parts, closing])

    def _letter(self, width: int) -> str:
        told = [self._tell("letter", *one) for one in self._told_in("letter")]
        parts = ["Dear Ms. ___," if self._she == "she" else "Dear Mr. ___,", *told]
        advice = [self._filled(one) for one in self._some(frames.ADVICE, 2, 6)]
        return _wrapped(
            " ".join([*parts, *advice, "It was a pleasure to take care of you."]), width
        )

    def _family(self, width: int) -> str:
        n = self.rng.randint(0, 2)
        forms = self.rng.sample(frames.FAMILY, n)
        lines = [self._filled(one, x=self.passing.pop()) for one in forms]
        return _wrapped(" ".join(lines) or "Non-contributory.", width)

    def _negated(self, most: int) -> list[str]:
        n = min(self.rng.randint(0, most), len(self.passing))
        forms = self.rng.sample(frames.NEGATED, n)
        return [self._filled(one, x=self.passing.pop()) for one in forms]

    def _mixed(self, told: Sequence[str], others: Sequence[str]) -> list[str]:
        """What tells in its order, with other sentences between."""
        made = list(told)
        for other in others:
            made.insert(self.rng.randint(0, len(made)), other)
        return made

    def _some(self, forms: Sequence[str], least: int, most: int) -> list[str]:
        chosen = set(self.rng.sample(range(len(forms)), self.rng.randint(least, most)))
        return [form for at, form in enumerate(forms) if at in chosen]


_HE = ("he", "him", "man")


def sex_of(code: str) -> str:
    """ "f" or "m" where a code is of one sex only, else empty."""
    return "f" if _WOMEN.match(code) else "m" if _MEN.match(code) else ""


def _kind(code: str) -> str:
    return "cause" if code[0] in "VWXY" else "status" if code[0] in "ZU" else "condition"


def _wrapped(text: str, width: int) -> str:
    return "\n".join(
        textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
    )
