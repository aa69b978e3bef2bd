"""A score is declared once: what it takes to add one that nominates, shown by one not shipped."""

import numpy as np
import pandas as pd
import pytest
import torch

from workbench.analysis.scores.nulls import RoleValues, coarse_null
from workbench.analysis.scores.registry import SCORES, Score, known_scores, register
from workbench.analysis.scores.scores import score_heads
from workbench.plots.heatmaps import score_heatmaps
from workbench.runs.patch import nominate


def evidence_only(runs) -> RoleValues:
    """CoarseScore by the evidence route alone, which the clean run already has."""
    options = SCORES["coarse"].of_event(runs).parts[0]
    return options._replace(values=options.values[..., :1])


@pytest.fixture
def added(monkeypatch):
    known_scores()
    monkeypatch.setattr("workbench.analysis.scores.registry.SCORES", dict(SCORES))
    return register(
        Score(
            "evidence",
            title="Evidence score",
            unit="attention",
            of_event=evidence_only,
            routes=("only",),
            null=coarse_null,
            nominates=True,
        )
    )


def test_a_registered_score_is_in_table_nomination_and_figures(model, prompts, added):
    table = score_heads(model, prompts, n_resamples=10, n_permutations=10)
    own = [f"evidence{end}" for end in ("", "_low", "_high", "_p", "_q", "_route", "_only")]
    assert [name for name in table if name.startswith("evidence")] == own
    assert (table["evidence"] - table["coarse_evidence"]).abs().max() < 1e-12

    ranked = {name: table[name] for name in ("coarse", "refine", "evidence")}
    ranked |= {name: table[name].abs() for name in ("coarse_attribution", "refine_attribution")}
    best = [table.loc[rank.idxmax(), ["layer", "head"]].tolist() for rank in ranked.values()]
    assert nominate(table, 1) == sorted({(layer, head) for layer, head in best})
    drawn = score_heatmaps(table, {}, {added.name: (added.title, added.unit)})
    assert drawn["evidence"].layout.title.text == "Evidence score"
    assert "evidence only: " in drawn["evidence"].data[0].hovertext[0][0]


def test_an_attribution_ranks_by_size_and_by_the_end_that_says_more():
    """Head 0-1 has no gradient in the far run, where it waits for another, and 1-0 works against
    the gold: both are nominated, and no score of attention or sign would."""
    score = known_scores()["coarse_attribution"]
    means = torch.zeros(2, 2, 2)
    means[0, 1], means[1, 0], means[1, 1] = torch.tensor([[0, 2.0], [-3, 1], [0.5, 0.4]])
    found = score.of_means(means)
    assert found.tolist() == [[0, 2], [-3, 0.5]]
    assert [score.routes[at] for at in score.best_route(means)[:, 0]] == ["far", "far"]
    assert score.routes[score.best_route(means)[0, 1]] == "clean"
    layer, head = (at.flatten() for at in np.indices((2, 2)))
    table = pd.DataFrame({"layer": layer, "head": head, score.name: found.flatten()})
    assert nominate(table, 2) == [(0, 1), (1, 0)]


def test_the_scores_that_come_with_the_workbench():
    nominating = ["coarse", "refine", "coarse_attribution", "refine_attribution"]
    assert sorted(known_scores()) == sorted([*nominating, "refine_direct"])
    assert [name for name, one in known_scores().items() if one.nominates] == nominating
