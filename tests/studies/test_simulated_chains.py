import random

import pandas as pd

from workbench.labels.icd10cm import category
from workbench.prompts.laterality import LateralityTask
from workbench.studies.simulated_chains import KINDS, rows_of, versions


def test_what_is_left_of_a_chain_and_what_is_answered(space):
    task = LateralityTask(space, {category(label.id) for label in space})
    prompt = task.draw("7", random.Random(0))
    steps, answer = task.chain(prompt), task.answer(prompt)
    written = "".join(f"\n{step}" for step in steps)
    rows = pd.DataFrame(rows_of(task, prompt, f"{written}\nanswer: {' '.join(answer)}"))
    assert len(rows) == len(KINDS) * len(prompt.mentions) and rows["right"].all()
    whole = rows.query("kind == 'whole'")
    assert whole["chain"].unique().tolist() == [f"\nreason:{written}"]
    assert whole["output"].str.strip().tolist() == [one.split()[1] for one in answer]
    assert whole["question"].iloc[1] == "\nanswer: 2" and "answer" not in whole["input"].iloc[0]
    found = versions(task, written, len(prompt.mentions))
    last = steps[-1]
    assert last in found["whole"] and last not in found["undecided"]
    assert last.rpartition(" ")[0] in found["unlettered"] and last not in found["unlettered"]
    kept = [step for step in steps if step.split()[1] in ("in", "as", "side")]
    assert found["undecided"] == "".join(f"\n{step}" for step in kept)


def test_no_option_is_no_output(space):
    task = LateralityTask(space, {category(label.id) for label in space})
    prompt = task.draw("7", random.Random(0))
    for written in ("\n 1 in A B", "\n 1 in A B\nanswer: 1 ? 2"):
        rows = rows_of(task, prompt, written)
        assert not any(row["output"] or row["right"] for row in rows)
