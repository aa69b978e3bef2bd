"""The settings of a run that is taken up, for those that a command was not given."""

from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.headsets.thresholds import Thresholds
from workbench.runs.config import PROMPT_SETTINGS, RunConfig
from workbench.runs.folder import RunFolder
from workbench.runs.place import is_run
from workbench.runs.steps import STEPS

LIMITS = (*Thresholds.__dataclass_fields__, "n_paired")
"""Settings that are those of the pools for every step; one that was not done again had others."""
NEVER_TAKEN = {
    "heads": {"n_nominated", "n_controls"},
    "sources": {"destinations"},
    "destinations": {"sources"},
}
"""Setting → others beside which it has its default: they ask for something else than before."""


def settings_there(
    out: Path, given: Collection[str], *, prompts: bool, command: str = ""
) -> dict[str, Any]:
    """Settings with which the run in a folder was made, but for those that are given now.

    Nothing where no run is there. `prompts` says whether a command was given prompts. Where steps
    were done with different ones, the limits are those of the pools, others those of the `command`.

    Raises:
        InputError: prompts are to be made where a file gives them, or for a run whose prompts came
            from a file.
    """
    asked = sorted(set(given) & set(PROMPT_SETTINGS))
    flag = {"n_prompts": "n"}.get(asked[0], asked[0].replace("_", "-")) if asked else ""
    if asked and prompts:
        raise InputError(f"--{flag} makes prompts, --prompts gives them; leave one of them out")
    if not is_run(out):
        return {}
    manifest = RunFolder.open(out).manifest
    made_with = manifest["prompts"]["made_with"]
    if made_with is None and asked:
        raise InputError(
            f"{out}: --{flag} makes prompts, and those of this run were given; give --prompts with "
            "a file that begins with them to add more, or another --out"
        )
    found: dict[str, Any] = {"seed": manifest["seed"], **(made_with or {})}
    pooled = manifest["steps"].get("pool", {}).get("settings", {})
    found |= {name: pooled[name] for name in LIMITS if name in pooled}
    own = [step for step in STEPS if step.command == command]
    for step in (*own, *STEPS):
        settings = manifest["steps"].get(step.name, {}).get("settings", {})
        found |= {name: value for name, value in settings.items() if name not in found}
    for name, beside in NEVER_TAKEN.items():
        if beside & set(given):
            found.pop(name, None)
    known = {field.name for field in fields(RunConfig)}
    found = {name: value for name, value in found.items() if name in known - set(given)}
    if "positions" in found:
        found["positions"] = tuple(found["positions"])
    return found
