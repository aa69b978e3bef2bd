"""A score is declared once: what it takes to add one that nominates, shown by one not shipped."""

import pytest

from workbench.analysis.scores.nulls import RoleValues, coarse_null
from workbench.analysis.scores.registry import SCORES, Score, known_scores, register
from workbench.analysis.scores.scores import score_heads
from workbench.plots.heatmaps import score_heatmaps
from workbench.runs.patch import nominate


def evidence_only(runs) -> RoleValues:
    """CoarseScore by the evidence route alone, which the clean run already has."""
    values = SCORES["coarse"].of_event(runs)
    return values._replace(values=values.values[..., :1])


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

    def first(*names: str) -> list:
        best = [table.loc[table[name].idxmax(), ["layer", "head"]] for name in names]
        return sorted({(int(one["layer"]), int(one["head"])) for one in best})

    assert nominate(table, 1) == first("coarse", "refine", "evidence")
    drawn = score_heatmaps(table, {}, {added.name: (added.title, added.unit)})
    assert drawn["evidence"].layout.title.text == "Evidence score"
    assert "evidence only: " in drawn["evidence"].data[0].hovertext[0][0]


def test_the_scores_that_come_with_the_workbench():
    assert list(known_scores()) == ["coarse", "refine", "refine_direct", "coarse_attribution"]
    assert [name for name, one in known_scores().items() if one.nominates] == ["coarse", "refine"]
