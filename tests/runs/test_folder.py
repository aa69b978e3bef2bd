"""What a run folder survives: two processes, lost and damaged files, foreign manifests."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures.tiny_runs import save_model, save_prompts
from rich.console import Console

import workbench as wb
from workbench.errors import InputError
from workbench.files import alone_in
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter
from workbench.prompts.prompt import VARIANTS, PromptSet
from workbench.runs.config import RunConfig
from workbench.runs.folder import RunFolder
from workbench.runs.opening import open_run

LENIENT = RunConfig(
    n_resamples=20,
    n_permutations=20,
    draws=1,
    heads="all",
    positions=("span",),
    false_discovery_rate=1.0,
    min_restore_low=0.0,
)
Again = Callable[..., str]
BUSY = "another process is writing there"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HookedModel:
    folder = save_model("llama", tmp_path_factory.mktemp("folder") / "model")
    return HookedModel.load(folder, device="cpu")


@pytest.fixture(scope="module")
def prompts(model: HookedModel, tmp_path_factory: pytest.TempPathFactory) -> PromptSet:
    folder = tmp_path_factory.mktemp("prompts")
    return save_prompts(save_model("llama", folder / "model"), folder / "p.jsonl", n_prompts=6)


@pytest.fixture(scope="module")
def finished(model: HookedModel, prompts: PromptSet, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    wb.run(
        out, model=model, prompts=prompts, config=LENIENT, reporter=Reporter(Console(quiet=True))
    )
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return copytree(finished, tmp_path / "run")


@pytest.fixture
def again(out: Path, model: HookedModel) -> Again:
    """Runs some steps again, and returns what is said."""

    def again(*steps: Callable, config: RunConfig = LENIENT) -> str:
        stream = io.StringIO()
        reporter = Reporter(Console(file=stream, width=200))
        if not steps:
            wb.run(out, model=model, config=config, reporter=reporter)
        else:
            opened = open_run(out, model=model, config=config, reporter=reporter)
            for step in steps:
                step(opened)
        return stream.getvalue()

    return again


def content(folder: Path) -> dict[str, bytes]:
    """All but the manifest, which holds times, and reports, which show it."""
    names = [path for path in folder.iterdir() if path.suffix in (".parquet", ".jsonl")]
    return {path.name: path.read_bytes() for path in [*names, folder / "headset.json"]}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "name", "step"),
    [
        (truncate, "baseline.parquet", "baseline"),
        (Path.unlink, "patching.parquet", "patch"),
        (truncate, "headset.json", "pool"),
        (Path.unlink, "report.html", "report"),
    ],
)
def test_lost_and_damaged_files_are_made_again(
    damage: Callable[[Path], None], name: str, step: str, out: Path, finished: Path, again: Again
) -> None:
    damage(out / name)
    said = again()
    how = "missing" if damage is Path.unlink else "damaged"
    assert f"{name} is {how}; " in said
    assert content(out) == content(finished)
    assert "html" in (out / "report.html").read_text()
    others = {"baseline", "score", "trajectory", "patch", "pool", "paths"} - {step}
    assert all(f"{other}: finished before, skipped" in said for other in others)


def test_a_later_command_makes_an_earlier_table_again_with_its_own_settings(
    out: Path, finished: Path, again: Again
) -> None:
    (out / "scores.parquet").unlink()
    truncate(out / "patching.parquet")
    said = again(wb.paths, config=RunConfig(n_resamples=20))  # defaults of what it does not use
    assert "scores" not in said and "patching" not in said  # paths do not need them
    said = again(wb.pool, config=LENIENT)
    assert "scores.parquet is missing; score is done again" in said
    assert "patching.parquet is damaged; patch is done again" in said
    assert content(out) == content(finished)


def test_what_rests_on_another_result_is_done_again(out: Path, again: Again) -> None:
    folder = RunFolder.open(out)
    (out / "scores.parquet").unlink()
    folder.manifest["steps"]["score"]["files"] = {
        "scores.parquet": ["0" * 64]
    }  # of another version
    folder._save()
    said = again(wb.pool)
    assert "what patch was made from has changed; patch is done again" in said
    steps = json.loads((out / "manifest.json").read_text())["steps"]
    assert steps["paths"]["status"] in ("done", "outdated") and steps["pool"]["status"] == "done"
    assert "is done again" not in again()


def test_the_report_says_who_makes_a_table_again(out: Path) -> None:
    truncate(out / "scores.parquet")
    with pytest.raises(InputError, match=r"scores.parquet is damaged; `workbench score` makes it"):
        wb.report(out)


def test_a_run_from_before_manifests_held_hashes_is_taken_as_it_is(out: Path, again: Again) -> None:
    path = out / "manifest.json"
    manifest = json.loads(path.read_text())
    for record in manifest["steps"].values():
        del record["files"]
    path.write_text(json.dumps(manifest))
    before = content(out)
    assert "again" not in again()
    (out / "scores.parquet").unlink()
    assert "scores.parquet is missing" in again()
    assert content(out) == before


def test_damaged_parts_of_a_stopped_sweep_are_done_again(
    out: Path, finished: Path, again: Again
) -> None:
    folder = RunFolder.open(out)
    rows = folder.read_table("patching_events")
    ids = list(dict.fromkeys(zip(rows["id"], rows["event"], strict=True)))
    for number, (name, event) in enumerate(ids[:2]):
        part = rows[(rows["id"] == name) & (rows["event"] == event)].reset_index(drop=True)
        folder.parts("patch")[number] = part
    truncate(out / "parts" / "patch" / "000001.parquet")
    folder.manifest["steps"]["patch"]["status"] = "running"
    folder._save()
    assert "patch: 1 damaged parts are done again" in again(wb.patch)
    assert content(out) == content(finished)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (["steps"], 3, "steps: "),
        (["steps", "score"], [], "steps.score: "),
        (["steps", "score", "status"], "finished", "steps.score.status"),
        (["steps", "score", "files"], {"scores.parquet": "x"}, "steps.score.files"),
        (["prompts"], None, "prompts: "),
        (["model"], "llama", "model: "),
        (["schema"], 1, "is not the manifest of a run"),
    ],
)
def test_a_damaged_manifest_is_one_line(
    place: list[str], value: object, reason: str, out: Path
) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    part = manifest
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    for text in (json.dumps(manifest), "[" * 100_000, '{"schema": 1, "schema": 2}', "{"):
        (out / "manifest.json").write_text(text)
        with pytest.raises(InputError) as caught:
            wb.report(out)
        assert "manifest.json: " in str(caught.value) and "\n" not in str(caught.value)
        assert text != json.dumps(manifest) or reason in str(caught.value)


def test_a_folder_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "latin-\udce9", {"prompts": {"task": "t", "sha256": ""}})
    folder.write_table("scores", pd.DataFrame({"layer": [1]}))
    assert folder.read_table("scores").layer.tolist() == [1]


def test_one_process_writes_at_a_time(out: Path, finished: Path, model: HookedModel) -> None:
    with alone_in(out):
        wb.report(out)  # the process that holds it may go on
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=BUSY):
        open_run(out, model=model)
    with pytest.raises(InputError, match=BUSY):
        wb.run(out, model=model)
    holder.kill()  # the lock goes with the process
    holder.wait()
    assert content(out) == content(finished)
    wb.report(out)


HOLD = """
import sys
from pathlib import Path
from workbench.files import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_refused_run_leaves_no_folder(model: HookedModel, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        open_run(tmp_path / "run", model=model)
    assert not any(tmp_path.iterdir())


def test_folder_and_files_are_their_owners_alone(out: Path, finished: Path) -> None:
    assert finished.stat().st_mode & 0o777 == 0o700
    public = [
        path.name
        for path in finished.rglob("*")
        if path.is_file() and path.stat().st_mode & 0o077 and path.name not in PUBLIC
    ]
    assert not public


def test_no_file_but_the_prompts_holds_tokens_of_a_prompt(finished: Path) -> None:
    rows = [
        event.variant(name)
        for event in wb.read_prompts(finished / "prompts.jsonl")
        for name in VARIANTS
    ]
    triples = {row[at : at + 3] for row in rows for at in range(len(row) - 2)}

    def lists(value: Any) -> Iterator[list[Any]]:
        if isinstance(value, dict | list):
            yield [one for one in value if isinstance(one, int)] if isinstance(value, list) else []
            for one in value.values() if isinstance(value, dict) else value:
                yield from lists(one)

    for path in finished.iterdir():
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            assert not {"token", "text", "word", "input_ids"} & set(table.columns)
            found = [list(cell) for name in table.columns for cell in table[name] if np.ndim(cell)]
        else:
            found = lists(json.loads(path.read_text())) if path.suffix == ".json" else []
        for numbers in found:
            there = {tuple(numbers[at : at + 3]) for at in range(len(numbers) - 2)}
            assert not there & triples, path.name


def test_a_model_without_a_lens_keeps_all_other_results(
    out: Path, again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    def misfit(*given: object, **named: object) -> None:
        raise InputError("streams of two widths")

    monkeypatch.setattr("workbench.runs.score.layer_trajectory", misfit)
    (out / "trajectory.parquet").unlink()
    assert "trajectory: none (streams of two widths)" in again()
    assert pd.read_parquet(out / "trajectory.parquet").empty
    assert "html" in (out / "report.html").read_text()


PUBLIC = {".lock", "headset.json"}
"""Without anything of a prompt."""
