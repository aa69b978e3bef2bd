"""An open run: what its steps work on, with the folder that stores their tables and resumes."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pandas as pd
from accelerate.utils.memory import should_reduce_batch_size

from workbench.errors import InputError, first_line
from workbench.files import file_sha256, replacing
from workbench.headsets import headset as headset_file
from workbench.headsets.headset import HeadSet
from workbench.processes import ShareDone
from workbench.runs.asked import asked_for, config_with, differences
from workbench.runs.config import POSITIONS, RunConfig
from workbench.runs.folder import RunFolder
from workbench.runs.place import hold
from workbench.runs.shown import run_html, run_text
from workbench.runs.steps import BY_NAME, HEADSET, MAKER, Made, Step, file_of, steps_of
from workbench.runs.subject import Subject

HEADSET_FILE = f"{HEADSET}.json"


@dataclass(frozen=True)
class OpenRun(Subject):
    """What every step works on, and where its tables are kept; made by `open_run`."""

    folder: RunFolder = field(kw_only=True)

    def __repr__(self) -> str:
        return run_text(self)

    def _repr_html_(self) -> str:
        return run_html(self)

    @property
    def template(self) -> str | None:
        """The template of the prompts, where this run made them."""
        return (self.folder.manifest["prompts"]["made_with"] or {}).get("template")

    @property
    def batches(self) -> tuple[int, ...]:
        """Events of each time that prompts were added."""
        return tuple(self.folder.manifest["prompts"].get("batches", ())) or (len(self.prompts),)

    def asked(self, step: str) -> list[RunConfig]:
        """Settings with which a step was asked for until now, in this folder."""
        asked = self.folder.manifest["steps"].get(step, {}).get("asked", [])
        return [config_with(self.config, one, self._where(step)) for one in asked] or [self.config]

    def _where(self, step: str) -> str:
        return f"{self.folder.path}: settings of {step!r}"

    def rows(self, step: str) -> pd.DataFrame:
        """Rows of single events that the folder keeps of a step."""
        return self.folder.rows(BY_NAME[step])

    def do(self, *steps: Step) -> None:
        """Do steps that were not finished before; one that they need and that is not, before them.

        With other settings a finished step is done again, and takes up the rows that it keeps.

        Of several processes the main one decides and writes; the others do their share of what it
        does.

        Raises:
            InputError: a step was begun with settings that may not differ in one folder.
        """
        steps = tuple(step for step in steps if step.wanted(self.config))
        with self.together.failing():
            if self.together.is_main:
                self._do_all(steps)
                self._order(None)
            else:
                self._serve()
        self.together.rejoin()

    def _do_all(self, steps: tuple[Step, ...]) -> None:
        with hold(self.folder.path):
            self.folder.reload()
            for step in steps:
                self.folder.check_step(step.name, self.config.only(step.fixed))
            for step in steps:
                for needed in _needed(step, self.config):
                    if needed not in steps:
                        self._ensure(needed, step)
                self._do(step)

    def _ensure(self, step: Step, later: Step) -> None:
        """Do a step that a later one needs where it is not done, with the settings that it had.

        One that was never begun is done with all other steps of its command.
        """
        if self.folder.is_done(step.name):
            return
        record = self.folder.manifest["steps"].get(step.name)
        then = self
        if record is not None:
            config = config_with(self.config, record["settings"], self._where(step.name))
            then = replace(self, config=config)
        todo = (step,)
        if not self.folder.was_done(step.name) and step.command != later.command:
            command = step.command
            self.reporter.say(f"{later.command}: {command} is not finished and is done first")
            todo = tuple(one for one in steps_of(command) if record is None) or todo
        for one in todo:
            if one.wanted(then.config) and not self.folder.is_done(one.name):
                for needed in _needed(one, then.config):
                    then._ensure(needed, one)
                then._do(one)

    def _do(self, step: Step) -> None:
        record = deepcopy(self.folder.manifest["steps"].get(step.name))
        there = {} if record is None else record["settings"]
        config = self.config
        if "positions" in there and "positions" in step.settings and step.adds:
            both = {*there["positions"], *config.positions}
            config = replace(config, positions=tuple(name for name in POSITIONS if name in both))
        settings, asked = config.only(step.settings), asked_for(step, config, record)
        parts = self.folder.parts(step.name)
        lost = self.folder.lost(step.name)
        other = differences(step, there, settings)
        more = record is not None and asked != asked_for(step, None, record)
        if record is not None and not (other or more):
            settings = there
        if lost is not None:
            self.reporter.say(f"{lost}; {step.name} is done again")
        elif self.folder.was_done(step.name) and (other or more):
            words = "; ".join(other) if other else "more is asked for"
            kept = ", what is there is kept" if step.keeps else ", so it is done again"
            self.reporter.say(f"{step.name}: {words}{kept}")
        if other and not step.keeps:
            parts.clear()
        if self.folder.begin(step.name, settings, again=bool(other or more), asked=asked):
            self.folder.outdate_reports()
            started = time.monotonic()
            needed = {table for one in _needed(step, self.config) for table in one.makes}
            if damaged := parts.drop_damaged():
                self.reporter.say(f"{step.name}: {damaged} damaged parts are done again")
            then = replace(self, config=config, asks_anew=more or record is None)
            tables = [name for name in step.needs if name in needed]
            try:
                self._order(step, then, tables)
                made = then._work(step, tables)
            except InputError:
                self.folder.put_back(step.name, record)  # the right input must not be barred
                raise
            for name, table in made.tables.items():
                self.write(name, table)
            if made.rows is not None:
                self.write(step.keeps, made.rows)
            self.folder.finish(step.name, time.monotonic() - started, made.counts, step.files)
        else:
            self.reporter.say(f"{step.name}: finished before, skipped")
        parts.clear()  # only now: a run killed before still has its events

    def _work(self, step: Step, tables: Sequence[str]) -> Made:
        """Do the work of a step with these tables, or this process's share of it.

        Raises:
            InputError: one that is bad, or no memory is left.
        """
        parts = [self.folder.parts(step.name)] if step.resumable else []
        try:
            given = {name: self.read(name) for name in tables}
            with self.reporter.between(step.name):
                return step.do(self, given, *parts)
        except (MemoryError, RuntimeError) as error:
            if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
                raise
            raise InputError(
                f"{step.name}: out of memory on {self.model.device} ({first_line(error)}); "
                f"what was finished is kept in {self.folder.path}, and the same command goes "
                "on from there once more memory is free"
            ) from error

    def _order(
        self, step: Step | None, then: "OpenRun | None" = None, tables: Sequence[str] = ()
    ) -> None:
        """Tell the other processes of a step that begins; None: of none any more."""
        self.together.begin_step()
        if step is None or then is None:
            self.together.told(lambda: None)
            return
        rows = f"{step.keeps}.parquet" if step.keeps else ""
        files = [*map(file_of, tables), *([rows] if rows else [])]

        def order() -> dict[str, Any]:
            paths = {name: self.folder.path / name for name in files}
            return {
                "step": step.name,
                "config": then.config,
                "asks_anew": then.asks_anew,
                "manifest": self.folder.manifest,
                "tables": list(tables),
                "files": {name: file_sha256(at) for name, at in paths.items() if at.is_file()},
            }

        self.together.told(order, (RunConfig,))

    def _serve(self) -> None:
        """Do this process's share of the steps that the main one does."""
        while True:
            self.together.begin_step()
            order = self.together.told(lambda: None, (RunConfig,))
            if order is None:
                return
            self.folder.manifest = order["manifest"]
            self.together.wait(partial(self._sees, order["files"]), "the files of earlier steps")
            then = replace(self, config=order["config"], asks_anew=order["asks_anew"])
            with suppress(ShareDone):
                then._work(BY_NAME[order["step"]], order["tables"])

    def _sees(self, files: Mapping[str, str]) -> bool:
        """Whether files are here as another machine has written them."""
        paths = {self.folder.path / name: digest for name, digest in files.items()}
        return all(path.is_file() and file_sha256(path) == paths[path] for path in paths)

    def read(self, name: str) -> Any:
        """A table of the folder, or its head set."""
        if name == HEADSET:
            return headset_file.load(self.folder.path / HEADSET_FILE)
        return self.folder.read_table(name)

    def write(self, name: str, made: Any) -> None:
        """Put a table, or the head set, into the folder."""
        if name == HEADSET:
            headset_file.save(made, self.folder.path / HEADSET_FILE)
        else:
            self.folder.write_table(name, made)

    def amend(self, found: HeadSet) -> None:
        """Put what was found out since into the head set of the finished `pool` step."""
        path = self.folder.path / HEADSET_FILE
        with replacing(path, private=True) as beside:
            headset_file.save(found, beside)
            self.folder.allow(MAKER[HEADSET].name, path.name, file_sha256(beside))


def _needed(step: Step, config: RunConfig) -> list[Step]:
    """Earlier steps that make what a step needs."""
    makers = dict.fromkeys(MAKER[name] for name in step.needs)
    return [one for one in makers if one.wanted(config)]
