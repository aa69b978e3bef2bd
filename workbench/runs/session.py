"""An open run: what its steps work on, with the folder that stores their tables and resumes."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from workbench.analysis.statistics import split_half
from workbench.errors import InputError
from workbench.headsets import headset as headset_file
from workbench.models.hooked import HookedModel
from workbench.models.loading import bundled_model_path
from workbench.progress import Reporter
from workbench.prompts.files import read_prompts, write_prompts
from workbench.prompts.make import make_prompts
from workbench.prompts.prompt import PromptSet
from workbench.runs.config import DEFAULTS, PROMPT_SETTINGS, RunConfig
from workbench.runs.folder import RunFolder, check_unused, is_run
from workbench.runs.patch import named_heads
from workbench.runs.steps import HEADSET, MAKER, Step
from workbench.runs.subject import Subject

PROMPTS_FILE = "prompts.jsonl"
HEADSET_FILE = f"{HEADSET}.json"


@dataclass(frozen=True)
class OpenRun(Subject):
    """What every step works on, and where its tables are kept; made by `open_run`."""

    folder: RunFolder = field(kw_only=True)

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
        for step in steps:
            for needed in reversed(_needed(step, self.config)):
                if needed not in steps:
                    self.folder.require(needed)
            if not step.replaced:
                self.folder.check_step(step.name, self.config.only(step.settings))
        for step in steps:
            self._do(step)

    def _do(self, step: Step) -> None:
        settings = self.config.only(step.settings)
        if step.replaced:
            self.folder.forget_unless(step.name, settings)
        parts = self.folder.parts(step.name)
        if self.folder.begin(step.name, settings):
            self.folder.outdate_reports()
            started = time.monotonic()
            needed = {table for one in _needed(step, self.config) for table in one.makes}
            try:
                tables = {name: self.read(name) for name in step.needs if name in needed}
                made = step.do(self, tables, *([parts] if step.resumable else []))
            except InputError:
                self.folder.forget(step.name)  # a refused input must not bar the right one
                raise
            for name, table in made.tables.items():
                self.write(name, table)
            self.folder.finish(step.name, time.monotonic() - started, made.counts)
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
    folder = RunFolder.open(out) if is_run(out) else None
    if folder is None:
        check_unused(out)
        if prompts is None and not make:
            raise InputError(
                f"{out}: a new run needs prompts; make some with `workbench prompts --out FILE` "
                "and give them with --prompts"
            )
    source = bundled_model_path() if model is None else model
    loaded = source
    if not isinstance(loaded, HookedModel):
        loaded = HookedModel.load(loaded, dtype=dtype, device=device)
    decisive = {"weights_sha256": loaded.info.weights_sha256, "dtype": loaded.info.dtype}
    if folder is not None:
        folder.check({"seed": config.seed, "model": decisive})
    named_heads(loaded, config)
    made_with = config.only(PROMPT_SETTINGS) if prompts is None and make else None
    reporter = reporter or Reporter()
    chosen = _prompts(folder, source, loaded, prompts, config if made_with else None, reporter)
    if folder is None:
        folder = RunFolder.create(out, _identity(loaded, chosen, made_with, config))
    folder.check({"prompts": _decisive(folder, chosen, made_with)})
    if not (out / PROMPTS_FILE).is_file():
        write_prompts(chosen, out / PROMPTS_FILE)
    return OpenRun(loaded, chosen, config, reporter, folder=folder)


def _prompts(
    folder: RunFolder | None,
    source: HookedModel | str | Path,
    model: HookedModel,
    given: PromptSet | str | Path | None,
    make: RunConfig | None,
    reporter: Reporter,
) -> PromptSet:
    """Prompts as given, else those in the folder, else new ones."""
    if isinstance(given, PromptSet):
        return given
    if given is not None:
        return read_prompts(given, model=model)
    if folder is not None and (folder.path / PROMPTS_FILE).is_file():
        task = folder.manifest["prompts"]["task"]
        return read_prompts(folder.path / PROMPTS_FILE, model=model, task=task)
    if make is None or isinstance(source, HookedModel):
        raise InputError("no prompts: give a prompt file with --prompts")
    return make_prompts(model=source, reporter=reporter, **make.of_prompts())


def _identity(
    model: HookedModel, prompts: PromptSet, made_with: Mapping[str, Any] | None, config: RunConfig
) -> dict[str, Any]:
    halves = split_half(prompts.prompt_ids, config.seed)
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
