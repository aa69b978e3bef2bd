from functools import cache

import pytest
from fixtures.plain_hooks import plain_margins, restored

from workbench.errors import InputError
from workbench.studies.planted.kinds import KINDS, kind_named
from workbench.studies.planted.models import plant_llama

SHAPE = (3, 8, 4)


@cache
def planted(kind: str, without: tuple[str, ...] = ()):
    """A model, place by part, and a few prompts."""
    model, place, prompts = plant_llama(3, *SHAPE, kind=kind, n_prompts=4, without=without)
    return model.eval(), place, prompts.events


def effect(kind: str, *parts: str) -> tuple[float, float]:
    model, place, events = planted(kind)
    return restored(model, events, [place[part] for part in parts])


def does_task(kind: str, *without: str) -> tuple[bool, bool]:
    """Whether the clean prompts' right cluster wins, and the right label inside it."""
    model, _, events = planted(kind, without)
    margins = [plain_margins(model, event, "clean") for event in events]
    return all(bool(m[0] > 0) for m in margins), all(bool(m[1] > 0) for m in margins)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_does_its_task_and_both_counterfactuals_move_it(kind):
    model, _, events = planted(kind)
    for event in events:
        clean, far, near = (plain_margins(model, event, name) for name in ("clean", "far", "near"))
        assert clean[0] > 2 and clean[1] > 0.5
        assert far[0] < -2
        assert near[0] > 2 and near[1] < -0.5


@pytest.mark.parametrize("kind", KINDS)
def test_decoys_restore_nothing_and_the_declared_heads_together_all(kind):
    parts = KINDS[kind].all_parts
    decoys = [part.name for part in parts if part.pool == "decoy"]
    assert effect(kind, *decoys) == pytest.approx((0, 0), abs=0.05)
    every = [part.name for part in parts if part.pool != "decoy"]
    assert effect(kind, *every) == pytest.approx((1, 1), abs=0.1)


@pytest.mark.parametrize(
    "kind", ["chains", "carrier", "carrier_options", "carrier_mlp", "mover", "suppressor", "query"]
)
def test_each_declared_head_alone_moves_its_phase(kind):
    for part in KINDS[kind].parts:
        coarse, fine = effect(kind, part.name)
        if part.pool == "coarse":
            assert coarse > 0.6 and abs(fine) < 0.05
        elif part.pool == "carrier":
            assert coarse > 0.9 and fine > 0.9
        elif part.pool == "suppressor":
            assert fine < -0.3
        else:
            assert fine > 0.9 and fine > coarse + 0.5


def test_a_head_for_each_cluster_restores_its_own_share():
    assert effect("clusters", *(f"filter_{at}" for at in range(4)))[0] > 0.6
    for at in range(4):
        assert effect("clusters", f"filter_{at}")[0] < 0.4


@pytest.mark.parametrize("kind", ["redundant_2", "redundant_3"])
def test_redundant_heads_each_suffice_alone(kind):
    for step in ("filter", "match"):
        heads = [part.name for part in KINDS[kind].parts if part.name.startswith(step)]
        for kept in heads:
            others = [name for name in heads if name != kept]
            assert does_task(kind, *others) == (True, True)
    matches = [part.name for part in KINDS[kind].parts if part.name.startswith("match")]
    assert not does_task(kind, *matches)[1]


def test_two_of_three_redundant_heads_do_what_one_cannot():
    for at, step in enumerate(("filter", "match")):
        assert effect("redundant_3", step)[at] < 0.05
        assert effect("redundant_3", step, f"{step}_2")[at] > 0.6


def test_a_backup_comes_in_only_when_the_main_head_is_taken_away():
    for at, step in enumerate(("filter", "match")):
        assert does_task("hydra", step)[at]
        assert does_task("hydra", f"{step}_backup")[at]
        for alone in (step, f"{step}_backup"):
            assert effect("hydra", alone)[at] == pytest.approx(0, abs=0.05)
        assert effect("hydra", step, f"{step}_backup")[at] > 0.6
    assert not does_task("hydra", "match", "match_backup")[1]


def test_no_voter_matters_alone_or_with_another_and_most_of_them_do():
    voters = [part.name for part in KINDS["mlp"].parts if part.name.startswith("voter")]
    assert effect("mlp", voters[0]) == pytest.approx((0, 0), abs=0.05)
    assert effect("mlp", *voters[:2]) == pytest.approx((0, 0), abs=0.05)
    assert effect("mlp", *voters[:5])[1] > 0.9


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="kind 'chain' is not one of chains, carrier"):
        kind_named("chain")
