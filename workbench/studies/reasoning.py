"""Does a model need its chain, and do the two phases come in order along it?

Decisions of the laterality task are asked about after every step of chains that the model writes
itself, in the usual format and in the control format, which says all sides first. Decisions are
grouped by depth of reference: as many at depth 0, at depth 1, and deeper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from workbench.analysis.chains.own_steps import own_steps
from workbench.analysis.chains.trajectories import chain_trajectory, groups
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.events import make_events
from workbench.prompts.laterality import LateralityTask
from workbench.prompts.laterality_chain import CONTROL_CUE
from workbench.prompts.prompt import PromptSet
from workbench.prompts.templates import PlainTemplate
from workbench.runs.evidence import follow_chains, turns

FORMATS = {"shortlists first": PlainTemplate.reason_cue, "sides first": CONTROL_CUE}
DEPTHS = ("0", "1", "2+")
KEYS = ("format", "depth")


@dataclass(frozen=True)
class Reasoning:
    """Tables of the study; each has the columns format and depth.

    Attributes:
        values: `chain_values` of every decision.
        moments: means before and after the decision's own steps, see `own_steps`.
        trajectory: means along the chain, see `chain_trajectory`.
        turning_points: where Focus is nearly there and Confusion half gone, see `turning_points`.
    """

    values: pd.DataFrame
    moments: pd.DataFrame
    trajectory: pd.DataFrame
    turning_points: pd.DataFrame


def follow_reasoning(
    model: HookedModel,
    task: LateralityTask,
    *,
    n_prompts: int,
    seed: int = 0,
    n_resamples: int = 2000,
    formats: Mapping[str, str] = FORMATS,
    reporter: Reporter | None = None,
) -> Reasoning:
    """Follow chains of `n_prompts` prompts, a decision each; `formats` gives the opening cues.

    Raises:
        InputError: the model has no tokenizer, or no room for prompts with a chain.
    """
    reporter = reporter or Reporter()
    prompts, depth_of = events_by_depth(task, model.tokenizer, n_prompts=n_prompts, seed=seed)
    frames = []
    for name, cue in formats.items():
        reporter.say(name)
        _, found = follow_chains(model, prompts, reporter, ("clean",), cue)
        frames.append(found.assign(format=name, depth=[depth_of[key] for key in found["id"]]))
    values = pd.concat(frames, ignore_index=True)
    seeded = {"n_resamples": n_resamples, "seed": seed}
    ordered = values.sort_values(list(KEYS), kind="stable")
    parts = [(dict(zip(KEYS, key, strict=True)), part) for key, part in groups(ordered, [*KEYS])]
    return Reasoning(
        values,
        own_steps(values, KEYS, **seeded),
        pd.concat([chain_trajectory(part, **seeded).assign(**key) for key, part in parts]),
        pd.concat([turns(part, **seeded).assign(**key) for key, part in parts]),
    )


def events_by_depth(
    task: LateralityTask, tokenizer: object, *, n_prompts: int, seed: int
) -> tuple[PromptSet, dict[str, str]]:
    """Decision events with each of `DEPTHS` in turn, and the depth by prompt id."""
    depth_of: dict[str, str] = {}

    def choose(prompt: DrawnPrompt) -> Sequence[int]:
        wanted = DEPTHS[int(prompt.id.removeprefix("p")) % len(DEPTHS)]
        depth_of[prompt.id] = wanted
        depths = [min(task.depth(prompt, place), 2) for place in range(len(prompt.mentions))]
        fit = [place for place, depth in enumerate(depths) if depth == DEPTHS.index(wanted)]
        # Which of them: the draw of the prompt is random already, its order of places too.
        return fit[:1]

    prompts = make_events(
        task, PlainTemplate(), tokenizer, n_prompts=n_prompts, seed=seed, event=choose
    )
    return prompts, depth_of
