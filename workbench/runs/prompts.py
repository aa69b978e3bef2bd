"""The prompts of a run: made for it, found again in its folder, and added to.

A run grows by prompts that begin with its own: its events, in their order, and more behind them.
What is there of them is kept; every prompt stays in its half, and only the new ones are dealt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.files import file_sha256
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter
from workbench.prompts.files import read_prompts
from workbench.prompts.make import make_prompts
from workbench.prompts.prompt import PromptSet
from workbench.runs.config import DEFAULTS, RunConfig
from workbench.runs.folder import RunFolder
from workbench.runs.subject import halves_of

PROMPTS_FILE = "prompts.jsonl"


def lost_prompts(folder: RunFolder) -> str | None:
    """What has become of the run's prompt file: "is missing", "was changed …", or nothing."""
    path = folder.path / PROMPTS_FILE
    if not path.is_file():
        return "is missing"
    same = file_sha256(path) == folder.manifest["prompts"]["sha256"]
    return None if same else "was changed since the run began"


def made_prompts(
    source: HookedModel | str | Path, config: RunConfig, reporter: Reporter
) -> PromptSet:
    """Prompts made for a model that is not loaded yet.

    Raises:
        InputError: it is loaded, so that nobody knows where its task is described.
    """
    if isinstance(source, HookedModel):
        raise InputError("no prompts: give a prompt file with --prompts")
    return make_prompts(model=source, reporter=reporter, **config.of_prompts())


def prompts_there(
    folder: RunFolder, model: HookedModel, source: HookedModel | str | Path, reporter: Reporter
) -> PromptSet:
    """The prompts in the run's folder; where they are lost and the run made them, made again.

    Raises:
        InputError: they are lost, and it did not make them, or they come out differently.
    """
    about, path = folder.manifest["prompts"], folder.path / PROMPTS_FILE
    lost = lost_prompts(folder)
    if lost is None:
        return read_prompts(path, model=model, task=about["task"])
    way_out = "give the prompts of this run with --prompts, or another --out"
    if about["made_with"] is None or isinstance(source, HookedModel):
        raise InputError(f"{path}: {lost}; {way_out}")
    reporter.say(f"{PROMPTS_FILE} {lost}; prompts are made again")
    then = replace(DEFAULTS, **about["made_with"], seed=folder.manifest["seed"])
    made = made_prompts(source, then, reporter)
    if made.sha256 != about["sha256"]:
        raise InputError(f"{path}: {lost}, and its prompts can no longer be made; {way_out}")
    return made


def described(
    prompts: PromptSet, batches: Sequence[int], made_with: Mapping[str, Any] | None, seed: int
) -> dict[str, Any]:
    """What the manifest says of the prompts; `batches` are numbers of events, as they came."""
    halves = halves_of(prompts, batches, seed)
    return {
        "task": prompts.task,
        "n_prompts": len(prompts.prompt_ids),
        "n_events": len(prompts),
        "n_choose": len(halves.choose),
        "n_verify": len(halves.verify),
        "sha256": prompts.sha256,
        "made_with": None if made_with is None else dict(made_with),
        "batches": list(batches),
    }


def wants_more(folder: RunFolder, made_with: Mapping[str, Any]) -> bool:
    """Whether the run made its prompts with the same settings, but fewer of them.

    Raises:
        InputError: the settings differ otherwise.
    """
    there = folder.manifest["prompts"]["made_with"]
    if there is None or there["n_prompts"] >= made_with["n_prompts"]:
        return False
    folder.check({"prompts": {"made_with": {**made_with, "n_prompts": there["n_prompts"]}}})
    return True


def grow(
    folder: RunFolder,
    chosen: PromptSet,
    made_with: Mapping[str, Any] | None,
    model: HookedModel,
    source: HookedModel | str | Path,
    reporter: Reporter,
) -> PromptSet:
    """The chosen prompts, which the run now has: they are its own or begin with them.

    Raises:
        InputError: they are others, or fewer.
    """
    about = folder.manifest["prompts"]
    if chosen.sha256 == about["sha256"]:
        if made_with is not None and about["made_with"] is not None:
            folder.check({"prompts": {"made_with": made_with}})
        return chosen
    there = prompts_there(folder, model, source, reporter)
    n = len(there)
    if chosen.events == there.events[: len(chosen)]:
        raise InputError(
            f"{folder.path}: holds these {len(chosen)} events and {n - len(chosen)} more, and a "
            "run does not shrink; leave --prompts and --n out to go on with all, or give another "
            "--out"
        )
    if chosen.events[:n] != there.events:
        if made_with is not None and about["made_with"] is not None:
            raise InputError(
                f"{folder.path}: the first {n} of {len(chosen)} prompts of task {chosen.task} are "
                "not those of the run, so it cannot grow; give another --out"
            )
        folder.check({"prompts": {"sha256": chosen.sha256}})
    batches = [*(about.get("batches") or [n]), len(chosen) - n]
    own = made_with if about["made_with"] is not None else None
    more = replace(chosen, task=about["task"])
    found = described(more, batches, own, folder.manifest["seed"])
    added = found["n_prompts"] - about["n_prompts"]
    reporter.say(
        f"prompts: {about['n_prompts']} are there and stay in their halves, {added} are added: "
        f"{found['n_choose'] - about['n_choose']} to the selection half, "
        f"{found['n_verify'] - about['n_verify']} to the held-out half"
    )
    folder.grow(found)
    return more
