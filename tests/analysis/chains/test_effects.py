from dataclasses import replace

import pandas as pd
import pytest
import torch
from fixtures.tiny_model import HEADS as EVERY_HEAD

from workbench.analysis.chains import effects as module
from workbench.analysis.chains.effects import chain_effects
from workbench.analysis.patching.patching import THRESHOLDS, sweep_event
from workbench.analysis.readout import Roles, focus_confusion
from workbench.errors import InputError
from workbench.models.hooks import replace_z
from workbench.prompts.chain import Chain, ChainCase
from workbench.prompts.prompt import VARIANTS

HEADS = [(0, 1), (2, 3)]
CUE = 2


def case_of(event, same_chain=False) -> ChainCase:
    """Own chains: an earlier step that all share, coarse (4 is an option), fine and a later one."""
    tokens = {
        "clean": (60, 11, 12, 33, 4, 34, 35, 50),
        "far": (60, 11, 12, 33, 7, 8, 36, 37, 50),
        "near": (60, 11, 12, 33, 4, 38, 50),
    }
    ends = {"clean": (3, 5, 7, 8), "far": (3, 6, 8, 9), "near": (3, 5, 6, 7)}
    stages = ("before", "coarse", "fine", "after")
    chains = {}
    for name in VARIANTS:
        chosen = "clean" if same_chain else name
        question = event.variant(name)[:-CUE]
        chains[name] = Chain(question, tokens[chosen], ends[chosen], stages, n_opening=1)
    return ChainCase(event, event.clean[-CUE:], chains)


@pytest.fixture
def counting(monkeypatch) -> None:
    """Every event counts, for a model that knows no task."""

    def rows(focus, confusion, **more):
        columns = {"counts_far": True, "counts_near": True}
        values = zip(VARIANTS, focus.tolist(), confusion.tolist(), strict=True)
        return [{"variant": v, "focus": f, "confusion": c, **columns} for v, f, c in values]

    monkeypatch.setattr(module, "baseline_rows", rows)


def values_at(model, case, stage, where, run, heads):
    """Patched Focus and Confusion of one case, from the frames that the effects are made of."""
    ran = module._run(model, case, stage)
    frames = pd.concat(module._patched(model, case, stage, ran, [heads], [where]))
    row = frames[frames["run"] == run].iloc[0]
    return row["focus"], row["confusion"]


def test_without_a_chain_the_patches_are_those_of_the_prompt(model, event):
    case = case_of(event)
    groups = [[head] for head in HEADS] + [HEADS]
    expected = sweep_event(model, event, groups)
    ran = module._run(model, case, "direct")
    got = pd.concat(module._patched(model, case, "direct", ran, groups, ("decision", "span")))
    keys = ["target", "positions", "run"]
    both = expected.merge(got, on=keys, suffixes=("", "_got"))
    assert len(both) == len(expected) == len(got)
    for name in ("focus", "confusion"):
        assert (both[name] - both[f"{name}_got"]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("stage", "where", "n_clean", "n_far", "cue"),
    [
        ("coarse", "span", 5, 6, True),
        ("fine", "span", 7, 8, True),
        ("end", "decision", 8, 9, True),
        ("writing", "span", 4, 4, False),
    ],
)
def test_what_is_patched_is_what_the_variants_share(
    model, event, stage, where, n_clean, n_far, cue
):
    """The far prompt with its own chain, patched with the clean one, by hooks on whole runs."""
    case = case_of(event)
    n_cue = CUE if cue else 0
    shared = event.aligned_suffix - CUE
    runs = {}
    for name, kept in (("clean", n_clean), ("far", n_far)):
        chain = case.chains[name]
        runs[name] = [*chain.question, *chain.tokens[:kept], *(case.cue if cue else ())]
    if where == "decision":
        places = {name: [len(tokens) - 1] for name, tokens in runs.items()}
    else:
        same = stage == "writing"
        places = {}
        for name, tokens in runs.items():
            start = len(case.chains[name].question) - shared
            chain_end = len(tokens) - n_cue
            middle = range(len(case.chains[name].question), chain_end) if same else ()
            places[name] = [*range(start, start + shared), *middle, *range(chain_end, len(tokens))]
    names = [f"blocks.{layer}.attn.hook_z" for layer, _ in HEADS]
    [clean] = model.run([runs["clean"]], names)
    hooks = [
        replace_z(
            layer,
            (0, torch.tensor(places["far"]), head),
            clean.activations[name][places["clean"], head],
        )
        for name, (layer, head) in zip(names, HEADS, strict=True)
    ]
    length = len(runs["far"])
    logits = model.logits_at(torch.tensor([runs["far"]]), [length - 1], hooks)[0, 0]
    focus, confusion = focus_confusion(logits[event.option_tokens], Roles.of(event))
    got = values_at(model, case, stage, where, "far_with_clean", HEADS)
    assert got == pytest.approx((float(focus), float(confusion)), abs=1e-4)


