"""The folder of a run: a manifest, tables, and the parts of a sweep that is not finished yet.

The manifest says what the run is (weights, prompts, seed) and which steps were done with which
settings, so that the same command goes on where it stopped, other settings add to what is there,
and another run is refused with a line that names what differs. Every file is written beside its
place and then moved there: a reader, or a run that was killed, never finds half a file. The
manifest holds the hash of every file of a finished step: one that is missing or damaged is made
again. One process writes at a time (`place.hold`), and those that a launcher started with it write
parts. The folder and its files are their owner's alone: tables hold tokens of prompts.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow.lib import ArrowException

from workbench.errors import InputError
from workbench.files import file_sha256, make_folder, write_table, write_text
from workbench.runs.manifest import MANIFEST, SCHEMA, differences_in_words, read_manifest, versions
from workbench.runs.parts import Parts
from workbench.runs.place import check_unused, is_run
from workbench.runs.steps import MAKER, STEPS, Step

REPORT_FILE = "report.html"
REPORT_WITH_TEXT_FILE = "report_with_text.html"
FILES = {step.name: step.files for step in STEPS} | {
    Path(page).stem: (page,) for page in (REPORT_FILE, REPORT_WITH_TEXT_FILE)
}
"""What each step makes."""


class RunFolder:
    """One run on disk; `manifest` is its manifest as it stands there."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self._whole: set[tuple[str, int, int]] = set()  # files with time and size, once hashed

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
        make_folder(path, private=True)
        folder._save()
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
        return cls(path, read_manifest(path / MANIFEST))

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
        if record is None or not (self.was_done(step) or self.parts(step)):
            return
        self._check_same(f"step {step!r} was run with", record["settings"], settings)

    def _check_same(
        self, what: str, old: Mapping[str, Any], new: Mapping[str, Any], verb: str = ""
    ) -> None:
        if different := differences_in_words(old, new, verb):
            raise InputError(f"{self.path}: {what} {'; '.join(different)}; give another --out")

    def begin(
        self,
        step: str,
        settings: Mapping[str, Any],
        *,
        again: bool = False,
        asked: Sequence[Mapping[str, Any]] = (),
    ) -> bool:
        """Whether the step is still to do, or to do again; then it is marked as running.

        Args:
            step: its name.
            settings: what it is done with.
            again: do it with these settings whatever was done before.
            asked: settings that add up, with which it was asked for until now.

        Raises:
            InputError: it was begun with other settings.
        """
        if not again:
            self.check_step(step, settings)
            if self.is_done(step):
                return False
        record = self.manifest["steps"].get(step, {})
        before = record.get("files") or record.get("before") or {}
        self.manifest["steps"][step] = {
            "status": "running",
            "settings": dict(settings),
            **({"asked": list(asked)} if asked else {}),
            **({"before": before} if before else {}),
        }
        self._save()
        return True

    def put_back(self, step: str, record: Mapping[str, Any] | None) -> None:
        """Undo the beginning of a step that was refused: its record is again what it was."""
        if record is None:
            self.forget(step)
        else:
            self.manifest["steps"][step] = dict(record)
            self._save()

    def finish(
        self, step: str, seconds: float, counts: Mapping[str, Any], files: Collection[str]
    ) -> None:
        """Mark a step as done, with the files that it has written.

        Where it was done again and they came out differently, what depends on it is outdated.
        """
        record = self.manifest["steps"][step]
        before = record.pop("before", {})
        made = {name: [file_sha256(self.path / name)] for name in files}
        record |= {"status": "done", "seconds": round(seconds, 2), "counts": dict(counts)}
        changed = [name for name in made if name in before and made[name][0] not in before[name]]
        if changed:
            self._outdate(step)
        record["files"] = made | {name: before[name] for name in before if name not in changed}
        self._save()

    def _outdate(self, step: str) -> None:
        makes = set(next((one.makes for one in STEPS if one.name == step), ()))
        for one in STEPS:
            record = self.manifest["steps"].get(one.name)
            if record is not None and makes & set(one.needs):
                self._outdate_one(one)

    def _outdate_one(self, step: Step) -> None:
        done = self.was_done(step.name)
        self.manifest["steps"][step.name]["status"] = "outdated" if done else "running"
        if not step.keeps:  # kept rows say themselves what they are of
            self.parts(step.name).clear()

    def grow(self, prompts: Mapping[str, Any]) -> None:
        """Let the run have more prompts; every step is to be done again, with the rows it keeps."""
        self.manifest["prompts"] |= prompts
        for step in STEPS:
            if step.name in self.manifest["steps"]:
                self._outdate_one(step)
        self.outdate_reports()
        self._save()

    @property
    def outdated(self) -> list[Step]:
        """Finished steps that rest on what has changed since."""
        records = self.manifest["steps"]
        return [one for one in STEPS if records.get(one.name, {}).get("status") == "outdated"]

    def allow(self, step: str, name: str, sha256: str) -> None:
        """A finished step's file may have this content, too; said before it is written."""
        allowed = self.manifest["steps"][step]["files"][name]
        allowed += [sha256] * (sha256 not in allowed)
        self._save()

    def forget_unless(self, step: str, settings: Mapping[str, Any] | None) -> None:
        """Let a step be done again unless it was done with these settings; None: in any case."""
        record = self.manifest["steps"].get(step)
        if record is not None and (settings is None or record["settings"] != dict(settings)):
            self.parts(step).clear()
            del self.manifest["steps"][step]
            self._save()

    def forget(self, step: str) -> None:
        """Let a step that came to nothing be run with any settings; parts of a sweep keep it."""
        if not self.parts(step):
            del self.manifest["steps"][step]
            self._save()

    def was_done(self, step: str) -> bool:
        """Whether the step was finished, whatever has become of its files."""
        return self.manifest["steps"].get(step, {}).get("status") in ("done", "outdated")

    def is_done(self, step: str) -> bool:
        """Whether the step was finished, and all that it made is there and whole."""
        return self.was_done(step) and self.lost(step) is None

    def lost(self, step: str) -> str | None:
        """Why a finished step must be done again: "scores.parquet is missing", "… is damaged".

        Files of a run that was made before manifests held hashes are taken as they are, once.
        """
        if not self.was_done(step):
            return None
        record = self.manifest["steps"][step]
        if record["status"] == "outdated":
            return f"what {step} was made from has changed"
        known: dict[str, list[str]] = record.setdefault("files", {})
        for name in list(known) or FILES.get(step, ()):
            path = self.path / name
            if not path.is_file():
                return f"{name} is missing"
            stamp = (name, path.stat().st_mtime_ns, path.stat().st_size)
            if stamp in self._whole:
                continue
            digest = file_sha256(path)
            if digest not in known.setdefault(name, [digest]):
                return f"{name} is damaged"
            self._whole.add(stamp)
        return None

    def reload(self) -> None:
        """Read the manifest again, which another process may have changed.

        Raises:
            InputError: it is that of another run.
        """
        now = read_manifest(self.path / MANIFEST)
        same = {name: now.get(name) for name in self.manifest if name != "steps"}
        self.check(same)
        self.manifest = now

    def outdate_reports(self) -> None:
        """Let the report pages be written again, since what they show changes."""
        for page in (REPORT_FILE, REPORT_WITH_TEXT_FILE):
            self.forget_unless(Path(page).stem, None)

    def rows(self, step: Step) -> pd.DataFrame:
        """Rows of single events that a step kept; none where they are missing or damaged.

        A step that was stopped may have written a table that the manifest does not know yet: its
        rows are whole all the same, since no half of a file is ever in its place.
        """
        if not step.keeps or not self.has_table(step.keeps):
            return pd.DataFrame()
        record = self.manifest["steps"].get(step.name, {})
        known = record.get("files", {}).get(f"{step.keeps}.parquet")
        path = self.path / f"{step.keeps}.parquet"
        try:
            if record.get("status") != "running" and known and file_sha256(path) not in known:
                return pd.DataFrame()
            return self.read_table(step.keeps)
        except InputError:
            return pd.DataFrame()

    def require(self, step: Step) -> None:
        """Refuse to go on without an earlier step.

        Raises:
            InputError: naming the command to run first.
        """
        if not self.was_done(step.name):
            raise InputError(
                f"{self.path}: step {step.name!r} is not finished there; "
                f"run `workbench {step.command}` first"
            )

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a table as parquet; the name may lie in a folder below."""
        make_folder((self.path / name).parent, private=True)
        write_table(self.path / f"{name}.parquet", table, private=True)

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
            raise InputError(f"{path}: is missing; `workbench {command}` makes it")
        try:
            with path.open("rb") as file:
                return pd.read_parquet(file)
        except (OSError, ValueError, ArrowException) as error:
            raise InputError(f"{path}: is no readable table ({type(error).__name__})") from None

    def parts(self, step: str) -> Parts:
        """What is kept of a step that is not finished."""
        return Parts(self, step)

    def _save(self) -> None:
        text = json.dumps(self.manifest, indent=2, ensure_ascii=False) + "\n"
        write_text(self.path / MANIFEST, text, private=True)
