"""An adapter made on a small set: its folder, resuming, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from workbench.analysis.label_space.retrieval import retrieved_split
from workbench.errors import InputError
from workbench.files import write_table
from workbench.labels.folders import open_corpus
from workbench.labels.retrieving.retriever import Retriever
from workbench.models import loading
from workbench.predicting.adapting import training
from workbench.predicting.adapting.adapt import adapt
from workbench.predicting.adapting.config import AdaptConfig
from workbench.progress import Reporter

TASK = f"xmc:{Path(__file__).parents[3] / 'data' / 'synthetic' / 'xmc'}"
CONFIG = AdaptConfig(
    candidates=6, max_tokens=400, steps=6, batch_size=8, parts=2, measured=1, rank=4,
    warmup_steps=0, learning_rate=1e-2, held_out=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def shortlist(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("retrieved")
    corpus = open_corpus(TASK)
    retriever = Retriever(corpus, ("bm25",), n_threads=1, cache_dir=folder)
    table = retrieved_split(retriever, "train", folder / "parts", 20, limit=1000)
    write_table(folder / "retrieved.parquet", table)
    return folder / "retrieved.parquet"


@pytest.fixture(scope="module")
def made(shortlist, folder, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("adapters") / "made"
    return out, adapt(out, TASK, folder, shortlist, CONFIG, device="cpu")


def test_the_folder_is_an_adapter_that_loads(made, folder):
    out, record = made
    names = sorted(path.name for path in out.iterdir() if path.name != ".lock")
    assert names == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "adapting.json",
    ]
    assert json.loads((out / "adapting.json").read_text())["counts"] == record["counts"]
    base, adapted = (loading.read_model(one, dtype=torch.float32) for one in (folder, out))
    tokens = torch.arange(5, 25)[None]
    assert not torch.allclose(base(tokens).logits, adapted(tokens).logits, atol=1e-3)
    adapter = loading.provenance(out).adapter
    assert adapter is not None and adapter.trained_on == record["base_sha256"]


def test_the_record_and_the_card(made):
    out, record = made
    counts = record["counts"]
    assert counts["held_out"] == 4  # of 48, at most a tenth
    assert counts["learned_from"] + counts["without_right_candidate"] + 4 == counts["documents"]
    assert [row["step"] for row in record["held_out"]["by_step"]] == [0, 3, 6]
    assert record["loss"][-1]["loss"] < record["loss"][0]["loss"]
    card = (out / "README.md").read_text()
    assert "after 6 steps" in card and "--candidates 6 --max-tokens 400" in card


def test_a_killed_training_goes_on_and_ends_the_same(
    made, shortlist, folder, tmp_path, monkeypatch
):
    def advance(self, args, state, control, **_):
        if state.global_step == 5:
            raise KeyboardInterrupt

    out = tmp_path / "killed"
    flags = {"device": "cpu", "checkpoint_every": 2}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training._Shown, "on_step_end", advance)
        adapt(out, TASK, folder, shortlist, CONFIG, **flags)
    with pytest.raises(InputError, match=r"an adapter with other settings \(config.rank\)"):
        adapt(out, TASK, folder, shortlist, replace(CONFIG, rank=2), **flags)
    record = adapt(out, TASK, folder, shortlist, CONFIG, **flags)
    assert record["held_out"] == made[1]["held_out"]
    weights = "adapter_model.safetensors"
    assert (out / weights).read_bytes() == (made[0] / weights).read_bytes()
    with pytest.raises(InputError, match="holds an adapter already"):
        adapt(out, TASK, folder, shortlist, CONFIG, **flags)


def test_what_does_not_go_together_is_refused(made, shortlist, folder, tmp_path):
    def refused(said, task=TASK, model=folder, listed=shortlist, config=CONFIG):
        with pytest.raises(InputError, match=said):
            adapt(tmp_path / "out", task, model, listed, config, device="cpu", reporter=quiet())

    refused("is of no documents", task="icd10cm")
    refused("is an adapter itself", model=made[0])
    refused("cannot be cut into 3 equal parts", config=replace(CONFIG, parts=3))
    table = pd.read_parquet(shortlist)
    other = tmp_path / "other.parquet"
    write_table(other, table.iloc[::-1])
    refused("row 1 is of another document", listed=other)
    write_table(other, table.assign(labels=table["labels"].map(lambda labels: labels[:0])))
    refused("of split test, and train is asked about", listed=of_split(tmp_path, table, "test"))
    refused("no training document has a right label", listed=other)
    with pytest.raises(InputError, match="candidates"):
        replace(CONFIG, candidates=1)


def of_split(folder: Path, table: pd.DataFrame, split: str) -> Path:
    """A folder as retrieve leaves it."""
    write_table(folder / "retrieved.parquet", table)
    (folder / "retrieve.json").write_text(f'{{"split": "{split}"}}')
    return folder


def quiet() -> Reporter:
    from rich.console import Console

    return Reporter(Console(quiet=True))
