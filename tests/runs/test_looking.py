"""Looking at heads in one line, and the pages that a run makes of them."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fixtures.tiny_runs import save_model, save_prompts, save_reader
from rich.console import Console
from transformers import PreTrainedTokenizerFast

import workbench as wb
from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter
from workbench.prompts.prompt import PromptSet
from workbench.runs.config import RunConfig
from workbench.runs.opening import open_run
from workbench.runs.parts import Parts
from workbench.runs.session import OpenRun
from workbench.runs.steps import MAKER

FAST = RunConfig(
    n_resamples=20, n_permutations=20, draws=1, n_nominated=2, n_paired=0, positions=("span",)
)
QUIET = Reporter(Console(quiet=True))
LOOKS = MAKER["looks"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("llama", tmp_path_factory.mktemp("looked") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> HookedModel:
    return HookedModel.load(folder, device="cpu")


@pytest.fixture(scope="module")
def prompts(folder: Path) -> PromptSet:
    return save_prompts(folder, folder.parent / "prompts.jsonl", n_prompts=11)


@pytest.fixture(scope="module")
def finished(model: HookedModel, prompts: PromptSet, folder: Path) -> OpenRun:
    opened = open_run(
        folder.parent / "run", model=model, prompts=prompts, config=FAST, reporter=QUIET
    )
    for step in (wb.score, wb.patch, wb.pool):
        step(opened)
    return opened


def test_a_head_shows_itself(
    tokenizer: PreTrainedTokenizerFast, model: HookedModel, prompts: PromptSet, tmp_path: Path
) -> None:
    seen = wb.look(model, prompts.events[0], "1-2")
    assert "head 1-2 on prompt 'p0', event 0" in repr(seen)
    assert len(repr(seen)) < 2000
    assert "data-rows" not in seen._repr_html_()  # there is no tokenizer, so no text
    read = HookedModel.load(save_reader(tokenizer, tmp_path / "reader"), device="cpu")
    page = wb.look(read, prompts.events[0], (0, 1))._repr_html_()
    assert "data-rows" in page
    assert "from × to" in page


def test_events_where_a_head_matters(finished: OpenRun) -> None:
    patched = finished.read("patching_events")
    layer, head = patched[["layer", "head"]].iloc[0]
    name = f"{layer}-{head}"
    top = wb.top_events(finished.folder.path, name, n=3, measure="coarse_restore")
    assert list(top.columns[:4]) == ["id", "event", "half", "coarse_restore"]
    assert top["coarse_restore"].abs().is_monotonic_decreasing
    assert len(top) == 3
    pd.testing.assert_frame_equal(
        top, wb.top_events(finished, (int(layer), int(head)), 3, measure="coarse_restore")
    )
    # By hand: the patched run less the far one, over what the far one lost.
    row = top.iloc[0]
    one = (patched["id"] == row["id"]) & (patched["event"] == row["event"])
    one &= (
        (patched["layer"] == layer) & (patched["head"] == head) & (patched["positions"] == "span")
    )
    base = finished.read("baseline").set_index(["id", "event", "variant"])["focus"]
    clean, far = (base[row["id"], row["event"], variant] for variant in ("clean", "far"))
    value = patched.loc[one & (patched["run"] == "far_with_clean"), "focus"].item()
    assert row["coarse_restore"] == pytest.approx((value - far) / (clean - far))
    for given, said in [({"head": "1-9"}, "patched heads: "), ({"measure": "x"}, "'x' is not one")]:
        with pytest.raises(InputError, match=said):
            wb.top_events(finished, **{"head": name, **given})


def test_every_pooled_and_nominated_head_has_a_page(finished: OpenRun) -> None:
    page = wb.report(finished.folder.path, reporter=QUIET).read_text()
    patching = finished.read("patching")
    groups = patching.groupby("group")[["layer", "head"]]
    named = {
        group: {f"{layer}-{head}" for layer, head in rows.to_numpy()} for group, rows in groups
    }
    found = set(re.findall(r'id="head-([\d-]+)"', page))
    pooled = {f"{one.layer}-{one.head}" for one in finished.read("headset").heads}
    assert found == named["nominated"] | pooled
    looks = finished.read("looks")
    mass = looks.loc[looks["what"] == "attention"]
    sums = mass.groupby(["layer", "head", "source"])["mean"].sum()
    assert sums.to_numpy() == pytest.approx(1, abs=1e-4)
    assert set(looks["half"]) == {"verify"}


def test_looks_go_on_where_they_stopped(
    finished: OpenRun, model: HookedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: finished.read(name) for name in LOOKS.makes}
    finished.folder.forget_unless("looks", None)
    real, done = Parts.__setitem__, []

    def stop_after_two(self: Parts, number: int | str, table: pd.DataFrame) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(number)
        real(self, number, table)

    monkeypatch.setattr(Parts, "__setitem__", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        finished.do(LOOKS)
    monkeypatch.setattr(Parts, "__setitem__", real)
    finished.do(LOOKS)
    for name, table in before.items():
        pd.testing.assert_frame_equal(finished.read(name), table)


def test_a_run_without_looks_says_what_makes_the_pages(finished: OpenRun) -> None:
    path = finished.folder.path
    finished.folder.forget_unless("looks", None)
    finished.folder.outdate_reports()
    for name in LOOKS.files:
        (path / name).unlink()
    said: list[str] = []
    reporter = Reporter(Console(quiet=True))
    reporter.say = said.append  # type: ignore[method-assign]
    page = wb.report(path, reporter=reporter).read_text()
    assert any("`workbench pool` makes their tables" in line for line in said)
    assert "This run has no pages of single heads yet" in page
    assert 'id="head-' not in page.replace('id="head-pages"', "").replace('id="head-note"', "")
    finished.do(LOOKS)
    assert 'id="head-' in wb.report(path, reporter=QUIET).read_text().replace("head-pages", "")


def test_no_word_of_a_prompt_is_in_the_pages(
    tokenizer: PreTrainedTokenizerFast,
    few_labels: None,
    make_run: Callable[[Path, Path], Path],
    tmp_path: Path,
) -> None:
    """Neither words, nor labels, nor ids; with text the first events are there."""
    source = save_reader(tokenizer, tmp_path / "reader")
    path = make_run(source, tmp_path / "run")
    prompts = wb.read_prompts(path / "prompts.jsonl", tokenizer)
    page = wb.report(path, reporter=QUIET).read_text()
    pages = page[page.index('<section id="head-pages">') : page.index('<section id="controls">')]
    shown = set(re.findall(r"[a-z]{4,}|[A-Z]\d\d[.\d]*", re.sub("<[^>]*>", " ", pages)))
    words = {
        word
        for event in prompts
        for word in re.findall(r"[a-z]{4,}", event.text().split("options:")[0])
    }
    labels = {option.label for event in prompts for option in event.options}
    assert not shown & labels
    assert shown & words <= {"note", "with", "other", "first", "near"}
    with_text = wb.report(path, show_text=True, model=source, reporter=QUIET).read_text()
    start, end = (with_text.index(f'<section id="{x}">') for x in ("head-pages", "controls"))
    assert "Where it looks: prompt" in with_text[start:end]


@pytest.fixture
def make_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path], Path]:
    """A run whose events all count: an untrained model does no task."""
    from workbench.analysis.patching import patching

    monkeypatch.setattr(
        patching, "THRESHOLDS", {"clean_focus": 0.0, "clean_confusion": 1.0, "moved": -1.0}
    )

    def make(source: Path, out: Path) -> Path:
        config = replace(FAST, n_prompts=4, n_nominated=1)
        wb.run(out, model=source, config=config, device="cpu", reporter=QUIET)
        return out

    return make
