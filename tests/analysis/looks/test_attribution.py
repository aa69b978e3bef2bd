import numpy as np
import pytest

from workbench.analysis.looks.attribution import logit_attribution
from workbench.analysis.looks.look import look


def test_every_head_by_role_of_options(model, event):
    table = logit_attribution(model, event)
    assert len(table) == model.info.n_layers * model.info.n_heads
    assert table["gold_near"].abs().is_monotonic_decreasing
    row = table.iloc[0]
    seen = look(model, event, (int(row["layer"]), int(row["head"]))).options
    means = seen.groupby("role")["logit"].mean()
    assert row["gold"] == pytest.approx(means["gold"], rel=1e-5)
    assert row["gold_near"] == pytest.approx(means["gold"] - means["near"], rel=1e-5)
    relevant = seen.loc[seen["role"].isin(["gold", "near"]), "logit"].mean()
    assert row["relevant_far"] == pytest.approx(relevant - means["far"], rel=1e-4)
    assert np.isfinite(table.to_numpy()).all()
