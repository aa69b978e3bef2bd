"""An open run: what its steps work on, with the folder that stores their tables and resumes."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate.utils.memory import should_reduce_batch_size

from workbench.analysis.statistics import split_half
from workbench.errors import InputError, first_line
from workbench.files import file_sha256, replacing
from workbench.headsets import headset as headset_file
from workbench.headsets.headset import HeadSet
from workbench.models.hooked import HookedModel
from workbench.models.loading import bundled_model_path, model_folder
from workbench.models.memory import memory_line
from workbench.progress import Reporter
from workbench.prompts.choices import settled_task
from workbench.prompts.files import read_prompts, write_prompts
from workbench.prompts.make import make_prompts, settled_template
from workbench.prompts.prompt import PromptSet
from workbench.runs.config import DEFAULTS, PROMPT_SETTINGS, RunConfig
from workbench.runs.folder import RunFolder, hold, is_run
from workbench.runs.patch import named_heads
from workbench.runs.shown import run_html, run_text
from workbench.runs.steps import HEADSET, MAKER, Step
from workbench.runs.subject import Subject

PROMPTS_FILE = "prompts.jsonl"
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

    def do(self, *steps: Step) -> None:
        """Do steps that were not finished before, after checking that all of them can be done.

        Raises:
            InputError: an earlier step is missing, or one was begun with other settings.
        """
        steps = tuple(step for step in steps if step.wanted(self.config))
        with hold(self.folder.path):
            self.folder.reload()
            for step in steps:
                for needed in reversed(_needed(step, self.config)):
                    if needed not in steps:
                        self.folder.require(needed)
                if not step.replaced:
                    self.folder.check_step(step.name, self.config.only(step.settings))
            for step in steps:
                for needed in _needed(step, self.config):
                    if needed not in steps:
                        self._restore(needed)
                self._do(step)

    def _restore(self, step: Step) -> None:
        """Do a finished step again, with the settings it had, where its tables are lost."""
        if self.folder.lost(step.name) is None:
            return
        settings = self.folder.manifest["steps"][step.name]["settings"]
        try:
            then = replace(self, config=replace(self.config, **settings))
        except InputError as error:
            raise InputError(f"{self.folder.path}: settings of {step.name!r}: {error}") from None
        for needed in _needed(step, then.config):
            self.folder.require(needed)
            then._restore(needed)
        then._do(step)

    def _do(self, step: Step) -> None:
        settings = self.config.only(step.settings)
        if step.replaced:
            self.folder.forget_unless(step.name, settings)
        parts = self.folder.parts(step.name)
        lost = self.folder.lost(step.name)
        if lost is not None:
            self.reporter.say(f"{lost}; {step.name} is done again")
        if self.folder.begin(step.name, settings):
            self.folder.outdate_reports()
            started = time.monotonic()
            needed = {table for one in _needed(step, self.config) for table in one.makes}
            if damaged := parts.drop_damaged():
                self.reporter.say(f"{step.name}: {damaged} damaged parts are done again")
            try:
                tables = {name: self.read(name) for name in step.needs if name in needed}
                with self.reporter.between(step.name):
                    made = step.do(self, tables, *([parts] if step.resumable else []))
            except InputError:
                self.folder.forget(step.name)  # a refused input must not bar the right one
                raise
            except (MemoryError, RuntimeError) as error:
                if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
                    raise
                raise InputError(
                    f"{step.name}: out of memory on {self.model.device} ({first_line(error)}); "
                    f"what was finished is kept in {self.folder.path}, and the same command goes "
                    "on from there once more memory is free"
                ) from error
            for name, table in made.tables.items():
                self.write(name, table)
            self.folder.finish(step.name, time.monotonic() - started, made.counts, step.files)
        else:
            self.reporter.say(f"{step.name}: finished before, skipped")
        parts.clear()  # only now: a run killed before still has its events

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
    out = Path(out)
    with hold(out):
        return _open(out, model, prompts, config, make, dtype, device, reporter or Reporter())


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
    source = bundled_model_path() if model is None else model
    loaded = source
    if not isinstance(loaded, HookedModel):
        loaded = HookedModel.load(loaded, dtype=dtype, device=device, reporter=reporter)
    decisive = {"weights_sha256": loaded.info.weights_sha256, "dtype": loaded.info.dtype}
    if folder is not None:
        folder.check({"seed": config.seed, "model": decisive})
    named_heads(loaded, config)
    made_with = None
    if prompts is None and make:
        config = replace(config, **_settled(config, loaded, source, folder))
        given = config.only(PROMPT_SETTINGS)
        made_with = {name: value for name, value in given.items() if value is not None}
    lost = None if folder is None else lost_prompts(folder)
    if isinstance(prompts, PromptSet):
        chosen = prompts
    elif prompts is not None:
        chosen = read_prompts(prompts, model=loaded)
    elif folder is None:
        chosen = _make(source, config.of_prompts(), reporter)
    elif lost is not None:
        chosen = _make_again(folder, lost, source, reporter)
    else:
        task = folder.manifest["prompts"]["task"]
        chosen = read_prompts(out / PROMPTS_FILE, model=loaded, task=task)
    if folder is None:
        folder, lost = RunFolder.create(out, _identity(loaded, chosen, made_with, config)), "new"
    folder.check({"prompts": _decisive(folder, chosen, made_with)})
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
            names[name] = settled_template(asked, home, loaded.tokenizer)
    return names


def lost_prompts(folder: RunFolder) -> str | None:
    """What has become of the run's prompt file: "is missing", "was changed …", or nothing."""
    path = folder.path / PROMPTS_FILE
    if not path.is_file():
        return "is missing"
    same = file_sha256(path) == folder.manifest["prompts"]["sha256"]
    return None if same else "was changed since the run began"


