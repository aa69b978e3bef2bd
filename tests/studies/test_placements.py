import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.studies import placements
from workbench.studies.found import Found
from workbench.studies.placements import by_kind, compare, lines, placements_of, run_placements
from workbench.studies.planted.kinds import NAMES
from workbench.studies.planted.models import plant


def test_compare_writes_declared_and_found_heads_and_counts_decoys():
    planted = plant(0, 3, 4, n_prompts=2)
    coarse, refine = (planted.pools[name] for name in ("coarse", "refine"))
    [missed, *_], [decoy, *_] = sorted(coarse), sorted(planted.decoys)
    found = Found({"coarse": (coarse - {missed}) | {decoy}, "mover": refine}, 1, 2)
    row = compare(planted, found)
    assert f"{missed[0]}-{missed[1]}" in row["coarse_true"].split()
    assert f"{missed[0]}-{missed[1]}" not in row["coarse_found"].split()
    assert f"{decoy[0]}-{decoy[1]}" in row["coarse_found"].split()
    assert row["refine_found"] == "" and row["mover_true"] == ""
    assert row["mover_found"] == row["refine_true"]
    assert row["decoys_pooled"] == 1


def a_table(*rows: tuple[str, dict[str, str], int]) -> pd.DataFrame:
    """Rows of (kind, the columns that are not empty, decoys)."""
    blank = {f"{name}_{side}": "" for name in NAMES for side in ("true", "found")}
    return pd.DataFrame(
        [{"kind": kind, **blank, **given, "decoys_pooled": n} for kind, given, n in rows]
    )


def test_precision_and_recall_count_heads_over_the_models_of_a_kind():
    table = a_table(
        ("chains", {"coarse_true": "0-1 1-2", "coarse_found": "0-1"}, 0),
        ("chains", {"coarse_true": "0-0 1-1", "coarse_found": "0-0 1-1 2-2"}, 1),
        ("hydra", {"refine_true": "0-3", "mover_found": "1-3"}, 0),
    )
    rows = {(row["kind"], row["pool"]): row for row in by_kind(table).to_dict("records")}
    assert set(rows) == {("chains", "coarse"), ("hydra", "refine"), ("hydra", "mover")}
    chains = rows["chains", "coarse"]
    assert (chains["placements"], chains["declared"], chains["found"]) == (2, 4, 4)
    assert chains["precision"] == chains["recall"] == 0.75
    assert (chains["exact"], chains["decoys_pooled"]) == (0, 1)
    assert rows["hydra", "refine"]["recall"] == 0
    assert rows["hydra", "mover"]["precision"] == 0
    assert lines(table) == [
        "chains (2 models): coarse 3 of 4 and 1 wrong; 1 decoys pooled",
        "hydra (1 models): refine UNDETECTED (0 of 1), 1 wrongly called mover; 0 decoys pooled",
    ]


def test_placements_take_only_shapes_with_room_and_twenty_differ():
    cases = placements_of(["chains", "redundant_3"], 20, 5)
    assert [case.id for case in cases[:2]] == ["chains-5", "redundant_3-5"]
    assert len({case.id for case in cases}) == 40
    assert (4, 8, 2) in {case.shape for case in cases if case.kind == "chains"}
    assert (4, 8, 2) not in {case.shape for case in cases if case.kind == "redundant_3"}


@pytest.mark.parametrize(
    ("kinds", "n", "message"),
    [
        (["chains"], 0, "n is 0 models"),
        (["chain"], 1, "kind 'chain' is not one of"),
        (["mlp", "mlp"], 1, "'mlp' is named twice"),
    ],
)
def test_bad_studies_are_refused(kinds, n, message):
    with pytest.raises(InputError, match=message):
        placements_of(kinds, n, 0)


def test_a_stopped_study_goes_on_with_the_next_model(tmp_path, monkeypatch):
    made = []

    def finds(model, prompts, *, seed):
        if len(made) == 1:
            made.append("stopped")
            raise KeyboardInterrupt
        made.append(seed)
        return Found({}, 1, 0)

    monkeypatch.setattr(placements, "find_pools", finds)
    path = tmp_path / "placements.csv"
    with pytest.raises(KeyboardInterrupt):
        run_placements(path, ["carrier"], 3, n_prompts=2)
    table = run_placements(path, ["carrier"], 3, n_prompts=2)
    assert made == [0, "stopped", 1, 2]
    assert table["id"].tolist() == ["carrier-0", "carrier-1", "carrier-2"]
    assert table["carrier_found"].tolist() == [""] * 3
    with pytest.raises(InputError, match="other placements than asked for"):
        run_placements(path, ["carrier"], 2, n_prompts=2)
