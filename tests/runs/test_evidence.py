from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fixtures.tiny_runs import save_model, save_prompts
from rich.console import Console

import workbench as wb
from workbench.headsets import headset as headset_file
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter
from workbench.runs import evidence
from workbench.runs.config import RunConfig
from workbench.runs.folder import REPORT_FILE
from workbench.runs.opening import open_run
from workbench.runs.parts import Parts
from workbench.runs.session import OpenRun
from workbench.runs.steps import STEPS

# Every head passes, so that there are pools to test even in a random model.
FAST = RunConfig(
    n_resamples=50,
    n_permutations=50,
    draws=2,
    heads="all",
    n_paired=2,
    positions=("span",),
    false_discovery_rate=1.0,
    min_restore_low=0.0,
)
QUIET = Reporter(Console(quiet=True))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenRun:
    folder = tmp_path_factory.mktemp("evidence")
    save_model("llama", folder / "model")
    prompts = save_prompts(folder / "model", folder / "prompts.jsonl", n_prompts=12)
    model = HookedModel.load(folder / "model", device="cpu")
    opened = open_run(folder / "run", model=model, prompts=prompts, config=FAST, reporter=QUIET)
    wb.score(opened)
    wb.patch(opened)
    return opened


def test_evidence_comes_after_pooling_and_ends_in_headset_and_report(
    opened: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = wb.pool(opened)
    assert bare.heads and all(head.chosen_share is None for head in bare.heads)
    wb.report(opened.folder.path, reporter=QUIET)
    page = opened.folder.path / REPORT_FILE
    assert 'id="evidence"' not in page.read_text()

    # A stop in the middle of the curves loses nothing but the event it was at.
    real, written = Parts.__setitem__, []

    def stop_at_third(self: Parts, number: int | str, table: pd.DataFrame) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.extend([number] if isinstance(number, int) else [])
        real(self, number, table)

    monkeypatch.setattr(Parts, "__setitem__", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        wb.evidence(opened)
    monkeypatch.setattr(Parts, "__setitem__", real)
    assert opened.folder.is_done("stability") and not opened.folder.is_done("curves")
    ran = []
    monkeypatch.setattr(
        evidence,
        "curve_event",
        lambda model, event, sets, curve=evidence.curve_event: (
            ran.append(event.id) or curve(model, event, sets)
        ),
    )
    found = wb.evidence(opened)
    counts = opened.folder.manifest["steps"]["curves"]["counts"]
    assert len(ran) == counts["events"] - 2

    assert all(head.chosen_share is not None for head in found.heads)
    assert headset_file.load(opened.folder.path / "headset.json") == found
    for pool in found.pools:
        assert pool.areas[0].order == "pool"
        assert {area.kind for area in pool.areas} == {"necessity", "sufficiency"}
    wb.report(opened.folder.path, reporter=QUIET)
    assert 'id="evidence"' in page.read_text()
    assert "CPR" in page.read_text()


def test_prompts_without_a_place_for_a_chain_say_so(
    opened: OpenRun, tmp_path: Path, capsys
) -> None:
    wb.pool(opened)  # already done where the test above came to the same worker
    loud = replace(opened, reporter=Reporter())
    opened.folder.forget_unless("chain", None)
    loud.do(*(step for step in STEPS if step.name == "chain"))
    assert opened.read("chain").empty
    assert "chain: none (the model has no tokenizer)" in capsys.readouterr().err