def test_every_stage_has_its_effects(model, prompts, counting):
    cases = [case_of(event) for event in prompts][:2]
    pools = {"coarse": [HEADS[0]], "refine": [HEADS[1]]}
    table = chain_effects(model, cases, pools, positions=("span",), n_resamples=20)
    assert table["stage"].unique().tolist() == list(module.CHAIN_STAGES)
    assert (table["n"] == 2).all()
    whole = table[table["layer"].isna()]
    alone = table[table["layer"].notna()]
    assert set(zip(alone["pool"], alone["layer"], alone["head"], strict=True)) == {
        ("coarse", 0, 1),
        ("refine", 2, 3),
    }
    # A pool of one head is that head.
    keys = ["stage", "positions", "pool", "measure"]
    both = whole.merge(alone, on=keys, suffixes=("", "_alone"))
    assert len(both) == len(whole) == len(alone)
    # Where the chain writes letters in order, Confusion is not measured.
    both = both[both["stage"] != "writing"]
    assert both["effect"].tolist() == pytest.approx(both["effect_alone"].tolist(), abs=1e-5)


def test_a_stage_that_a_chain_lacks_leaves_the_case_out(model, prompts, counting):
    cases = [case_of(event) for event in prompts][2:4]
    far = cases[0].chains["far"]
    unlabelled = {**cases[0].chains, "far": replace(far, stages=())}
    cases[0] = replace(cases[0], chains=unlabelled)
    stages = ["direct", "coarse"]
    table = chain_effects(model, cases, {"coarse": HEADS}, stages=stages, n_resamples=20)
    assert dict(table.groupby("stage")["n"].max()) == {"direct": 2, "coarse": 1}


def test_all_heads_over_shared_chains_carry_everything(model, event, counting):
    """With one chain for all, the span holds all that differs but what the evidence itself writes.

    All heads patched from clean at every position after the evidence: the answer is clean's.
    """
    case = case_of(event, same_chain=True)
    table = chain_effects(model, [case], {"all": EVERY_HEAD}, stages=["fine"], n_resamples=5)
    whole = table[table["layer"].isna() & (table["positions"] == "span")].set_index("measure")
    assert whole.loc["coarse_restore", "effect"] == pytest.approx(1, abs=1e-3)


def test_writing_counts_by_focus_alone(model, event):
    case = case_of(event)
    ran = module._run(model, case, "writing")
    rows = module._baseline(case, "writing", ran)
    focus = {row["variant"]: row["focus"] for row in rows}
    moved = focus["clean"] >= 0.5 and focus["clean"] - focus["far"] >= THRESHOLDS["moved"]
    assert {row["counts_far"] for row in rows} == {moved}
    assert {row["counts_near"] for row in rows} == {False}


def test_bad_cases_are_refused(model, event):
    case = case_of(event)
    pools = {"coarse": HEADS}
    with pytest.raises(InputError, match="at least one case"):
        chain_effects(model, [], pools)
    with pytest.raises(InputError, match="pools are empty"):
        chain_effects(model, [case], {"coarse": []})
    with pytest.raises(InputError, match="stages"):
        chain_effects(model, [case], pools, stages=["middle"])
    with pytest.raises(InputError, match="no chain for the far prompt"):
        chain_effects(model, [replace(case, chains={"clean": case.clean})], pools)
    with pytest.raises(InputError, match="are not its clean prompt"):
        chain_effects(model, [replace(case, cue=(1,))], pools)
    with pytest.raises(InputError, match="is not in model"):
        chain_effects(model, [case], {"coarse": [(9, 0)]})
