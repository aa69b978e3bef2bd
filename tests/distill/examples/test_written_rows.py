import json

import pytest

from workbench.distill.examples import written_rows
from workbench.distill.examples.row_files import Draws, drawn_rows
from workbench.distill.examples.written_rows import teacher_writer, write_task_rows


@pytest.fixture
def teacher_that_errs(monkeypatch):
    """Writes what the rule has, but for the second of a batch."""

    def write(model, prompts, drafts, **_):
        return [draft[:-1] if at == 1 else draft for at, draft in enumerate(drafts)]

    monkeypatch.setattr(written_rows, "drafted_tokens", write)


@pytest.mark.usefixtures("teacher_that_errs")
def test_right_chains_of_a_teacher_are_kept(small_task, qwen_tokenizer):
    writer = teacher_writer(None, qwen_tokenizer, max_new_tokens=500, batch_size=4)
    by_rule = drawn_rows(small_task, 0)(range(4))
    by_teacher = drawn_rows(small_task, 0, writer)(range(4))
    assert [row is None for row in by_teacher] == [False, True, False, False]
    assert by_teacher[2:] == by_rule[2:]
    short = teacher_writer(None, qwen_tokenizer, max_new_tokens=8, batch_size=4)
    assert drawn_rows(small_task, 0, short)(range(2)) == [None, None]  # cut, so never at an end


@pytest.mark.usefixtures("few_labels")
def test_rows_by_the_rule_and_by_a_teacher(teacher, tmp_path):
    path = tmp_path / "rule.jsonl"
    assert write_task_rows(path, "icd10cm", teacher, Draws(4), by="rule") == 4
    settings = json.loads((tmp_path / "rule.made.json").read_text())["settings"]
    assert settings["by"] == "rule" and settings["split"] == "seen"
    # A random teacher is never right.
    path = tmp_path / "own.jsonl"
    assert write_task_rows(path, "icd10cm", teacher, Draws(3), room=4, batch_size=2) == 0
    made = json.loads((tmp_path / "own.made.json").read_text())
    assert made["done"] == 3 and made["settings"]["room"] == 4 and path.read_text() == ""
