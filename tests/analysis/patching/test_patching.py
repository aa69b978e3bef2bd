import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.slow_patching import slow_patch
from fixtures.tiny_model import HEADS

from workbench.analysis.patching import patching
from workbench.analysis.patching.effects import causal_effects
from workbench.analysis.patching.patching import (
    EVENT_COLUMNS,
    EventCache,
    baseline,
    baseline_rows,
    joint_effects,
    sweep,
    sweep_event,
)
from workbench.analysis.readout import Roles, focus_confusion, select_options
from workbench.errors import InputError
from workbench.phases import RUNS


@pytest.mark.parametrize("evidence_first", [True, False])
def test_every_run_equals_patching_one_by_one(model, make_event, evidence_first):
    event = make_event(3, evidence_first=evidence_first)
    groups = [[(0, 1)], [(2, 3)], [(1, 0), (1, 2), (2, 0)]]
    frame = sweep_event(model, event, groups)
    assert len(frame) == len(groups) * 2 * len(RUNS)
    for row in frame.itertuples():
        expected = slow_patch(model, event, *RUNS[row.run], groups[row.target], row.positions)
        assert (row.focus, row.confusion) == pytest.approx(expected, abs=1e-5)


def test_patching_every_head_over_the_span_gives_the_other_run(model, event, base):
    """Far and clean share the suffix, so with all heads replaced there nothing differs."""
    frame = sweep_event(model, event, [HEADS], ["span"]).set_index("run")
    rows = base[(base["id"] == "p0") & (base["event"] == 0)].set_index("variant")
    for run, (_, source) in RUNS.items():
        assert frame.loc[run, "focus"] == pytest.approx(rows.loc[source, "focus"], abs=1e-5)


def test_a_given_cache_is_used(model, event):
    cache = EventCache.of(model, event)
    flipped = {"far": "near", "near": "far", "clean": "clean"}
    z = {name: cache.z[other] for name, other in flipped.items()}
    swapped = EventCache(z, cache.bases, cache.near_label)
    a = sweep_event(model, event, [[(1, 1)]], cache=cache)
    b = sweep_event(model, event, [[(1, 1)]], cache=swapped)
    pd.testing.assert_frame_equal(a, sweep_event(model, event, [[(1, 1)]]))
    runs = ["clean_with_far", "clean_with_near"]
    a, b = (frame.set_index(["positions", "run"])["focus"] for frame in (a, b))
    for where in ("decision", "span"):
        assert a[where, runs[0]] == pytest.approx(b[where, runs[1]])
        assert a[where, runs[0]] != pytest.approx(a[where, runs[1]], abs=1e-7)


def test_sweep_gives_one_frame_per_event(model, prompts, halves):
    heads, labels = [(0, 0), (2, 1)], ["nominated", "control"]
    options = {"halves": halves, "group": labels}
    frames = list(sweep(model, prompts, heads, ["decision"], **options))
    assert [(f["id"][0], f["event"][0]) for f in frames] == [(e.id, e.event) for e in prompts]
    assert list(frames[0].columns) == EVENT_COLUMNS
    assert set(frames[-1]["half"]) == {"verify"}
    named = frames[0][["layer", "head", "group"]].drop_duplicates().to_numpy().tolist()
    assert named == [[0, 0, "nominated"], [2, 1, "control"]]


