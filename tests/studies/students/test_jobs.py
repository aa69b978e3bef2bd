from dataclasses import replace

import pytest

from workbench.distill.arms import ARMS
from workbench.errors import InputError
from workbench.studies.students.jobs import Job, Plan, best_settings, parse_series

JOB = Job("phases", "paper", 10, 300, 1e-3, 3.0, 8000, 0)
PLAN = Plan(
    arms=["cot", "phases", "phases@random"],
    heads=["paper", "random"],
    layers=[10],
    steps=[300],
    rates=[3e-4, 1e-3],
    factors=[0.3, 1.0, 3.0],
    rates_alone=[3e-4, 1e-3],
    traces=[8000],
    seeds=range(1),
    few={},
)


def result(job, exact, decisions="000", finished=True):
    marks = {"exact": exact, "decisions": decisions}
    return {"job": job.to_json(), "finished": finished, "curve": [{"select": marks}]}


def test_a_factor_is_of_all_terms_but_the_chains():
    own, loss = ARMS["phases"].loss, JOB.loss
    assert loss.chain == own.chain and set(loss.on) == set(own.on)
    assert loss.p1_attention == pytest.approx(3 * own.p1_attention)
    without = replace(JOB, arm="phases-p1").loss
    assert not without.lambda_p1 and without.p2_loop == pytest.approx(3 * own.p2_loop)


def test_the_same_grid_for_every_arm_middle_first_and_arms_innermost():
    jobs = PLAN.grid()
    counts = {name: sum(job.series == name for job in jobs) for name in {j.series for j in jobs}}
    assert counts == {"cot": 2, "phases@paper": 6, "phases@random": 6}
    assert [job.series for job in jobs[:3]] == ["cot", "phases@paper", "phases@random"]
    assert {job.factor for job in jobs[:6]} == {1.0}, "what is cut off is the rim"
    alone = replace(PLAN, rates=[1e-3], rates_alone=[3e-4, 1e-3, 2e-3]).grid()
    rates = [job.rate for job in alone if job.series == "cot"]
    assert rates == [1e-3, 3e-4, 2e-3] and sum(job.arm == "phases" for job in alone) == 6
    assert len({job.name for job in jobs}) == len(jobs)


def test_seeds_are_outermost_and_fewer_where_asked():
    jobs = replace(
        PLAN,
        seeds=range(5),
        few={"phases@random": 2},
        rates=[1e-3],
        factors=[1.0],
        rates_alone=[1e-3],
    )
    found = [(job.seed, job.series) for job in jobs.grid()]
    assert found == sorted(found, key=lambda one: one[0])
    assert sum(series == "phases@random" for _, series in found) == 2
    assert sum(series == "cot" for _, series in found) == 5


def test_the_best_on_the_prompts_to_select_on_is_chosen_and_kin_have_it_too():
    first, second = replace(JOB, factor=1.0), replace(JOB, factor=0.3)
    results = [
        result(replace(JOB, rate=3e-4), "110"),
        result(first, "110", "111"),
        result(second, "100"),
        result(replace(first, seed=1), "111"),
        result(replace(second, steps=600), "111"),
        result(replace(JOB, factor=9.0), "111", finished=False),
    ]
    assert best_settings(results) == {("phases@paper", 10): (1e-3, 1.0)}
    plan = replace(PLAN, arms=["cot", "phases-p1", "phases@random"], factors=[3.0])
    assert [(job.series, job.rate, job.factor) for job in plan.chosen(results)] == [
        ("cot", 3e-4, 1.0),
        ("phases-p1@paper", 1e-3, 1.0),
        ("phases@random", 1e-3, 1.0),
    ]


def test_arms_name_their_heads():
    assert parse_series("phases@random", ["paper", "random"]) == ("phases", "random")
    assert parse_series("cot", []) == ("cot", "")
    with pytest.raises(InputError, match="'other' is no head set"):
        parse_series("phases@other", ["paper"])
    with pytest.raises(InputError, match="'paper' is no head set for it"):
        parse_series("cot@paper", ["paper"])
    with pytest.raises(InputError, match="give --heads"):
        parse_series("phases", [])
    with pytest.raises(InputError, match="no student to train"):
        replace(PLAN, seeds=[]).grid()
