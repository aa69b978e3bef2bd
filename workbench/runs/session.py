"""An open run: what its steps work on, with the folder that stores their tables and resumes."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate.utils.memory import should_reduce_batch_size

from workbench.errors import InputError, first_line
from workbench.files import file_sha256, replacing
from workbench.headsets import headset as headset_file
from workbench.headsets.headset import HeadSet
from workbench.models.hooked import HookedModel
from workbench.models.loading import bundled_model_path, model_folder
from workbench.models.memory import memory_line
from workbench.processes import Processes, ShareDone, started_alone
from workbench.progress import Reporter
from workbench.prompts.choices import settled_task
from workbench.prompts.files import read_prompts, write_prompts
from workbench.prompts.make import settled_template
from workbench.prompts.prompt import PromptSet
from workbench.runs.asked import asked_for, config_with, differences
from workbench.runs.config import DEFAULTS, POSITIONS, PROMPT_SETTINGS, RunConfig
from workbench.runs.folder import RunFolder
from workbench.runs.patch import named_heads
from workbench.runs.place import hold, is_run
from workbench.runs.prompts import (
    PROMPTS_FILE,
    described,
    grow,
    lost_prompts,
    made_prompts,
    prompts_there,
    wants_more,
)
from workbench.runs.shown import run_html, run_text
from workbench.runs.steps import BY_NAME, HEADSET, MAKER, Made, Step, file_of, steps_of
from workbench.runs.subject import Subject
from workbench.team import Team

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

        self.together.told(order)

    def _serve(self) -> None:
        """Do this process's share of the steps that the main one does."""
        while True:
            self.together.begin_step()
            order = self.together.told(lambda: None)
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


def open_run(
    out: str | Path,
    *,
    model: HookedModel | str | Path | None = None,
    prompts: PromptSet | str | Path | None = None,
    config: RunConfig = DEFAULTS,
    make: bool = False,
    dtype: str = "float32",
    device: str | None = None,
    reporter: Reporter | None = None,
) -> OpenRun:
    """Start a run in a new or empty folder, or take up the one that is there.

    Args:
        out: the run folder.
        model: a loaded model, a folder or a hub id; the bundled model unless given.
        prompts: a prompt set or file; those in the folder unless given.
        config: settings of all steps.
        make: make prompts for the bundled task where a new run has none.
        dtype: of the weights, unless the model is loaded.
        device: where a model goes that is not loaded; an accelerator if there is one.
        reporter: where progress is shown; standard error unless given.

    Raises:
        InputError: the folder holds something else or another run, or an input is bad.
    """
    out, here = Path(out), Processes.here()
    reporter, device = here.reporter(reporter), here.device(device)
    if not here.is_main:
        return _join(out, model, config, dtype, device, reporter)
    if started_alone():
        reporter.say(
            "one process runs: `accelerate launch --cpu` starts no more; leave --cpu out and give "
            "--multi_gpu, which needs no GPU here"
        )
    with hold(out):
        return _open(out, model, prompts, config, make, dtype, device, reporter)


def _join(
    out: Path,
    model: HookedModel | str | Path | None,
    config: RunConfig,
    dtype: str,
    device: str | None,
    reporter: Reporter,
) -> OpenRun:
    """The run that the main process opens, in another process of the same launch.

    Raises:
        InputError: another model is here than there, or the main process does not come.
        SaidElsewhere: the main process says what is wrong.
    """
    together = Team.meet(out, reporter=reporter)
    with together.failing():
        loaded = _loaded(model, dtype, device, reporter)
        manifest = together.told(lambda: None)
        folder = RunFolder(out, manifest)
        folder.check({"model": _decisive(loaded)})
        together.wait(lambda: lost_prompts(folder) is None, PROMPTS_FILE)
        chosen = read_prompts(out / PROMPTS_FILE, model=loaded, task=manifest["prompts"]["task"])
    if loaded.tokenizer is not None:
        chosen = chosen.with_tokenizer(loaded)
    return OpenRun(loaded, chosen, config, reporter, folder=folder, together=together)