def test_set_of_one_head_has_the_head_s_own_effect(model, prompts, base, halves):
    heads = [(0, 2), (2, 1)]
    frames = pd.concat(sweep(model, prompts, heads, halves=halves))
    single = causal_effects(frames, base, halves=("verify",), n_resamples=50)
    seen = []
    options = {"n_resamples": 50, "progress": lambda *done: seen.append(done)}
    joint = joint_effects(model, prompts, base, [[head] for head in heads], **options)
    assert seen == [(1, 2), (2, 2)]  # only the verifying half is run
    keys = ["target", "positions", "measure"]
    single = single.assign(target=single["layer"] // 2).sort_values(keys)
    joint = joint.sort_values(keys)
    for column in ("effect", "low", "high", "n"):
        np.testing.assert_allclose(joint[column], single[column], atol=1e-6)


@pytest.mark.parametrize(
    ("clean", "far", "near", "counts_far", "counts_near"),
    [
        pytest.param((0.9, 0.1), (0.2, 0.1), (0.9, 0.8), True, True, id="does the task"),
        pytest.param((0.9, 0.1), (0.75, 0.1), (0.9, 0.8), False, True, id="focus did not fall"),
        pytest.param((0.9, 0.1), (0.2, 0.1), (0.9, 0.25), True, False, id="confusion did not rise"),
        pytest.param((0.9, 0.55), (0.2, 0.1), (0.9, 0.9), False, False, id="clean is confused"),
        pytest.param((0.45, 0.1), (0.1, 0.1), (0.9, 0.9), False, False, id="clean is unfocused"),
    ],
)
def test_baseline_says_whether_an_event_counts(clean, far, near, counts_far, counts_near):
    table = pd.DataFrame(baseline_rows(*torch.tensor([clean, far, near]).T))
    assert table["variant"].tolist() == ["clean", "far", "near"]
    assert (table["counts_far"] == counts_far).all()
    assert (table["counts_near"] == counts_near).all()
    np.testing.assert_allclose(table["p_gold"], table["focus"] * (1 - table["confusion"]))


def test_baseline_names_the_event_that_the_model_cannot_run(model, prompts, halves, monkeypatch):
    bad, plain = prompts.events[1], model.run

    def run(sequences, *args, **kwargs):
        if bad.clean in sequences:
            raise InputError("sequence 1: logits that are no numbers")
        return plain(sequences, *args, **kwargs)

    monkeypatch.setattr(model, "run", run)
    for tokens in (1, 4096):  # an event in a forward, or several
        monkeypatch.setattr(model.pack_budget, "tokens", tokens)
        named = rf"prompt '{bad.id}' event {bad.event}: sequence 1: "
        with pytest.raises(InputError, match=named):
            baseline(model, prompts, halves)


def test_several_events_in_one_forward_give_the_same_baseline(model, prompts, halves, monkeypatch):
    tables, sizes, plain = [], [], model.run

    def run(sequences, *args, **kwargs):
        sizes.append(len(sequences))
        return plain(sequences, *args, **kwargs)

    monkeypatch.setattr(model, "run", run)
    for tokens in (1, 4096):
        monkeypatch.setattr(model.pack_budget, "tokens", tokens)
        tables.append(baseline(model, prompts, halves))
    assert sizes == [3] * len(prompts) + [3 * len(prompts)]
    pd.testing.assert_frame_equal(*tables, atol=1e-6, rtol=0)


def test_joint_effects_do_not_run_kept_events_again(model, prompts, halves, monkeypatch):
    base = baseline(model, prompts, halves)
    given = (model, prompts, base, [[(0, 0), (1, 1)]], ["span"])
    kept = {}
    whole = joint_effects(*given, halves=["all"], n_resamples=20, kept=kept)
    assert sorted(kept) == list(range(len(prompts)))
    del kept[1]
    again = []
    sweep = patching.sweep_event
    monkeypatch.setattr(
        patching, "sweep_event", lambda *a, **k: again.append(a[1]) or sweep(*a, **k)
    )
    rest = joint_effects(*given, halves=["all"], n_resamples=20, kept=kept)
    assert again == [prompts.events[1]]
    pd.testing.assert_frame_equal(whole, rest)


def test_baseline_reads_each_variant_with_the_clean_roles(model, prompts, halves):
    table = baseline(model, prompts, halves).set_index(["id", "event", "variant"])
    assert len(table) == 3 * len(prompts)
    for event in prompts:
        for variant in ("clean", "far", "near"):
            logits = select_options(model.run([event.variant(variant)])[0].logits, event)
            focus, confusion = focus_confusion(logits, Roles.of(event))
            row = table.loc[(event.id, event.event, variant)]
            got = row[["focus", "confusion"]].tolist()
            assert got == pytest.approx([focus.item(), confusion.item()], abs=1e-6)
            assert row["half"] == halves.of(event.id)


def test_bad_requests_are_named(model, event, prompts, base):
    with pytest.raises(InputError, match="layer 7, head 0"):
        sweep_event(model, event, [[(7, 0)]])
    with pytest.raises(InputError, match="decision, span"):
        sweep_event(model, event, [[(0, 0)]], ["answer"])
    with pytest.raises(InputError, match="nothing to patch"):
        sweep_event(model, event, [[]])
    with pytest.raises(InputError, match="no event lies in half choose"):
        joint_effects(model, prompts, base.assign(half="verify"), [[(0, 0)]], halves=("choose",))
