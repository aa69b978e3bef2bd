"""Steps of a run, one after the other: what they find, keep, refuse and go on with."""

import io
import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.begun_runs import FAST, QUIET, Begin, Stopped, loud, page_of
from rich.console import Console
from safetensors.torch import load_file, save_file

import workbench as wb
from workbench.errors import InputError
from workbench.models import loading
from workbench.phases import RUNS
from workbench.progress import Reporter
from workbench.prompts.prompt import PromptSet, to_json
from workbench.runs.parts import Parts
from workbench.runs.steps import STEPS


def test_a_stopped_sweep_goes_on_and_gives_the_same_tables(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = begin(out="whole")
    wb.score(whole)
    expected = wb.patch(whole)

    broken = begin(out="broken")
    wb.score(broken)
    real, written = Parts.__setitem__, []

    def stop_after_three(self: Parts, number: int | str, table: pd.DataFrame) -> None:
        if len(written) == 3:
            raise Stopped
        written.append(number)
        real(self, number, table)

    monkeypatch.setattr(Parts, "__setitem__", stop_after_three)
    with pytest.raises(Stopped):
        wb.patch(broken)
    assert list(broken.folder.parts("patch")) == written == [0, 1, 2]

    resumed: list[int] = []

    def record(self: Parts, number: int | str, table: pd.DataFrame) -> None:
        resumed.append(number)
        real(self, number, table)

    monkeypatch.setattr(Parts, "__setitem__", record)
    # Another process opens the folder: nothing but the files is left.
    found = wb.patch(begin(out="broken"))
    assert resumed == list(range(3, len(broken.prompts)))
    pd.testing.assert_frame_equal(found, expected)
    events = [pd.read_parquet(out / "patching_events.parquet") for out in tmp_path.iterdir()]
    pd.testing.assert_frame_equal(*events)
    assert not (tmp_path / "broken" / "parts").exists()


def groups_of(patched: pd.DataFrame) -> dict[str, set[tuple[int, int]]]:
    return {
        group: set(zip(rows["layer"], rows["head"], strict=True))
        for group, rows in patched.groupby("group")
    }


def test_scores_of_the_selection_half_nominate_heads_beside_controls(begin: Begin) -> None:
    opened = begin(replace(FAST, n_nominated=1))  # of eight heads, at most four
    scores = wb.score(opened)
    assert scores["n"].unique().tolist() == [len(opened.selection)]
    alone = wb.score_heads(opened.model, opened.selection, n_resamples=50, n_permutations=50)
    np.testing.assert_allclose(scores["coarse"], alone["coarse"])
    np.testing.assert_allclose(scores["refine_q"], alone["refine_q"])
    named = scores.set_index(["layer", "head"])
    members = groups_of(wb.patch(opened))
    ranks = [named["coarse"], named["refine"]]
    ranks += [named[f"{name}_attribution"].abs() for name in ("coarse", "refine")]
    best = {at for rank in ranks for at in rank.nlargest(1).index}
    assert members["nominated"] == best
    assert len(members["control"]) == FAST.n_controls and not members["control"] & best


def test_options_without_families_are_said(begin: Begin, prompts: PromptSet) -> None:
    named = [
        replace(
            event,
            options=tuple(
                replace(one, family="far" if one.role == "far" else "own") for one in event.options
            ),
        )
        for event in prompts
    ]
    for given, said in ((PromptSet("named", tuple(named)), False), (prompts, True)):
        stream, reporter = loud()
        opened = begin(out=given.task, prompts=given, reporter=reporter)
        wb.score(opened)
        n = len(opened.selection)
        line = f"score: {n} of {n} events do not name the families of their options"
        assert (line in stream.getvalue()) == said


def test_screened_heads_rank_high_in_some_run_of_the_selection_half(begin: Begin) -> None:
    opened = begin(replace(FAST, heads="screen"))
    wb.score(opened)
    members = groups_of(wb.patch(opened))
    screen = opened.folder.read_table("screen")
    # Also runs that this half is not patched in.
    assert set(screen["run"]) == set(RUNS) - {"far_with_near"}
    assert screen["n"].max() == len(opened.selection)
    best = {
        at
        for _, rows in screen.groupby("run")
        for at in rows.set_index(["layer", "head"])["estimate"].nlargest(2).index
    }
    assert members["nominated"] == best
    assert not members["control"] & best
    again = wb.patch(begin(replace(FAST, heads="screen")))
    assert groups_of(again) == members


def test_pools_are_proven_on_the_other_half(begin: Begin) -> None:
    lenient = replace(FAST, heads="all", false_discovery_rate=1.0, min_restore_low=0.0)
    opened = begin(lenient)
    wb.score(opened)
    patching = wb.patch(opened)
    found = wb.pool(opened)
    assert found.heads, "the test needs a pool to say anything"
    wb.paths(opened)
    alone = wb.find_heads(
        opened.model, opened.prompts, lenient, reporter=QUIET
    )  # the same without a folder
    assert alone.headset == found
    for shown in (repr(opened), opened._repr_html_(), repr(alone), alone._repr_html_()):
        assert "events are valid pairs" in shown and "0-" in shown and len(shown) < 8_000
    assert "done: baseline, score" in repr(opened) and "patching (" in repr(alone)
    named = "baseline scores trajectory patching_events patching pools paths"
    for name in named.split():
        pd.testing.assert_frame_equal(getattr(alone, name), opened.read(name))
    verified = patching[(patching["half"] == "verify") & (patching["positions"] == "span")]
    verified = verified.set_index(["layer", "head", "measure"])["effect"]
    for head in found.heads:
        effect = head.effects["coarse_restore"].effect
        assert effect == pytest.approx(verified[head.layer, head.head, "coarse_restore"])
    pools = opened.read("pools")
    assert (pools["n"] == len(opened.held_out)).all()
    sizes = pools.assign(size=pools["heads"].str.split().str.len()).groupby("pool")["size"]
    assert (sizes.nunique() == 1).all()
    single = [info for info in found.pools if len(info.heads) == 1]
    for info in single:  # one head patched as a set is that head patched alone
        layer, head = map(int, info.heads[0].split("-"))
        joint = info.effects["coarse_restore"].effect
        assert joint == pytest.approx(verified[layer, head, "coarse_restore"], abs=1e-5)


def test_options_that_hold_little_are_said_by_score_patch_and_summary(
    begin: Begin, prompts: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, reporter = loud()
    few = PromptSet(prompts.task, prompts.events[:3])
    opened = begin(replace(FAST, heads="0-0"), prompts=few, reporter=reporter)
    monkeypatch.setattr("workbench.analysis.option_mass.FLOOR", 1.1)  # more than there can be
    wb.score(opened)
    wb.patch(opened)
    warning = "warning: at 3 of 3 clean decisions the options hold less than 1.1"
    lines = [line for line in stream.getvalue().splitlines() if warning in line]
    assert [line.endswith("where the prompts end") for line in lines] == [True, False]
    counts = opened.folder.manifest["steps"]["baseline"]["counts"]["option_mass"]
    clean = opened.read("baseline").query("variant == 'clean'")["option_mass"]
    assert counts["mean"] == pytest.approx(clean.mean()) and 0 < counts["least"] <= counts["mean"]


def test_a_model_that_cannot_do_the_task_gives_an_empty_headset_and_says_so(
    begin: Begin, prompts: PromptSet, tmp_path: Path
) -> None:
    # Gold and a far option change places: the model now prefers the wrong cluster.
    swapped = [json.loads(json.dumps(to_json(event))) for event in prompts]
    for line in swapped:
        tokens = [option["token"] for option in line["options"]]
        for option, token in zip(line["options"], [*tokens[1:], tokens[0]], strict=True):
            option["token"] = token
    path = tmp_path / "swapped.jsonl"
    path.write_text("\n".join(map(json.dumps, swapped)))
    stream, reporter = loud()
    opened = begin(prompts=path, reporter=reporter)
    wb.score(opened)
    baseline = opened.folder.read_table("baseline")
    if baseline["counts_far"].any() or baseline["counts_near"].any():
        baseline[["counts_far", "counts_near"]] = False
        opened.folder.write_table("baseline", baseline)
    assert wb.patch(opened).empty
    found = wb.pool(opened)
    assert found.heads == () and found.pools == ()
    assert "The coarse pool is empty" in page_of(opened)
    said = stream.getvalue()
    assert "events are valid pairs" in said and "nothing to patch" in said
    assert "no head qualifies for the refine pool" in said


def test_the_folder_notices_changed_prompts(begin: Begin) -> None:
    file = begin().folder.path / "prompts.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(InputError, match=r"prompts.jsonl: was changed since the run began"):
        begin(prompts=None)


def test_the_prompt_file_is_restored_after_a_stop_before_it_was_written(begin: Begin) -> None:
    opened = begin()
    (opened.folder.path / "prompts.jsonl").unlink()
    with pytest.raises(InputError, match="is missing; give the prompts of this run"):
        begin(prompts=None)
    begin()
    assert begin(prompts=None).prompts.sha256 == opened.prompts.sha256


def test_a_run_on_an_adapter_says_and_records_what_was_merged(
    folder: Path, prompts: PromptSet, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    plain = loading.read_model(folder, dtype=torch.float32)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"])  # which changes nothing: B is zero
    peft.get_peft_model(plain, config).save_pretrained(tmp_path / "adapter")
    said, reporter = loud()
    found = wb.run(
        tmp_path / "run",
        model=tmp_path / "adapter",
        prompts=prompts,
        config=FAST,
        device="cpu",
        reporter=reporter,
    )
    assert "model: LlamaForCausalLM, LORA adapter of rank 2 merged into model" in said.getvalue()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    written = found.model.model_dump()
    for name in ("base", "adapter", "quantisation"):
        assert manifest["model"][name] == written[name]
    assert found.model.base is not None and found.model.adapter is not None
    assert found.model.base.weights_sha256 == loading.weights_sha256(folder)
    file = tmp_path / "run" / "headset.json"
    assert "OK" in wb.validate(file, model=tmp_path / "adapter")
    assert "OK" in wb.validate(file, model=folder)  # which has no adapter to compare
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({k: v + 1 for k, v in load_file(weights).items()}, weights)
    with pytest.raises(InputError, match=r"headset.json: .* adapter.sha256 is .* in the head set"):
        wb.validate(file, model=tmp_path / "adapter")


def test_a_step_that_runs_out_of_memory_is_one_line_and_goes_on_later(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = begin()
    opened.do(STEPS[0])
    scores = import_module("workbench.runs.score")

    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patched:
        patched.setattr(scores, "score_heads", full)
        with pytest.raises(InputError, match=r"score: out of memory on cpu .* kept in .* goes on"):
            opened.do(STEPS[1])
    begin().do(STEPS[1])
    assert opened.folder.is_done("baseline")


def test_memory_is_said_before_the_first_step(begin: Begin) -> None:
    text = io.StringIO()
    begin(reporter=Reporter(Console(file=text, width=200)))
    assert text.getvalue().startswith("memory: model ")


def test_patched_patterns_are_kept_apart_from_patched_outputs(begin: Begin) -> None:
    """The table says which was patched, and no pool is made of patterns."""
    opened = begin(replace(FAST, intervention="pattern"))
    wb.score(opened)
    table = wb.patch(opened)
    assert set(table["intervention"]) == {"pattern"}
    with pytest.raises(InputError, match="patched patterns: pools are made from intervention z"):
        wb.pool(opened)
    other = begin(FAST, out="z")
    wb.score(other)
    assert set(wb.patch(other)["intervention"]) == {"z"}
