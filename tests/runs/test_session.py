"""Folders that grow: what is there is kept, and only what is missing is made."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pandas as pd
import pytest
from fixtures.tiny_runs import save_model, save_prompts
from rich.console import Console

import workbench as wb
from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter
from workbench.prompts.prompt import PromptSet
from workbench.runs import evidence
from workbench.runs import patch as patch_step
from workbench.runs import paths as paths_step
from workbench.runs import rows as kept_rows
from workbench.runs.config import RunConfig
from workbench.runs.folder import RunFolder
from workbench.runs.opening import open_run
from workbench.runs.session import OpenRun
from workbench.runs.steps import IN_REPORT

FAST = RunConfig(
    n_resamples=30,
    n_permutations=30,
    draws=1,
    n_nominated=1,
    n_controls=1,
    n_paired=0,
    positions=("span",),
    false_discovery_rate=1.0,
    min_restore_low=0.0,
)
KEYS = ["layer", "head", "positions", "run", "id", "event"]
VALUES = [*KEYS, "focus", "confusion", "half"]
N_FIRST = 13
Begin = Callable[..., OpenRun]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("llama", tmp_path_factory.mktemp("grown") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> HookedModel:
    return HookedModel.load(folder, device="cpu")


@pytest.fixture(scope="module")
def prompts(folder: Path) -> PromptSet:
    return save_prompts(folder, folder.parent / "p.jsonl", n_prompts=16)


@pytest.fixture(scope="module")
def small(model: HookedModel, prompts: PromptSet, tmp_path_factory) -> Path:
    """A run of the first prompts and a few heads, pooled."""
    out = tmp_path_factory.mktemp("small") / "run"
    first = PromptSet(prompts.task, prompts.events[:N_FIRST])
    reporter = Reporter(Console(quiet=True))
    wb.pool(open_run(out, model=model, prompts=first, config=FAST, reporter=reporter))
    return out


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def begin(small: Path, model: HookedModel, tmp_path: Path, said: io.StringIO) -> Begin:
    """Opens a copy of the small run, again and again."""
    out = copytree(small, tmp_path / "run")

    def begin(prompts: PromptSet | None = None, **changed: object) -> OpenRun:
        said.truncate(0)
        said.seek(0)
        reporter = Reporter(Console(file=said, width=300))
        config = replace(FAST, **changed)  # pyright: ignore[reportArgumentType]
        return open_run(out, model=model, prompts=prompts, config=config, reporter=reporter)

    return begin


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(prompt, number of heads) of every event that is patched head by head."""
    made = []

    def record(model, event, groups, *given, sweep=patch_step.sweep_event, **named):
        made.append((event.id, len(groups)))
        return sweep(model, event, groups, *given, **named)

    monkeypatch.setattr(patch_step, "sweep_event", record)
    return made


def rows(opened: OpenRun) -> pd.DataFrame:
    return opened.read("patching_events").sort_values(KEYS, ignore_index=True)[VALUES]


def heads(table: pd.DataFrame) -> set[tuple[int, int]]:
    return set(zip(table["layer"], table["head"], strict=True))


def test_more_heads_are_patched_beside_those_that_are_there(
    begin: Begin, said: io.StringIO, patched: list[tuple[str, int]]
) -> None:
    opened = begin()
    before, there = rows(opened), heads(opened.read("patching"))
    missing = sorted({(0, 0), (0, 1), (0, 2), (0, 3), *((1, at) for at in range(4))} - there)
    names = [f"{layer}-{head}" for layer, head in missing]
    table = wb.patch(begin(heads=",".join(names[:2])))
    assert f"patch: {len(there)} heads were patched before, 2 are added" in said.getvalue()
    assert patched == [(event.id, 2) for event in opened.prompts]
    assert heads(table) == there | set(missing[:2])
    # The same again, and what was asked for first, are there already.
    made = len(patched)
    wb.patch(begin(heads=",".join(names[:2])))
    assert "patch: finished before, skipped" in said.getvalue()
    wb.patch(begin())
    assert "patch: finished before, skipped" in said.getvalue() and len(patched) == made
    every = wb.patch(begin(heads="all"))
    assert {count for _, count in patched[made:]} == {len(missing) - 2} and len(heads(every)) == 8
    kept = rows(begin()).merge(before[KEYS])
    pd.testing.assert_frame_equal(kept, before)
    # Of heads that were there it says the same as before.
    pooled = begin(heads="all")
    outdated = {step.name for step in RunFolder.open(pooled.folder.path).outdated}
    assert {"passing", "pool"} <= outdated
    with pytest.raises(InputError, match="`workbench pool` makes it again"):
        wb.report(pooled.folder.path)
    wb.pool(pooled)
    assert pooled.folder.is_done("pool")


