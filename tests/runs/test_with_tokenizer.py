"""Runs on a model folder that has a tokenizer and a training record: they make their prompts."""

import json
from pathlib import Path
from shutil import copytree

import pytest
from fixtures.begun_runs import QUIET
from fixtures.tiny_runs import save_reader
from transformers import PreTrainedTokenizerFast

import workbench as wb
from workbench.errors import InputError
from workbench.labels import LabelSpace
from workbench.prompts.coding import split_categories
from workbench.runs.config import RunConfig
from workbench.runs.opening import open_run

pytestmark = pytest.mark.usefixtures("few_labels")


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
