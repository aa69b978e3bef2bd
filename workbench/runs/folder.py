"""The folder of a run: a manifest, tables, and the parts of a sweep that is not finished yet.

Nothing in it is overwritten. The manifest says what the run is (weights, prompts, seed) and which
steps were done with which settings, so that the same command goes on where it stopped, and any
other one is refused with a line that names what differs. Every file is written beside its place
and then moved there: a reader, or a run that was killed, never finds half a file.
"""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.errors import InputError
from workbench.files import replacing, write_text

SCHEMA = "workbench.run/1"
MANIFEST = "manifest.json"
PACKAGES = {
    "workbench": "mechanistic-workbench",
    "transformer_lens": "transformer-lens",
    "transformers": "transformers",
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "pandas": "pandas",
}
MADE_BY = {
    "baseline": "score",
    "scores": "score",
    "patching": "patch",
    "patching_events": "patch",
    "pools": "pool",
    "trajectory": "score",
}
"""Table → command that makes it."""


class RunFolder:
    """One run on disk; `manifest` is its manifest as it stands there."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def create(cls, path: Path, identity: Mapping[str, Any]) -> "RunFolder":
        """Start a run in a new or empty folder.

        Raises:
            InputError: the folder is in use, or cannot be made.
        """
        check_unused(path)
        manifest = {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            **identity,
            "steps": {},
        }
        folder = cls(path, manifest)
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder._save()
        except OSError as error:
            raise InputError(f"{path}: cannot be written, {error.strerror or error}") from error
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """A run that was started before.

        Raises:
            InputError: no such run, or its manifest cannot be read.
        """
        if not is_run(path):
            check_unused(path)
            raise InputError(f"{path}: no run there; run `workbench score` first")
        file = path / MANIFEST
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: is not a readable manifest ({error})") from error
        if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
            raise InputError(f"{file}: is not the manifest of a run ({SCHEMA!r})")
        return cls(path, manifest)

    def check(self, identity: Mapping[str, Any]) -> None:
        """Refuse another run than this folder's.

        Raises:
            InputError: naming every entry that differs, with both values.
        """
        differences = [
            f"{name} is {_short(old)} there and {_short(new)} now"
            for name, old, new in _differences(self.manifest, identity)
        ]
        if differences:
            raise InputError(
                f"{self.path}: holds another run: {'; '.join(differences)}; give another --out"
            )

    def begin(self, step: str, settings: Mapping[str, Any]) -> bool:
        """Whether the step is still to do; then it is marked as running.

        Raises:
            InputError: it was begun with other settings.
        """
        record = self.manifest["steps"].get(step)
        if record is not None:
            differences = [
                f"{name} {_short(old)} there and {_short(new)} now"
                for name, old, new in _differences(record["settings"], settings)
            ]
            kept = record["status"] == "done" or self.part_numbers(step)
            if differences and kept:
                raise InputError(
                    f"{self.path}: step {step!r} was run with {'; '.join(differences)}; "
                    "give another --out"
                )
            if record["status"] == "done":
                return False
        self.manifest["steps"][step] = {"status": "running", "settings": dict(settings)}
        self._save()
        return True

    def finish(self, step: str, seconds: float, counts: Mapping[str, Any]) -> None:
        """Mark a step as done."""
        record = self.manifest["steps"][step]
        record |= {"status": "done", "seconds": round(seconds, 2), "counts": dict(counts)}
        self._save()

    def forget_unless(self, step: str, settings: Mapping[str, Any] | None) -> None:
        """Let a step be done again unless it was done with these settings; None: in any case."""
        record = self.manifest["steps"].get(step)
        if record is not None and (settings is None or record["settings"] != dict(settings)):
            del self.manifest["steps"][step]
            self._save()

    def forget(self, step: str) -> None:
        """Let a step that came to nothing be run with any settings; parts of a sweep keep it."""
        if not self.part_numbers(step):
            del self.manifest["steps"][step]
            self._save()

    def is_done(self, step: str) -> bool:
        """Whether the step was finished."""
        return self.manifest["steps"].get(step, {}).get("status") == "done"

    def require(self, step: str, command: str) -> None:
        """Refuse to go on without an earlier step.

        Raises:
            InputError: naming the command to run first.
        """
        if not self.is_done(step):
            raise InputError(
                f"{self.path}: step {step!r} is not finished there; run `workbench {command}` first"
            )

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a table as parquet; the name may lie in a folder below."""
        with replacing(self.path / f"{name}.parquet") as beside:
            table.to_parquet(beside, index=False)

    def has_table(self, name: str) -> bool:
        """Whether a step has written this table."""
        return (self.path / f"{name}.parquet").is_file()

    def read_table(self, name: str) -> pd.DataFrame:
        """Read a table of an earlier step.

        Raises:
            InputError: it is not there, or damaged.
        """
        path = self.path / f"{name}.parquet"
        if not self.has_table(name):
            command = MADE_BY.get(name, "run")
            raise InputError(
                f"{self.path}: {path.name} is not there; run `workbench {command}` first"
            )
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: is not a readable table ({error})") from error

    def write_part(self, step: str, number: int, table: pd.DataFrame) -> None:
        """Keep the rows of one event of a sweep."""
        (self.path / "parts" / step).mkdir(parents=True, exist_ok=True)
        self.write_table(f"parts/{step}/{number:06}", table)

    def part_numbers(self, step: str) -> list[int]:
        """Events whose rows are kept, in order."""
        return sorted(
            int(path.stem) for path in (self.path / "parts" / step).glob("[0-9]*.parquet")
        )

    def read_parts(self, step: str) -> list[pd.DataFrame]:
        """Rows of all events kept so far, in order."""
        return [self.read_table(f"parts/{step}/{number:06}") for number in self.part_numbers(step)]

    def remove_parts(self, step: str) -> None:
        """Forget the parts once their merged table is written."""
        shutil.rmtree(self.path / "parts" / step, ignore_errors=True)
        parts = self.path / "parts"
        if parts.is_dir() and not any(parts.iterdir()):
            parts.rmdir()

    def _save(self) -> None:
        text = json.dumps(self.manifest, indent=2, ensure_ascii=False) + "\n"
        write_text(self.path / MANIFEST, text)


def is_run(path: Path) -> bool:
    """Whether the folder holds a run."""
    return (path / MANIFEST).is_file()


def check_unused(path: Path) -> None:
    """Refuse a folder in which something else lies.

    Raises:
        InputError: it is a file, or holds files without being a run.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; give a new or empty folder for --out")
    # Hidden files are leftovers of the system or of an interrupted write.
    if path.is_dir() and any(not item.name.startswith(".") for item in path.iterdir()):
        raise InputError(
            f"{path}: holds files but no {MANIFEST}, so it is no run folder; "
            "give a new or empty folder for --out"
        )


def versions(names: Collection[str] = tuple(PACKAGES)) -> dict[str, str]:
    """Installed versions of the packages whose numerics or defaults decide a result."""
    return {name: _version(PACKAGES[name]) for name in names}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Entries of `new` that differ from `old`, as (dotted name, old, new)."""
    for name, value in new.items():
        before = old.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            yield from _differences(before, value, f"{prefix}{name}.")
        elif before != value:
            yield f"{prefix}{name}", before, value


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return f"{value[:12]}…"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


REPORT_FILE = "report.html"


REPORT_WITH_TEXT_FILE = "report_with_text.html"


def _outdate_reports(folder: RunFolder) -> None:
    """Let the report pages be written again, since what they show changes."""
    for page in (REPORT_FILE, REPORT_WITH_TEXT_FILE):
        folder.forget_unless(Path(page).stem, None)
