import pytest
import torch
from fixtures.slow_patching import patched_slope

from workbench.analysis.patching.patching import EventCache
from workbench.analysis.patching.screening import promising, screen_heads
from workbench.analysis.readout import coarse_margin, near_miss_margin
from workbench.errors import InputError
from workbench.phases import RUNS


@pytest.fixture
def screen(model, event):
    return screen_heads(model, [event])


def test_an_estimate_is_the_size_of_the_margin_s_slope_in_the_patched_run(model, event, screen):
    """Against a small step of exact patching from the base towards the source, head by head."""
    cache = EventCache.of(model, event)
    assert set(screen["run"]) == set(RUNS) - {"far_with_near"}
    for run in screen["run"].unique():
        base, source = RUNS[run]
        start, change = cache.z[base], cache.z[source] - cache.z[base]
        margin = coarse_margin if "far" in run else near_miss_margin
        slope = patched_slope(model, event, cache.bases[base], start, change, margin).abs()
        got = torch.tensor(screen.loc[screen["run"] == run, "estimate"].to_numpy())
        torch.testing.assert_close(got, slope, rtol=0.01, atol=0.002 * float(slope.max()))


def test_events_are_averaged_over_the_runs_they_are_wanted_for(model, make_event):
    events = [make_event(1), make_event(2)]
    wanted = {0: ("far_with_clean",), 1: ("far_with_clean", "clean_with_near")}
    both = screen_heads(model, events, runs_of=lambda event: wanted[events.index(event)])
    alone = [
        screen_heads(model, [event]).set_index(["run", "layer", "head"]).sort_index()
        for event in events
    ]
    table = both.set_index(["run", "layer", "head"]).sort_index()
    mean = (alone[0].loc["far_with_clean"] + alone[1].loc["far_with_clean"]) / 2
    torch.testing.assert_close(
        torch.tensor(table.loc["far_with_clean", "estimate"].to_numpy()),
        torch.tensor(mean["estimate"].to_numpy()),
    )
    assert set(both["run"]) == {"far_with_clean", "clean_with_near"}
    assert table.loc["far_with_clean", "n"].unique().tolist() == [2]
    assert table.loc["clean_with_near", "n"].unique().tolist() == [1]


def test_promising_heads_are_first_in_any_run(screen):
    kept = promising(screen, 2)
    assert kept == sorted(kept)
    for run in RUNS:
        rows = screen[screen["run"] == run].set_index(["layer", "head"])["estimate"]
        assert set(rows.nlargest(2).index) <= set(kept)
    assert len(kept) <= 2 * len(RUNS)
    assert len(promising(screen, 99)) == 12


def test_nothing_to_screen_with_is_an_error(model, event):
    for events, runs in (([], tuple(RUNS)), ([event], ())):
        with pytest.raises(InputError, match="no event is a valid pair"):
            screen_heads(model, events, runs_of=lambda _, runs=runs: runs)
