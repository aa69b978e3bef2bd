"""A teacher and its students by name, and the share of them that one of several processes does."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workbench.errors import InputError
from workbench.processes import parted

TEACHER = "teacher"


@dataclass(frozen=True)
class NamedModels:
    """The teacher, then students.

    Attributes:
        teacher: folder, name or hub id.
        students: the same by the names that tables have for them.
    """

    teacher: str
    students: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, teacher: str, students: Sequence[str]) -> "NamedModels":
        """Of flags, `NAME=FOLDER` each; the folder's own name where none is given.

        Raises:
            InputError: a name twice, or one that can be no folder's.
        """
        found: dict[str, str] = {}
        for one in students:
            name, _, source = one.rpartition("=")
            name = name or Path(source).name
            if name == TEACHER or name != Path(name).name or name.startswith("."):
                raise InputError(f"a student cannot be called {name!r}: it gets a folder of it")
            if name in found:
                raise InputError(f"two students are called {name!r}; give NAME=FOLDER")
            found[name] = source
        return cls(teacher, found)

    @property
    def all(self) -> dict[str, str]:
        """The teacher first."""
        return {TEACHER: self.teacher, **self.students}

    def weights(self) -> dict[str, str]:
        """Hash of each model's weights.

        Raises:
            InputError: a model that is not there.
        """
        from workbench.models import loading  # heavy, and names are checked before

        return {
            name: loading.weights_sha256(loading.model_folder(source))
            for name, source in self.all.items()
        }


def arm_in(name: str) -> str:
    """The arm that a student's name tells: `phases-p1-0` is seed 0 of `phases-p1`.

    A head set behind "@", and settings from the layers on, do not count.
    """
    return re.sub(r"(@.*|-L\d+-.*)$|[-_](seed)?\d+$", "", name)


def part_of(names: Sequence[str], part: str | None) -> list[str]:
    """Names that one of several parts does, `1/4`; all where none is given.

    Raises:
        InputError: what `parted` refuses.
    """
    if part is None:
        return list(names)
    return [names[number] for number in parted(part).mine(len(names))]
