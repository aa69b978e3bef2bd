"""The folder of a run: a manifest, tables, and the parts of a sweep that is not finished yet.

Nothing in it is overwritten. The manifest says what the run is (weights, prompts, seed) and which
steps were done with which settings, so that the same command goes on where it stopped, and any
other one is refused with a line that names what differs. Every file is written beside its place
and then moved there: a reader, or a run that was killed, never finds half a file.
"""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.errors import InputError
from workbench.files import replacing, write_text
from workbench.runs.steps import MAKER, Step

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
REPORT_FILE = "report.html"
REPORT_WITH_TEXT_FILE = "report_with_text.html"


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
        self._check_same("holds another run:", self.manifest, identity, " is")

    def check_step(self, step: str, settings: Mapping[str, Any]) -> None:
        """Refuse to do a step with other settings than those it was begun with.

        Raises:
            InputError: naming every setting that differs, with both values.
        """
        record = self.manifest["steps"].get(step)
        if record is None or not (record["status"] == "done" or self.parts(step)):
            return
        self._check_same(f"step {step!r} was run with", record["settings"], settings)

    def _check_same(
        self, what: str, old: Mapping[str, Any], new: Mapping[str, Any], verb: str = ""
    ) -> None:
        differences = [
            f"{name}{verb} {_short(before)} there and {_short(now)} now"
            for name, before, now in _differences(old, new)
        ]
        if differences:
            raise InputError(f"{self.path}: {what} {'; '.join(differences)}; give another --out")

    def begin(self, step: str, settings: Mapping[str, Any]) -> bool:
        """Whether the step is still to do; then it is marked as running.

        Raises:
            InputError: it was begun with other settings.
        """
        self.check_step(step, settings)
        if self.is_done(step):
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
        if not self.parts(step):
            del self.manifest["steps"][step]
            self._save()

    def is_done(self, step: str) -> bool:
        """Whether the step was finished."""
        return self.manifest["steps"].get(step, {}).get("status") == "done"

    def outdate_reports(self) -> None:
        """Let the report pages be written again, since what they show changes."""
        for page in (REPORT_FILE, REPORT_WITH_TEXT_FILE):
            self.forget_unless(Path(page).stem, None)

    def require(self, step: Step) -> None:
        """Refuse to go on without an earlier step.

        Raises:
            InputError: naming the command to run first.
        """
        if not self.is_done(step.name):
            raise InputError(
                f"{self.path}: step {step.name!r} is not finished there; "
                f"run `workbench {step.command}` first"
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
            command = MAKER[name].command if name in MAKER else "run"
            raise InputError(
                f"{self.path}: {path.name} is not there; run `workbench {command}` first"
            )
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: is not a readable table ({error})") from error

    def parts(self, step: str) -> "Parts":
        """What is kept of a step that is not finished."""
        return Parts(self, step)

    def _save(self) -> None:
        text = json.dumps(self.manifest, indent=2, ensure_ascii=False) + "\n"
        write_text(self.path / MANIFEST, text)


class Parts(MutableMapping[int | str, pd.DataFrame]):
    """Tables of a step that is not finished: rows of events by number, others by name.

    Each is on disk as soon as it is set.
    """

    def __init__(self, folder: RunFolder, step: str) -> None:
        self._folder, self._below = folder, Path("parts") / step

    def _name(self, key: int | str) -> str:
        return str(self._below / (f"{key:06}" if isinstance(key, int) else key))

    def __getitem__(self, key: int | str) -> pd.DataFrame:
        if key not in self:
            raise KeyError(key)
        return self._folder.read_table(self._name(key))

    def __setitem__(self, key: int | str, table: pd.DataFrame) -> None:
        (self._folder.path / self._below).mkdir(parents=True, exist_ok=True)
        self._folder.write_table(self._name(key), table)

    def __delitem__(self, key: int | str) -> None:
        (self._folder.path / f"{self._name(key)}.parquet").unlink()

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int | str) and self._folder.has_table(self._name(key))

    def __iter__(self) -> Iterator[int | str]:
        """Numbers in order, then names."""
        stems = sorted(path.stem for path in (self._folder.path / self._below).glob("*.parquet"))
        return iter([int(stem) if stem.isdecimal() else stem for stem in stems])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def clear(self) -> None:
        """Forget them, once the step's tables are written."""
        below = self._folder.path / self._below
        shutil.rmtree(below, ignore_errors=True)
        if below.parent.is_dir() and not any(below.parent.iterdir()):
            below.parent.rmdir()


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
