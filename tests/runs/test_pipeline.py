import io
import json
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.tiny_runs import save_model, save_prompts, save_reader
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

import workbench as wb
from workbench.errors import InputError
from workbench.labels import LabelSpace
from workbench.models import loading
from workbench.models.hooked import HookedModel
from workbench.phases import RUNS
from workbench.progress import Reporter
from workbench.prompts.coding import split_categories
from workbench.prompts.prompt import PromptSet, to_json
from workbench.runs.config import RunConfig
from workbench.runs.opening import open_run
from workbench.runs.parts import Parts
from workbench.runs.session import OpenRun
from workbench.runs.steps import STEPS

FAST = RunConfig(
    n_resamples=50,
    n_permutations=50,
    draws=2,
    n_nominated=2,
    n_screened=2,
    n_paired=2,
    positions=("span",),
)
QUIET = Reporter(Console(quiet=True))
Begin = Callable[..., OpenRun]

pytestmark = pytest.mark.usefixtures("few_labels")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("llama", tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture(scope="session")
def model(folder: Path) -> HookedModel:
    return HookedModel.load(folder, device="cpu")


@pytest.fixture(scope="session")
def prompts(folder: Path) -> PromptSet:
    """Half of ten prompts is what an interval needs here."""
    return save_prompts(folder, folder.parent / "prompts.jsonl", n_prompts=12)


@pytest.fixture
def begin(model: HookedModel, prompts: PromptSet, tmp_path: Path) -> Begin:
    """Opens a run in the test's folder."""

    def begin(config: RunConfig = FAST, out: str = "run", **given: Any) -> OpenRun:
        given = {"model": model, "prompts": prompts, "reporter": QUIET} | given
        return open_run(tmp_path / out, config=config, **given)

    return begin


def loud() -> tuple[io.StringIO, Reporter]:
    """What a reporter says, and the reporter."""
    stream = io.StringIO()
    return stream, Reporter(Console(file=stream, width=200))


class Stopped(Exception):
    """Stands for Ctrl-C."""


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


def page_of(opened: OpenRun) -> str:
    return wb.report(opened.folder.path, reporter=QUIET).read_text()


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


def test_paths_between_named_heads_are_measured_on_the_held_out_half(begin: Begin) -> None:
    ends = replace(FAST, heads="all", sources="0-1", destinations="1-0,1-3")
    stream, reporter = loud()
    opened = begin(ends, reporter=reporter)
    table = wb.paths(opened)
    for first in ("score", "patch", "pool"):
        assert f"{first} is not finished and is done first" in stream.getvalue()
    assert set(table["ends"]) == {"0-1 > 1-0 1-3"}
    assert set(zip(table["dst_heads"], table["route"], strict=True)) == {
        ("1-0", "q"), ("1-0 1-1", "k"), ("1-0 1-1", "v"),
        ("1-3", "q"), ("1-2 1-3", "k"), ("1-2 1-3", "v"),
    }  # fmt: skip
    shared = "by key and value 1-0 means 1-0 1-1, 1-3 means 1-2 1-3"
    assert stream.getvalue().count(shared) == 1
    assert (table["n"] == len(opened.held_out)).all() and set(table["half"]) == {"verify"}
    assert "Paths between heads" in page_of(opened)


def test_paths_that_were_stopped_go_on_beside_those_of_other_ends(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = begin(replace(FAST, heads="all", sources="0-1", destinations="1-0"))
    wb.pool(opened)
    real = Parts.__setitem__

    def stop(self: Parts, number: int | str, table: pd.DataFrame) -> None:
        real(self, number, table)
        raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Parts, "__setitem__", stop)
        wb.paths(opened)
    assert list(opened.folder.parts("paths")) == [0]
    other = begin(replace(opened.config, destinations="1-3"))
    into = wb.paths(other).groupby("ends")["dst_heads"].agg(set).to_dict()
    assert into == {"0-1 > 1-0": {"1-0", "1-0 1-1"}, "0-1 > 1-3": {"1-3", "1-2 1-3"}}


def test_without_pooled_heads_there_are_no_paths_and_it_is_said(begin: Begin) -> None:
    stream, reporter = loud()
    strict = replace(FAST, min_restore_low=5.0, n_paired=0)
    opened = begin(strict, reporter=reporter)
    wb.score(opened)
    wb.patch(opened)
    assert not wb.pool(opened).heads
    assert wb.paths(opened).empty
    said = stream.getvalue()
    assert "paths: none between pooled heads (no head is pooled, so" in said
    assert "every destination lies" not in said
    assert "Paths between heads" not in page_of(opened)
    with pytest.raises(InputError, match=r"no head is pooled.* name both ends"):
        wb.paths(begin(replace(strict, sources="0-1")))
    backwards = replace(strict, sources="1-0", destinations="0-1")
    with pytest.raises(InputError, match="every destination lies at or below every source"):
        wb.paths(begin(backwards))
    # What was refused is forgotten; ends that give a path are measured, and the page shows them.
    named = replace(strict, sources="0-1", destinations="1-2")
    assert set(wb.paths(begin(named))["ends"]) == {"0-1 > 1-2"}
    page = page_of(opened)
    assert "Paths between heads" in page and "Only paths asked for by name: 0-1 &gt; 1-2" in page


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


@pytest.fixture(scope="session")
def with_tokenizer(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> Path:
    """A model folder with tokenizer and training record, as the bundled one has."""
    folder = save_reader(tokenizer, tmp_path_factory.mktemp("organism") / "model", n_layers=1)
    task = {"n_mentions": [1, 2], "n_families": [2, 3], "family_size": [2, 3]}
    task |= {"same_family": 0.0, "inclusion_term": 0.0, "max_description_words": 8}
    shorthand = dict.fromkeys(("set_abbreviation", "cut", "drop_vowels", "reorder"), 0.5)
    record = {
        "config": {"task": {**task, "shorthand": shorthand}, "held_out": 0.3, "split_seed": 5}
    }
    (folder / "training.json").write_text(json.dumps(record))
    return folder


def test_made_prompts_have_the_trained_task_at_full_size(
    with_tokenizer: Path, tmp_path: Path, space: LabelSpace
) -> None:
    path = tmp_path / "prompts.jsonl"
    config = RunConfig(n_prompts=3)
    made = wb.make_prompts(path, model=with_tokenizer, **config.of_prompts())
    assert [len(event.options) for event in made] == [9, 9, 9]
    assert wb.read_prompts(path).sha256 == made.sha256
    _, unseen = split_categories(space, held_out=0.3, seed=5)
    assert {option.label[:3] for event in made for option in event.options} <= set(unseen)


def test_only_the_report_with_text_holds_text(with_tokenizer: Path, tmp_path: Path) -> None:
    def more(count: int) -> RunConfig:
        return RunConfig(n_prompts=count, n_resamples=20, n_permutations=20)

    config = more(2)
    wb.run(tmp_path, model=with_tokenizer, config=config, device="cpu", reporter=QUIET)
    for path in tmp_path.iterdir():
        assert b"note: 1 ." not in path.read_bytes()
    with_text = wb.report(
        tmp_path, show_text=True, model=with_tokenizer, reporter=QUIET
    ).read_text()
    assert "note: 1 ." in with_text
    # The same call goes on with the prompts it made; more of them begin with these.
    file = tmp_path / "prompts.jsonl"
    made = file.read_bytes()
    file.write_bytes(made[:-9])
    with pytest.raises(InputError, match=r"prompts.jsonl: was changed since the run began"):
        wb.report(tmp_path, show_text=True, model=with_tokenizer, reporter=QUIET)
    wb.run(tmp_path, model=with_tokenizer, config=config, device="cpu", reporter=QUIET)
    assert file.read_bytes() == made
    grown = open_run(tmp_path, model=with_tokenizer, config=more(3), make=True, reporter=QUIET)
    assert len(grown.prompts) == 3 and file.read_bytes().startswith(made)
    assert grown.folder.manifest["prompts"]["batches"] == [2, 1]
    with pytest.raises(InputError, match="n_prompts is 3 there and 2 now"):
        open_run(tmp_path, model=with_tokenizer, config=config, make=True, reporter=QUIET)


def test_a_bad_training_record_is_named(with_tokenizer: Path, tmp_path: Path) -> None:
    copytree(with_tokenizer, tmp_path, dirs_exist_ok=True)
    for content in ('{"config": {"task": {}}}', "[" * 100_000):
        (tmp_path / "training.json").write_text(content)
        with pytest.raises(InputError, match="is not the training record"):
            wb.make_prompts(model=tmp_path, n_prompts=2)


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
