"""An open run: its folder, model, prompts and settings, and how one step of it is done."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.analysis.statistics import Halves, split_half
from workbench.errors import InputError
from workbench.heads import parse_heads
from workbench.models.hooked import HookedModel
from workbench.models.loading import bundled_model_path
from workbench.phases import runs_that_count
from workbench.progress import Reporter
from workbench.prompts.files import read_prompts, write_prompts
from workbench.prompts.make import make_prompts
from workbench.prompts.prompt import DecisionEvent, PromptSet
from workbench.runs.config import DEFAULTS, HEAD_CHOICES, RunConfig
from workbench.runs.folder import RunFolder, check_unused, is_run

PROMPTS_FILE = "prompts.jsonl"
HEADSET_FILE = "headset.json"


@dataclass(frozen=True)
class OpenRun:
    """What every step works on; made by `open_run`."""

    folder: RunFolder
    model: HookedModel
    prompts: PromptSet
    config: RunConfig = DEFAULTS
    reporter: Reporter = field(default_factory=Reporter)

    @cached_property
    def halves(self) -> Halves:
        """Prompts that choose heads, and prompts that verify them."""
        return split_half(self.prompts.prompt_ids, self.config.seed)

    def counting_runs(self, event: DecisionEvent) -> tuple[str, ...]:
        """Patched runs for which an event is a valid pair."""
        return runs_that_count(self._counts.loc[(event.id, event.event)].to_dict())

    def runs_of(self, event: DecisionEvent) -> tuple[str, ...]:
        """Patched runs worth their time on an event, of those for which it is a valid pair.

        Pools are chosen by denoising alone; noising is measured on the held-out half.
        """
        if self.halves.of(event.id) == "verify":
            return self.counting_runs(event)
        return runs_that_count(self._counts.loc[(event.id, event.event)].to_dict(), ("denoising",))

    @cached_property
    def _counts(self) -> pd.DataFrame:
        baseline = self.folder.read_table("baseline")
        return baseline.drop_duplicates(["id", "event"]).set_index(["id", "event"])

    def do(self, step: str, work: Callable[[], Mapping[str, Any]]) -> None:
        """Do a step that was not finished before; `work` writes its files and returns counts.

        Raises:
            InputError: the step was begun with other settings.
        """
        if not self.folder.begin(step, self.config.of_step(step)):
            self.reporter.say(f"{step}: finished before, skipped")
            return
        started = time.monotonic()
        try:
            counts = work()
        except InputError:
            self.folder.forget(step)  # a refused input must not bar the right one
            raise
        self.folder.finish(step, time.monotonic() - started, counts)


def check_heads(model: HookedModel, config: RunConfig) -> None:
    """Refuse heads by name that are no names, or that the model does not have.

    Raises:
        InputError: naming the head.
    """
    if config.heads not in HEAD_CHOICES:
        for layer, head in parse_heads(config.heads):
            model.check_head(layer, head)


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
    check_heads(loaded, config)
    made_with = config.of_step("prompts") if prompts is None and make else None
    reporter = reporter or Reporter()
    chosen = _prompts(folder, source, loaded, prompts, config if made_with else None, reporter)
    if folder is None:
        folder = RunFolder.create(out, _identity(loaded, chosen, made_with, config))
    folder.check({"prompts": _decisive(folder, chosen, made_with)})
    if not (out / PROMPTS_FILE).is_file():
        write_prompts(chosen, out / PROMPTS_FILE)
    return OpenRun(folder, loaded, chosen, config, reporter)


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
