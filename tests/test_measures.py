"""The causal measures agree with the phases that they belong to, and with one another."""

import pytest

from workbench.measures import DIFFERENCES, MEASURES
from workbench.phases import PHASES, RUNS


def test_each_phase_is_proven_by_a_denoising_measure_of_its_own():
    for name, phase in PHASES.items():
        chief = MEASURES[phase.chief]
        assert (chief.pool, chief.direction, chief.value) == (name, "denoising", phase.readout)


@pytest.mark.parametrize(
    ("measure", "run", "start", "sign", "valid"),
    [
        ("coarse_restore", "far_with_clean", "far", 1, ["far"]),
        ("coarse_disrupt", "clean_with_far", "clean", -1, ["far"]),
        ("refine_reduce", "near_with_clean", "near", -1, ["near"]),
        ("refine_boost", "clean_with_near", "clean", 1, ["near"]),
        ("refine_boost_abs", "clean_with_near", "clean", 1, ["near"]),
        ("cluster_restore", "far_with_near", "far", 1, ["far"]),
        ("label_swap", "far_with_near", None, 1, ["far", "near"]),
        ("coarse_restore_margin", "far_with_clean", "far", 1, ["far"]),
        ("coarse_disrupt_margin", "clean_with_far", "clean", -1, ["far"]),
        ("refine_reduce_margin", "near_with_clean", "near", 1, ["near"]),
        ("refine_boost_margin", "clean_with_near", "clean", -1, ["near"]),
        ("cluster_restore_margin", "far_with_near", "far", 1, ["far"]),
        ("label_swap_margin", "far_with_near", "far", 1, ["far", "near"]),
    ],
)
def test_a_measure_is_read_from_its_phase_and_direction(measure, run, start, sign, valid):
    one = MEASURES[measure]
    assert (one.run, one.start, one.sign) == (run, start, sign)
    assert one.counts == tuple(f"counts_{variant}" for variant in valid)
    assert start in (RUNS[run][0], None)


def test_every_measure_stands_in_probability_and_as_a_margin():
    margins = {name for name, one in MEASURES.items() if one.margin}
    undivided = {one.absolute for one in MEASURES.values()}
    assert margins == {f"{name}_margin" for name in set(MEASURES) - margins - undivided}
    assert all(MEASURES[name].value.endswith("_margin") for name in margins)
    assert {name for pair in DIFFERENCES.values() for name in pair} <= set(MEASURES)
