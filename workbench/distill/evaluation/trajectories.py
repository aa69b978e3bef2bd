"""How far a student's Focus and Confusion are from the teacher's, step by step of a chain.

Both models are asked for the answer after every step, step 0 (no chain) included, along chains that
the teacher writes: the same tokens for both. Beside it stands step 0 alone, and each model along
its own chains, compared at the steps that both have.
"""

from collections.abc import Sequence

import pandas as pd

from workbench.analysis.chains.generation import write_chains
from workbench.analysis.chains.trajectories import READOUTS, chain_values
from workbench.models.hooked import HookedModel
from workbench.prompts.chain import ChainCase, question_cases
from workbench.prompts.prompt import PromptSet
from workbench.prompts.task import Task

TEACHERS, OWN = "teacher_chain", "own_chain"
STEP_0 = "step_0"
COLUMNS = ["setting", "id", "event", "steps", *READOUTS]


def write_own_chains(
    model: HookedModel,
    task: Task,
    prompts: PromptSet,
    *,
    max_new_tokens: int = 256,
    batch_size: int = 64,
) -> list[ChainCase]:
    """The decisions of a task's `prompts`, with chains that the model writes for the clean ones.

    Raises:
        InputError: prompts without the answer cue, or what `write_chains` refuses.
    """
    cases = question_cases(prompts, model.tokenizer)
    return write_chains(
        model,
        cases,
        model.tokenizer,
        variants=("clean",),
        stages=task.stages,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )


def followed(
    model: HookedModel, teachers: Sequence[ChainCase], own: Sequence[ChainCase]
) -> pd.DataFrame:
    """`chain_values` of a model along the teacher's chains and along its own.

    Columns: those of `chain_values`, with source "teacher_chain" or "own_chain".

    Raises:
        InputError: a chain that the model cannot run, for example too long for it.
    """
    along = [(teachers, TEACHERS), (own, OWN)]
    frames = [chain_values(model, cases, source=source) for cases, source in along]
    return pd.concat(frames, ignore_index=True)


def distances(student: pd.DataFrame, teacher: pd.DataFrame) -> pd.DataFrame:
    """Mean absolute differences of Focus and Confusion along the chain of each decision.

    Args:
        student: table of `followed`.
        teacher: the teacher's.

    Returns:
        columns setting ("teacher_chain", "step_0": its first place alone, "own_chain"), id, event,
        steps (how many were compared, with step 0), focus, confusion (means over these steps of the
        absolute difference).
    """
    key = ["source", "id", "event", "step"]
    both = student.merge(teacher, on=key, suffixes=("", "_teacher"))
    for name in READOUTS:
        both[name] = (both[name] - both[f"{name}_teacher"]).abs()
    first = both[(both["source"] == TEACHERS) & (both["step"] == 0)].assign(source=STEP_0)
    both = pd.concat([both, first], ignore_index=True).rename(columns={"source": "setting"})
    found = both.groupby(["setting", "id", "event"], sort=True).agg(
        steps=("step", "size"), **{name: (name, "mean") for name in READOUTS}
    )
    return found.reset_index().reindex(columns=COLUMNS)