def _loaded(
    model: HookedModel | str | Path | None, dtype: str, device: str | None, reporter: Reporter
) -> HookedModel:
    if isinstance(model, HookedModel):
        return model
    source = bundled_model_path() if model is None else model
    return HookedModel.load(source, dtype=dtype, device=device, reporter=reporter)


def _decisive(model: HookedModel) -> dict[str, str]:
    """What may not differ in one run."""
    return {"weights_sha256": model.info.weights_sha256, "dtype": model.info.dtype}


def _open(
    out: Path,
    model: HookedModel | str | Path | None,
    prompts: PromptSet | str | Path | None,
    config: RunConfig,
    make: bool,
    dtype: str,
    device: str | None,
    reporter: Reporter,
) -> OpenRun:
    folder = RunFolder.open(out) if is_run(out) else None
    if folder is None and prompts is None and not make:
        raise InputError(
            f"{out}: a new run needs prompts; make some with `workbench prompts --out FILE` "
            "and give them with --prompts"
        )
    together = Team.meet(out, reporter=reporter)
    with together.failing():
        loaded = _loaded(model, dtype, device, reporter)
        opened = _opened(out, folder, loaded, model, prompts, config, make, reporter)
        together.everyone()
        together.told(lambda: opened.folder.manifest)
    return replace(opened, together=together)


def _opened(
    out: Path,
    folder: RunFolder | None,
    loaded: HookedModel,
    model: HookedModel | str | Path | None,
    prompts: PromptSet | str | Path | None,
    config: RunConfig,
    make: bool,
    reporter: Reporter,
) -> OpenRun:
    """The run on a model that is loaded, with its prompts."""
    source = bundled_model_path() if model is None else model
    if folder is not None:
        folder.check({"seed": config.seed, "model": _decisive(loaded)})
    named_heads(loaded, config)
    made_with = None
    if prompts is None and make:
        config = replace(config, **_settled(config, loaded, source, folder))
        given = config.only(PROMPT_SETTINGS)
        made_with = {name: value for name, value in given.items() if value is not None}
    if isinstance(prompts, PromptSet):
        chosen = prompts
    elif prompts is not None:
        chosen = read_prompts(prompts, model=loaded)
    elif folder is None:
        chosen = made_prompts(source, config, reporter)
    else:
        chosen = prompts_there(folder, loaded, source, reporter)
        if made_with is not None and wants_more(folder, made_with):
            chosen = made_prompts(source, config, reporter)
    if folder is None:
        about = described(chosen, (len(chosen),), made_with, config.seed)
        identity = {"seed": config.seed, "model": asdict(loaded.info), "prompts": about}
        folder, lost = RunFolder.create(out, identity), "new"
    else:
        chosen = grow(folder, chosen, made_with, loaded, source, reporter)
        lost = lost_prompts(folder)
    if lost is not None:
        write_prompts(chosen, out / PROMPTS_FILE)
    if loaded.tokenizer is not None:
        chosen = chosen.with_tokenizer(loaded)
    reporter.say(memory_line(loaded, max(len(event.longest) for event in chosen)))
    return OpenRun(loaded, chosen, config, reporter, folder=folder)


def _settled(
    config: RunConfig,
    loaded: HookedModel,
    source: HookedModel | str | Path,
    folder: RunFolder | None,
) -> dict[str, Any]:
    """The task and the template that "auto" stands for: of a run that is taken up, its own."""
    made = (folder and folder.manifest["prompts"]["made_with"]) or {}
    names = {"task": config.task, "template": config.template}
    if isinstance(source, HookedModel):
        return names
    home = model_folder(source)
    for name, asked in names.items():
        if asked == "auto" and name in made:
            names[name] = made[name]
        elif name == "task":
            names[name] = settled_task(asked, home)
        else:
            names[name] = settled_template(asked, home, loaded.tokenizer, names["task"])
    return names
