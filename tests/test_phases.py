"""Records of the two phases, and which events count for them."""

import pandas as pd
import pytest

from workbench.phases import PHASES, POOLS, RUNS, runs_that_count, valid_pairs


def test_each_phase_has_runs_of_its_own():
    assert tuple(PHASES) == POOLS
    for phase in PHASES.values():
        assert RUNS[phase.denoising] == (phase.counterfactual, "clean")
        assert RUNS[phase.noising] == ("clean", phase.counterfactual)


@pytest.mark.parametrize(
    ("far", "near", "runs"),
    [
        (
            True,
            True,
            [
                *("far_with_clean", "clean_with_far", "near_with_clean", "clean_with_near"),
                "far_with_near",
            ],
        ),
        (True, False, ["far_with_clean", "clean_with_far", "far_with_near"]),
        (False, True, ["near_with_clean", "clean_with_near"]),
        (False, False, []),
    ],
)
def test_only_valid_pairs_are_patched(prompts, far, near, runs):
    row = {"counts_far": far, "counts_near": near}
    assert list(runs_that_count(row)) == runs
    first = prompts.events[0]
    rows = [
        {"id": event.id, "event": event.event, "variant": variant, **row}
        if event == first
        else {
            "id": event.id,
            "event": event.event,
            "variant": variant,
            "counts_far": False,
            "counts_near": False,
        }
        for event in prompts
        for variant in ("clean", "far", "near")
    ]
    assert valid_pairs(prompts, pd.DataFrame(rows)) == ([first] if runs else [])
