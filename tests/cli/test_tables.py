import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from workbench.cli import app
from workbench.labels import cache as label_cache
from workbench.models.loading import bundled_model_path
from workbench.prompts.make import needed_tokenizer

LABELS = {
    f"{kind[0]}{n}": f"{kind} of {where}"
    for kind in ("burn", "fracture", "Ulcer")
    for n, where in enumerate(("arm", "leg", "neck"))
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(label_cache, "user_cache_path", lambda *_: tmp_path / "cache")
    rows = [
        {"note": f"Secretly seen with {text.lower()}, sent home.", "code": label, "proof": text}
        for label, text in LABELS.items()
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "notes.csv", index=False)
    pd.DataFrame({"id": list(LABELS), "title": list(LABELS.values())}).to_csv(
        tmp_path / "labels.tsv", index=False, sep="\t"
    )
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    return tmp_path


def invoke(files, *more, labels="labels.json"):
    arguments = ["prompts", "--from", files / "notes.csv", "--out", files / "p.jsonl"]
    arguments += ["--labels", files / labels] if labels else []
    return CliRunner().invoke(app, [str(one) for one in (*arguments, *more)])


COLUMNS = ("--columns", "text=note,labels=code,evidence=proof")


def test_tables_become_a_prompt_file(files):
    result = invoke(
        files, *COLUMNS, "--label-columns", "text=title", "--n-options", "6", labels="labels.tsv"
    )
    assert result.exit_code == 0, result.output
    assert "9 events of 9 prompts" in result.stdout
    assert "notes: 9 prompts of 9 documents" in result.stderr
    assert "ecretly" not in result.output
    again = invoke(files, *COLUMNS)
    assert again.exit_code == 2 and "exists already" in again.stderr


def test_a_template_of_a_file(files):
    (files / "t.txt").write_text("{document}\n\n{options}\n\nThe answer is: {answer}\n")
    result = invoke(files, *COLUMNS, "--template-file", files / "t.txt", "--n", "2")
    assert result.exit_code == 0, result.output
    assert "notes: 2 prompts of 2 documents" in result.stderr
    tokenizer = needed_tokenizer(bundled_model_path())
    for line in (files / "p.jsonl").read_text().splitlines():
        text = tokenizer.decode(json.loads(line)["clean"]["input_ids"])
        assert text.endswith("\n\nThe answer is:") and text.startswith("Secretly")


@pytest.mark.parametrize(
    ("more", "labels", "message"),
    [
        ((), None, "--from needs --labels"),
        (("--task", "icd10cm"), "labels.json", "--task icd10cm and --from"),
        (("--columns", "text"), "labels.json", "--columns: give pairs"),
        ((), "labels.json", "documents table lacks column 'text', 'labels'"),
        ((), "labels.tsv", "labels table lacks column 'text'"),
        ((), "gone.csv", "no such file"),
        ((), "p.xlsx", "a csv, tsv, jsonl, parquet or feather file of labels is needed"),
        (("--template-file", "labels.json"), "labels.json", "labels.json: "),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(files, more, labels, message):
    result = invoke(files, *more, labels=labels)
    assert result.exit_code == 2 and message in result.stderr
    assert result.stderr.count("\n") == 1


def test_label_tables_go_with_documents(tmp_path):
    arguments = ["prompts", "--out", str(tmp_path / "p.jsonl"), "--labels", "x.csv"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "go with --from" in result.stderr
