"""What paths and options tell is refused before heavy imports, what files tell before weights."""

import json
import shutil
import subprocess
import sys

import pytest
from fixtures.calling import call

from workbench.models import loading

HEAVY = ("torch", "transformers", "pandas")
CASES = {
    "distill --headset gone.json --out a": "gone.json: cannot be read, No such file",
    "distill --arm none --out a": "arm 'none' is not one of cot",
    "distill --out a": "need the teacher's pooled heads: give a head set",
    "distill --arm cot --prompts gone --out a": "gone: cannot be read, No such file",
    "distill --arm cot --prompts . --out a": "holds no file of examples (*.jsonl)",
    "distill --arm cot --traces gone --out a": "gone: cannot be read, No such file",
    "distill --arm cot --traces . --prompts . --out a": "give one of both",
    "distill --arm cot --teacher ./gone --out a": "model folder ./gone does not exist",
    "distill --arm cot --student . --out a": "has no config.json",
    "distill --arm cot --task none --out a": "task 'none' is not one of",
    "distill --arm cot --pool coarse --out a": "--pool is of the heads of another tool's list",
    "distill --headset list.txt --out a": "does not say pools; give --pool coarse",
    "distill --arm cot --targets . --out a": "holds no targets, there is no targets.json",
    "distill --arm cot --lora-alpha 3 --out a": "give --lora-rank, too",
    "distill --arm cot --teacher-sharded --out a": "a teacher spread over processes writes no",
    "distill --arm cot --out student": "holds a trained student already",
    "distill --arm cot --out list.txt/a": "cannot be written",
    "distill --arm random --headset heads.json --out a": "give --scores FILE",
    "teacher-targets --headset list.txt --prompts list.txt --out a": "does not say pools",
    "teacher-targets --arm cot --part 2/2 --out a": "parts count from 0 to 1",
    "teacher-targets --arm cot --out a": "give --traces or --prompts",
    "evaluate-students gone --out a": "gone: holds no finished student, there is no such folder",
    "evaluate-students . --out a": "holds no finished student, there is no training.json",
    "evaluate-students student student --out a": "student: is given twice",
    "evaluate-students student --headset gone.json --out a": "gone.json: cannot be read",
    "evaluate-students student --headset list.txt --out a": "does not say pools",
    "evaluate-students student --teacher ./gone --out a": "model folder ./gone does not exist",
    "evaluate-students student --out list.txt/a": "cannot be written",
    "simulability --student a=./gone --out a": "model folder ./gone does not exist",
    "simulability --student a=. --student a=. --out a": "two students are called 'a'",
    "simulability --simulator ./gone --out a": "model folder ./gone does not exist",
    "simulability --rows gone.jsonl --out a": "gone.jsonl: cannot be read, No such file",
    "simulability --rows list.txt --out student": "exists already; give another --out",
    "simulability --rows list.txt --part 0/2 --out a": "go without --student and --part",
    "simulability --part 2/2 --out a": "parts count from 0 to 1",
    "simulability --task none --out a": "task 'none' is not one of",
    "simulability --input-only 0 --out a": "a simulator learns from inputs alone",
    "traces --part 2/2 --out a": "parts count from 0 to 1",
    "traces --by rule --out a": "--by rule writes rows of a task; give --task",
    "traces --task icd10cm --context 99 --out a": "--context says nothing of rows of a task",
    "traces --task icd10cm --choices 2 --out a": "--choices says nothing of rows of a task",
    "traces --task icd10cm --by rule --max-new-tokens 9 --out a": "nothing of rows by the rule",
    "traces --predictions . --trace-seed 1 --out a": "--trace-seed says nothing of rows of doc",
    "traces --predictions gone --out a": "gone: there is no such folder",
    "traces --form none --out a": "--form says nothing of traces in tokens",
    "traces --teacher ./gone --out a": "model folder ./gone does not exist",
}
"""Commands, run in a folder with few files, and what each is refused with."""
RUN = """
import json, sys
from fixtures.calling import call
said = {each: call(each) for each in json.load(sys.stdin)}
json.dump([said, [name for name in %r if name in sys.modules]], sys.stdout)
"""


def test_paths_and_options_are_refused_before_heavy_imports(tmp_path, request):
    heads = {"heads": [{"layer": 0, "head": 1, "pool": "coarse"}]}
    (tmp_path / "heads.json").write_text(json.dumps(heads))
    (tmp_path / "list.txt").write_text("0-1, 1-0")
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "training.json").write_text(json.dumps({"config": {}}))
    root = request.config.rootpath
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[:0] = {[str(root), str(root / 'tests')]}" + RUN % (HEAVY,),
        ],
        input=json.dumps(list(CASES)),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found, loaded = json.loads(done.stdout)
    for command, message in CASES.items():
        code, _, errors = found[command]
        assert (code, message in errors, errors.count("\n")) == (2, True, 1), (command, errors)
    assert not loaded
    assert not (tmp_path / "a").exists()


@pytest.mark.usefixtures("few_labels")
def test_files_are_refused_before_weights_are_loaded(teacher, trace_file, tmp_path, monkeypatch):
    cut = tmp_path / "cut.jsonl"
    cut.write_text("".join(trace_file.read_text().splitlines(keepends=True)[:-1]))
    sister = tmp_path / "sister"
    shutil.copytree(teacher, sister)
    words = json.loads((sister / "tokenizer.json").read_text())
    words["model"]["vocab"] = {f"{word}~": at for word, at in words["model"]["vocab"].items()}
    words["model"]["merges"] = []
    (sister / "tokenizer.json").write_text(json.dumps(words))

    def never(*given, **named):
        raise AssertionError("weights are read")

    monkeypatch.setattr(loading, "read_model", never)
    for flags, message in [
        (f"--traces {cut}", "is unfinished"),
        (f"--traces {trace_file} --context 9999", "the teacher reads"),
        (f"--traces {trace_file} --student-layers 9", "9 cannot be copied from a model of 2"),
        (f"--traces {trace_file} --student {sister}", "tokenizers of teacher and student differ"),
        (f"--traces {trace_file} --trainer optim=adamw_bnb_8bit", "install `bitsandbytes`"),
    ]:
        given = ["--arm cot --no-bf16 --teacher", teacher, flags]
        code, _, errors = call("distill --out", tmp_path / "student", *given)
        assert code == 2 and message in " ".join(errors.split()), errors
    assert not (tmp_path / "student" / "checkpoints" / "asked.json").exists()
