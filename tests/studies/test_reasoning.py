from unittest.mock import Mock

import pandas as pd
import pytest

from workbench.labels.icd10cm import category
from workbench.models.hooked import HookedModel
from workbench.prompts.laterality import LateralityTask
from workbench.prompts.laterality_chain import CONTROL_CUE
from workbench.studies import reasoning
from workbench.studies.reasoning import events_by_depth, follow_reasoning


@pytest.fixture(scope="module")
def task(space) -> LateralityTask:
    return LateralityTask(space, {category(label.id) for label in space})


def test_decisions_are_spread_over_the_depths(task, tokenizer):
    prompts, depth_of = events_by_depth(task, tokenizer, n_prompts=12, seed=0)
    assert sorted(depth_of.values()) == ["0"] * 4 + ["1"] * 4 + ["2+"] * 4
    for event in prompts:
        note = tokenizer.decode(event.clean).partition(" ;\noptions:")[0]
        mention = note.split(f" {event.event + 1} . ")[1].partition(" ;")[0]
        refers = any(sign.isdigit() for sign in mention.rpartition(" , ")[2]) or (
            mention.startswith("as ")
        )
        assert refers == (depth_of[event.id] != "0")


def test_both_formats_are_followed_and_told_apart(task, tokenizer, monkeypatch):
    opened = []

    def follow(model, prompts, reporter, variants, opening):
        opened.append(opening)
        rows = []
        for event in prompts:
            for step, label in enumerate(["direct", "coarse", "other", "fine"]):
                row = {"model": "m", "source": "generated", "id": event.id, "event": event.event}
                row |= {"step": step, "n_steps": 3, "share": step / 3, "offset": step - 1}
                focus = (0.2 if step < 1 else 1.0) - 0.1 * (opening == CONTROL_CUE)
                row |= {"label": label, "focus": focus, "confusion": 0.5 if step < 3 else 0.0}
                rows.append(row | {"p_gold": 0.5})
        return [], pd.DataFrame(rows).astype({"offset": "Int64"})

    monkeypatch.setattr(reasoning, "follow_chains", follow)
    model = Mock(spec=HookedModel, tokenizer=tokenizer)
    found = follow_reasoning(model, task, n_prompts=6, n_resamples=20)
    assert opened == ["\nreason:", CONTROL_CUE]
    cells = found.moments.set_index(["format", "depth", "moment"])["focus"]
    assert cells["shortlists first", "2+", "after coarse"] == pytest.approx(1.0)
    assert cells["sides first", "0", "direct"] == pytest.approx(0.1)
    turns = found.turning_points.query("axis == 'share'").set_index(["format", "depth", "what"])
    assert turns.loc[("shortlists first", "1", "focus"), "at"] == pytest.approx(1 / 3)
    assert turns.loc[("shortlists first", "1", "confusion"), "at"] == pytest.approx(1.0)
