"""How far a student's Focus and Confusion are from the teacher's, step by step of a chain.

Both models are asked for the answer after every step, step 0 (no chain) included, along chains that
the teacher writes: the same tokens for both. Beside it stands step 0 alone, and each model along
its own chains, compared at the steps that both have.
"""

import pandas as pd

from workbench.analysis.chains.trajectories import READOUTS

TEACHERS, OWN = "teacher_chain", "own_chain"
STEP_0 = "step_0"
COLUMNS = ["setting", "id", "event", "steps", *READOUTS]


def distances(student: pd.DataFrame, teacher: pd.DataFrame) -> pd.DataFrame:
    """Mean absolute differences of Focus and Confusion along the chain of each decision.

    Args:
        student: its `chain_values`, of sources `TEACHERS` and `OWN`.
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