def test_more_nominated_heads_take_the_random_ones_that_are_there(begin: Begin) -> None:
    before = begin().read("patching")
    table = wb.patch(begin(n_nominated=2))
    groups = table.drop_duplicates(["layer", "head"])["group"].value_counts()
    assert groups["control"] >= FAST.n_controls and groups["nominated"] > 1
    assert heads(before) <= heads(table)
    control = before[before["group"] == "control"]
    assert heads(control) <= heads(table[table["group"] == "control"])


def test_other_positions_are_added_and_other_values_refused(
    begin: Begin, patched: list[tuple[str, int]]
) -> None:
    before = rows(begin())
    table = wb.patch(begin(positions=("decision",)))
    assert set(table["positions"]) == {"decision", "span"} and patched
    pd.testing.assert_frame_equal(rows(begin()).merge(before[KEYS]), before)
    with pytest.raises(InputError, match=r"intervention z there and pattern now; give another"):
        wb.patch(begin(intervention="pattern"))


def test_other_limits_and_resamples_patch_nothing_again(
    begin: Begin, said: io.StringIO, patched: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sets: set[str] = set()

    def record(model, event, groups, *given, sweep=kept_rows.sweep_event, **named):
        sets.update(" ".join(f"{layer}-{head}" for layer, head in group) for group in groups)
        return sweep(model, event, groups, *given, **named)

    monkeypatch.setattr(kept_rows, "sweep_event", record)
    before, there = begin().read("pools"), set(begin().read("rows/pool")["name"])
    wb.patch(begin(n_resamples=40))
    assert "patch: n_resamples was 30, is 40 now, what is there is kept" in said.getvalue()
    wb.pool(begin(n_resamples=40))
    assert not patched and not sets & there
    keys = ["heads", "positions", "measure"]
    both = before.merge(begin().read("pools"), on=keys).drop_duplicates(keys)
    assert len(both)
    pd.testing.assert_series_equal(both["effect_x"], both["effect_y"], check_names=False)
    assert not wb.pool(begin(min_restore_low=9.0, min_strict_low=9.0)).heads
    assert "passing: min_restore_low was 0.0, is 9.0 now" in said.getvalue()


def test_more_prompts_keep_the_first_ones_and_their_halves(
    begin: Begin, prompts: PromptSet, said: io.StringIO, patched: list[tuple[str, int]]
) -> None:
    first = begin()
    before = rows(first)
    grown = begin(prompts)
    n_added = len(prompts.prompt_ids) - len(first.prompts.prompt_ids)
    assert f"stay in their halves, {n_added} are added" in said.getvalue()
    assert first.halves.choose <= grown.halves.choose
    assert first.halves.verify <= grown.halves.verify
    assert grown.halves.choose | grown.halves.verify == set(prompts.prompt_ids)
    wb.patch(grown)
    assert f"baseline: {N_FIRST} events were run before" in said.getvalue()
    new = {event.id for event in prompts.events[N_FIRST:]}
    there = [count for name, count in patched if name not in new]
    assert {name for name, _ in patched} >= new and all(count < 4 for count in there)
    pd.testing.assert_frame_equal(rows(grown).merge(before[KEYS]), before)
    counted = rows(grown).groupby(["layer", "head"])["id"].nunique()
    assert set(counted) == {len(prompts.prompt_ids)}
    # Another process takes it up without being told of prompts; fewer are refused.
    again = begin()
    assert again.prompts.events == prompts.events and again.halves == grown.halves
    with pytest.raises(InputError, match=r"holds these 13 events and 4 more.* does not shrink"):
        begin(first.prompts)
    turned = PromptSet("turned", prompts.events[::-1])
    with pytest.raises(InputError, match=r"prompts.sha256 is .*; give another --out"):
        begin(turned)


def test_a_stop_while_a_run_grows_loses_nothing(
    begin: Begin, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch, said: io.StringIO
) -> None:
    before, made = rows(begin()), []

    def stop(model, event, *given, sweep=patch_step.sweep_event, **named):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(event.id)
        return sweep(model, event, *given, **named)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(patch_step, "sweep_event", stop)
        wb.patch(begin(prompts, heads="all"))
    pd.testing.assert_frame_equal(rows(begin()), before)
    rest: list[str] = []
    monkeypatch.setattr(
        patch_step,
        "sweep_event",
        lambda model, event, *given, sweep=patch_step.sweep_event, **named: (
            rest.append(event.id) or sweep(model, event, *given, **named)
        ),
    )
    wb.patch(begin(heads="all"))
    assert len(rest) == len(prompts) - 3
    pd.testing.assert_frame_equal(rows(begin()).merge(before[KEYS]), before)


def test_a_refused_request_leaves_the_finished_step_as_it_was(begin: Begin) -> None:
    record = begin().folder.manifest["steps"]
    with pytest.raises(InputError, match="every destination lies"):
        wb.paths(begin(sources="1-0", destinations="0-1"))
    assert begin().folder.manifest["steps"] == record
    wb.paths(begin(sources="0-1", destinations="1-0"))
    done = begin().folder.manifest["steps"]["paths"]
    with pytest.raises(InputError, match="every destination lies"):
        wb.paths(begin(sources="1-0", destinations="0-1"))
    assert begin().folder.manifest["steps"]["paths"] == done


def test_paths_asked_for_by_name_stand_beside_those_of_the_pools(begin: Begin) -> None:
    pooled = wb.paths(begin(heads="all"))
    named = wb.paths(begin(sources="0-0,0-1", destinations="1-2"))
    assert set(named["ends"]) - {"pooled"} == {"0-0 0-1 > 1-2"}
    kept = named[named["ends"] == "pooled"].reset_index(drop=True)
    assert len(kept) == len(pooled)
    pd.testing.assert_frame_equal(kept, pooled, check_dtype=False)


def test_pools_are_made_again_with_and_without_patched_sets(
    begin: Begin, said: io.StringIO
) -> None:
    wb.pool(begin(n_paired=2))
    assert "pool: n_paired was 0, is 2 now" in said.getvalue()
    wb.pool(begin(n_paired=0))
    assert "pool: n_paired was 2, is 0 now" in said.getvalue()


def test_a_later_command_pools_again_without_sets_where_there_were_none(begin: Begin) -> None:
    wb.patch(begin(heads="all"))
    wb.paths(begin(n_paired=10))  # its default: no flag of `paths`
    assert "sets" not in begin().folder.manifest["steps"]


def test_pools_of_before_their_manifest_named_sets_were_made_from_those_there(begin: Begin) -> None:
    wb.pool(begin(n_paired=2))
    file = begin().folder.path / "manifest.json"
    manifest = json.loads(file.read_text())
    for name in ("passing", "pool"):
        del manifest["steps"][name]["settings"]["n_paired"]
    file.write_text(json.dumps(manifest))
    assert begin().folder.manifest["steps"]["pool"]["settings"]["n_paired"] == 2


def test_a_pooled_head_that_was_not_patched_alone_is_ranked_by_its_score(
    begin: Begin, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = begin()
    there = heads(opened.read("patching"))
    other = min({(0, at) for at in range(4)} - there)
    monkeypatch.setattr(evidence, "pooled_heads", lambda _: [*there, other])
    monkeypatch.setattr(evidence, "order_scores", lambda *given, **_: pd.DataFrame(given[5]))
    made = evidence._orders(opened, {n: opened.read(n) for n in (*IN_REPORT, "headset")})
    assert set(made.itertuples(index=False, name=None)) == there
    assert f"no effects alone of 0-{other[1]}, pooled" in said.getvalue()


def test_ends_of_before_that_other_pools_leave_without_a_path_do_not_stop_the_rest(
    begin: Begin, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = [(0, 0), (1, 2)]
    monkeypatch.setattr(paths_step, "pooled_heads", lambda _: pools)
    wb.paths(begin(sources="0-0"))
    wb.paths(begin(sources="0-1", destinations="1-2"))
    pools.remove((1, 2))
    found = wb.paths(begin(sources="0-0", n_resamples=29))  # taken along, or asked for once more
    assert "paths: none from 0-0 > pooled (no path" in said.getvalue()
    assert set(found["ends"]) == {"0-1 > 1-2"}
