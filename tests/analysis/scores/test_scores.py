from itertools import chain

import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.event_scores import event_scores

from workbench.analysis.patching.patching import EventCache
from workbench.analysis.readout import (
    MARGINS,
    Roles,
    coarse_margin,
    near_miss_margin,
    select_options,
)
from workbench.analysis.scores.attention import (
    attention_routes,
    decision_mass,
    family_contrasts,
    note_stretches,
)
from workbench.analysis.scores.attribution import frozen_parameters, gradient_run, head_effects
from workbench.analysis.scores.scores import EventScores, score_event, score_heads, scores_table
from workbench.phases import PHASES
from workbench.prompts.prompt import PromptSet


@pytest.fixture(scope="module")
def table(model, prompts) -> pd.DataFrame:
    return score_heads(model, prompts, n_resamples=100, n_permutations=99)


def test_columns_are_those_of_the_scores_table(table):
    routes = {
        "coarse": ["evidence", "decision", "decision_evidence"],
        "refine": [],
        "refine_direct": [],
        "coarse_attribution": ["far", "clean"],
        "refine_attribution": ["near", "clean"],
    }
    scores = [*routes]
    own = {name: [f"{name}{end}" for end in ("", "_low", "_high")] for name in scores}
    for name, of in routes.items():
        own[name] += [f"{name}_p", f"{name}_q"] if name != "refine_direct" else []
        own[name] += [f"{name}_{route}" for route in ["route", *of]] if of else []
    assert list(table.columns) == [
        "layer",
        "head",
        *chain.from_iterable(own.values()),
        "output_norm",
        "n",
    ]
    assert [*zip(table["layer"], table["head"], strict=True)] == [*np.ndindex(3, 4)]
    assert (table["n"] == 5).all()
    ends = [f"{name}_{end}" for name in scores for end in ("low", "high")]
    assert table[ends].isna().all(axis=None)  # five prompts have no interval
    assert not table.drop(columns=ends).isna().any(axis=None)


def test_coarse_score_is_the_larger_route_and_names_it(table):
    routes = table[["coarse_evidence", "coarse_decision", "coarse_decision_evidence"]]
    np.testing.assert_allclose(table["coarse"], routes.max(axis=1))
    assert ("coarse_" + table["coarse_route"] == routes.idxmax(axis=1)).all()


def test_estimates_are_means_over_events(model, prompts, table):
    weights = model.output_weights()
    events = [score_event(model, event, weights) for event in prompts]
    for name in ("refine", "refine_direct"):
        mean = torch.stack([event.own(name) for event in events]).mean(0)
        np.testing.assert_allclose(table[name], mean.flatten())


@pytest.mark.parametrize("evidence_first", [True, False])
def test_event_scores_equal_the_formulas(model, make_event, evidence_first):
    event = make_event(7, evidence_first=evidence_first)
    weights = model.output_weights()
    got = score_event(model, event, weights)
    cache = EventCache.of(model, event)

    pattern = model.run([event.clean], ["blocks.1.attn.hook_pattern"])[0].activations.popitem()[1]
    spans = [option.span for option in event.options]
    routes = attention_routes(pattern, spans, event.evidence)
    weights_of = torch.stack([*family_contrasts(event).values()]).float()
    contrasts = torch.tensordot(weights_of, routes, dims=1)
    torch.testing.assert_close(got.values["coarse"].parts[0].values[:, 1].float(), contrasts)
    mass = decision_mass(pattern, note_stretches(event))
    evidence = note_stretches(event).index(event.evidence)
    rest = [mass[at] for at in range(len(mass)) if at != evidence]
    apart = mass[evidence] - (torch.stack(rest).mean(0) if rest else mass[evidence])
    torch.testing.assert_close(got.own("coarse")[1, :, 2].float(), apart)

    def effect(variant, margin, to="clean"):
        with frozen_parameters(model.bridge):
            run = gradient_run(model, event.variant(variant))
            value = margin(select_options(run.logits, event), Roles.of(event))
            return head_effects(run, [value], cache.z[to], weights)

    near = effect("near", near_miss_margin)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(got.own("refine"), near.total[0], **close)
    torch.testing.assert_close(got.own("refine_direct"), near.direct[0], **close)
    far = effect("far", coarse_margin)
    torch.testing.assert_close(got.own("coarse_attribution")[..., 0], far.total[0], **close)
    for phase in PHASES.values():
        at_clean = effect("clean", MARGINS[phase.readout], to=phase.counterfactual)
        own = got.own(f"{phase.name}_attribution")[..., 1]
        torch.testing.assert_close(own, -at_clean.total[0], **close)
    norm = (cache.z["clean"][2, -1, 3] @ weights[2, 3]).norm()
    assert got.output_norm[2, 3].item() == pytest.approx(norm.item(), rel=1e-5)


def planted_scores(seed: int) -> EventScores:
    """Noise, but head (0, 1) filters by the decision route and head (1, 0) refines."""
    return event_scores(seed, coarse={(0, 1): 3.0}, refine={(1, 0): 3.0}, routes=(1,))


def test_planted_heads_stand_out():
    scores = [planted_scores(seed) for seed in range(20)]
    table = scores_table(scores, [str(seed) for seed in range(20)], n_permutations=999)
    table = table.set_index(["layer", "head"])
    assert table["coarse_q"].idxmin() == (0, 1)
    assert table["refine_q"].idxmin() == (1, 0)
    assert (table["coarse_q"] < 0.05).sum() == (table["refine_q"] < 0.05).sum() == 1
    row = table.loc[(0, 1)]
    assert row["coarse_route"] == "decision"
    assert row["coarse_low"] < row["coarse"] < row["coarse_high"]


def test_same_seed_same_table_and_progress_is_told(model, prompts, table):
    seen = []
    options = {"n_resamples": 100, "n_permutations": 99}
    again = score_heads(model, prompts, **options, progress=lambda *done: seen.append(done))
    pd.testing.assert_frame_equal(again, table)
    assert seen == [(done, 5) for done in range(1, 6)]


def test_one_event_is_enough(model, event):
    table = score_heads(model, PromptSet("one", (event,)), n_resamples=10, n_permutations=10)
    assert table["refine"].notna().all() and table["refine_low"].isna().all()
