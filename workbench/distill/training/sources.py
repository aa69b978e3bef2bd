"""Where a student's weights and its teacher come from, as its card and its record say it."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.distill.config import CopiedLayers, DistillationConfig
from workbench.errors import InputError
from workbench.files import read_json, read_text
from workbench.models import catalogue, loading
from workbench.models.sources import is_adapter

CARD = "README.md"


@dataclass(frozen=True)
class Source:
    """A model: its name without a path, the hash of its weights, and its licence where it is known.

    `base` is what an adapter was merged into; `hub` is where a fetched model comes from.
    """

    name: str
    weights_sha256: str
    licence: str | None = None
    revision: str | None = None
    hub: str | None = None
    base: "Source | None" = None

    @classmethod
    def of(cls, given: str | Path, folder: Path, digest: str | None = None) -> "Source":
        """The model of a folder, by what the user called it; with the hash of its weights if known.

        Raises:
            InputError: it has no weights, or an adapter's base is not there.
        """
        name, revision = loading.recorded_name(given, folder)
        base = None
        if folder.is_dir() and is_adapter(folder):
            (named, _), below = loading.base_of(folder)
            base = cls.of(named, below)
        fetched = _fetched(folder)
        return cls(
            name,
            digest or loading.weights_sha256(folder),
            _licence(folder) or fetched.get("licence"),
            revision,
            fetched.get("model"),
            base,
        )


@dataclass(frozen=True)
class Sources:
    """What a student and its teacher are read from.

    Attributes:
        teacher: the teacher.
        student: the model whose weights the student begins with, where it is not the teacher.
        layers: those that are copied.
        base: how the student's adapter names its base, and the base's revision, where the adapter
            is what is saved.
    """

    teacher: Source
    student: Source | None = None
    layers: tuple[int, ...] | None = None
    base: tuple[str, str | None] | None = None

    @classmethod
    def of(
        cls, config: DistillationConfig, teacher: str | Path, folder: Path, digest: str
    ) -> "Sources":
        """Of a distillation; `teacher` is as the user called it, `digest` of its weights.

        Raises:
            InputError: the student's model is not there, has too few layers, or is an adapter,
                which another one cannot have as its base.
        """
        taught = Source.of(teacher, folder, digest)
        wanted, student, layers, base = config.student, None, None, None
        named = wanted.from_ if isinstance(wanted, CopiedLayers) else wanted
        if isinstance(named, str):
            folder = loading.model_folder(named)
            student = Source.of(named, folder)
            if config.lora and config.lora.saved == "adapter":
                base = _base_name(named, folder, student)
        if isinstance(wanted, CopiedLayers):
            layers = wanted.of(loading.hf_config(folder).get_text_config().num_hidden_layers)
        return cls(taught, student, layers, base)

    def record(self) -> dict[str, Any]:
        """What a student's record says of it."""
        found = {side: getattr(self, side) for side in ("teacher", "student")}
        said: dict[str, Any] = {
            "sources": {side: asdict(source) for side, source in found.items() if source},
            "layers": None if self.layers is None else list(self.layers),
        }
        if self.base and self.student:  # as the records of other adapters say it
            said["base_sha256"] = self.student.weights_sha256
        return said


def _base_name(named: str, folder: Path, source: Source) -> tuple[str, str | None]:
    if source.base:
        raise InputError(
            f"{named} is an adapter itself, which another one cannot have as its base; save the "
            "student merged (--lora-saved merged)"
        )
    path = Path(named).expanduser()
    return (str(path.absolute()), None) if path.exists() else loading.recorded_name(named, folder)


def _fetched(folder: Path) -> Mapping[str, Any]:
    """What a fetched model's folder says of itself."""
    path = folder / catalogue.RECORD
    record = read_json(path) if path.is_file() else None
    return record if isinstance(record, dict) else {}


def _licence(folder: Path) -> str | None:
    """Of the front matter of a model's card."""
    path = folder / CARD
    if not path.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", read_text(path), re.DOTALL)
    found = re.search(r"^license:\s*[\"']?([\w.+-]+)", front[1], re.MULTILINE) if front else None
    return found[1] if found else None