def _make(
    source: HookedModel | str | Path, settings: Mapping[str, Any], reporter: Reporter
) -> PromptSet:
    if isinstance(source, HookedModel):
        raise InputError("no prompts: give a prompt file with --prompts")
    return make_prompts(model=source, reporter=reporter, **settings)


def _make_again(
    folder: RunFolder, lost: str, source: HookedModel | str | Path, reporter: Reporter
) -> PromptSet:
    """The run's prompts, where it made them itself.

    Raises:
        InputError: it did not, or they come out differently.
    """
    about, path = folder.manifest["prompts"], folder.path / PROMPTS_FILE
    way_out = "give the prompts of this run with --prompts, or another --out"
    if about["made_with"] is None or isinstance(source, HookedModel):
        raise InputError(f"{path}: {lost}; {way_out}")
    reporter.say(f"{PROMPTS_FILE} {lost}; prompts are made again")
    then = replace(DEFAULTS, **about["made_with"], seed=folder.manifest["seed"])
    made = _make(source, then.of_prompts(), reporter)
    if made.sha256 != about["sha256"]:
        raise InputError(f"{path}: {lost}, and its prompts can no longer be made; {way_out}")
    return made


def _identity(
    model: HookedModel, prompts: PromptSet, made_with: Mapping[str, Any] | None, config: RunConfig
) -> dict[str, Any]:
    halves = split_half(prompts.prompt_ids, config.seed, prompts.families)
    return {
        "seed": config.seed,
        "model": asdict(model.info),
        "prompts": {
            "task": prompts.task,
            "n_prompts": len(prompts.prompt_ids),
            "n_events": len(prompts),
            "n_choose": len(halves.choose),
            "n_verify": len(halves.verify),
            "sha256": prompts.sha256,
            "made_with": None if made_with is None else dict(made_with),
        },
    }


def _decisive(
    folder: RunFolder, prompts: PromptSet, made_with: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What about the prompts may not differ; settings count where both sides made them."""
    both = made_with if folder.manifest["prompts"]["made_with"] else None
    return ({"made_with": both} if both else {}) | {"sha256": prompts.sha256}
