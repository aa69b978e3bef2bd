"""Effects of single events agree with the means over events, and invalid pairs have none."""

import pandas as pd
import pytest

from workbench.analysis.patching import event_effects as module
from workbench.analysis.patching.effects import causal_effects
from workbench.analysis.patching.event_effects import SHOWN, event_effects, patch_event
from workbench.analysis.patching.patching import sweep
from workbench.errors import InputError

HEADS = [(0, 1), (2, 3)]


@pytest.fixture(scope="module")
def swept(model, prompts, halves):
    return pd.concat(sweep(model, prompts, HEADS, ["span"], halves=halves), ignore_index=True)


def test_one_event_is_the_mean_over_it(model, prompts, base, swept):
    found = event_effects(swept, base)
    assert list(found.columns) == ["layer", "head", "id", "event", *SHOWN]
    assert len(found) == len(prompts) * len(HEADS)
    only = swept.loc[swept["id"] == "p2"]
    means = causal_effects(only, base.loc[base["id"] == "p2"], halves=("all",), n_resamples=5)
    own = found.loc[(found["id"] == "p2") & (found["layer"] == 2)].iloc[0]
    for name in ("coarse_restore", "refine_boost_abs", "label_swap_margin"):
        mean = means.loc[(means["measure"] == name) & (means["layer"] == 2), "effect"]
        assert own[name] == pytest.approx(mean.item(), rel=1e-6)


def test_a_measure_of_no_valid_pair_is_missing(base, swept):
    some = base.assign(counts_far=base["id"] != "p1")
    found = event_effects(swept, some).set_index("id")
    assert found.loc["p1", "coarse_restore"].isna().all()
    assert found.loc["p1", "refine_reduce"].notna().all()
    assert found.loc["p2", "coarse_restore"].notna().all()


def test_every_head_of_one_event(model, prompts, base, swept, monkeypatch):
    event = prompts.events[3]
    only = base.loc[base["id"] == event.id]
    monkeypatch.setattr(module, "baseline", lambda *given: only)
    table = patch_event(model, event)
    assert len(table) == model.info.n_layers * model.info.n_heads
    largest = table[["coarse_restore", "refine_reduce"]].abs().max(axis="columns")
    assert largest.is_monotonic_decreasing
    few = patch_event(model, event, ["2-3", (0, 1)])
    pd.testing.assert_frame_equal(patch_event(model, event, "2-3,0-1"), few)
    expected = event_effects(swept, base).set_index(["id", "layer", "head"])
    for row in few.to_dict("records"):
        wanted = expected.loc[(event.id, row["layer"], row["head"])]
        assert row["coarse_restore"] == pytest.approx(wanted["coarse_restore"], rel=1e-4)


def test_what_cannot_be_patched_is_refused(model, event, base, monkeypatch):
    with pytest.raises(InputError, match="valid pair for no phase") as error:
        patch_event(model, event)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="positions"):
        patch_event(model, event, positions="here")
    monkeypatch.setattr(module, "baseline", lambda *given: base.loc[base["id"] == "p2"])
    with pytest.raises(InputError, match="layer 9"):
        patch_event(model, event, ["9-0"])
    with pytest.raises(InputError, match="head 0-1 is listed twice"):
        patch_event(model, event, ["0-1", (0, 1)])
