"""The page's way from one's own lines to a student: in Python, and by one command."""

import json
import shlex

import pytest
import torch
from docs.test_code_blocks import PAGES, arguments, blocks
from fixtures.chats import write_rows
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from typer.testing import CliRunner

from workbench.cli import app

PAGE = next(page for page in PAGES if page.name == "distil_a_student.md")
TEACHER_ROWS, STUDENT_ROWS = 6, 40
"""Of the embeddings, beyond the tokenizer's."""


@pytest.fixture
def there(qwen_tokenizer, make_model, tmp_path, monkeypatch):
    """A folder that holds what the page names."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    n = len(qwen_tokenizer)
    end = {"eos_token_id": qwen_tokenizer.eos_token_id, "pad_token_id": 0, "bos_token_id": None}
    sizes |= {"vocab_size": n + TEACHER_ROWS}
    Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, **end)).save_pretrained("TEACHER")
    make_model(seed=1, vocab_size=n + STUDENT_ROWS).save_pretrained("STUDENT")
    for name in ("TEACHER", "STUDENT"):
        qwen_tokenizer.save_pretrained(name)
    write_rows(tmp_path / "mine.jsonl")
    pools = {"coarse": [(0, 1)], "refine": [(1, 2), (1, 3)]}
    heads = [
        {"layer": layer, "head": head, "pool": pool}
        for pool, chosen in pools.items()
        for layer, head in chosen
    ]
    (tmp_path / "heads.json").write_text(json.dumps({"heads": heads}))
    return tmp_path


def test_twenty_lines_or_one_command(there):
    code = [x.text for x in blocks(PAGE) if x.language == "python" and "mine.jsonl" in x.text]
    assert len(code) == 1 and len([line for line in code[0].splitlines() if line.strip()]) <= 20
    assert "steps=200)" in code[0]
    few = "steps=12, batch_size=4, learning_rate=3e-3, warmup_steps=1, bf16=False)"
    names = {}
    exec(compile(code[0].replace("steps=200)", few), str(PAGE), "exec"), names)
    rows = names["record"]["loss"]
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in rows)
    for name in ("loss", "loss_chain"):
        values = [row[name] for row in rows]
        assert len(values) == 12 and sum(values[-4:]) < 0.9 * sum(values[:4])

    calls = [
        shlex.split(line)
        for x in blocks(PAGE)
        if x.language == "sh"
        for line in x.text.splitlines()
    ]
    call = next(words for words in calls if "mine.jsonl" in words and "STUDENT" in words)
    call[call.index("--out") + 1] = "students/command"
    more = "--steps 12 --batch-size 4 --learning-rate 3e-3 --warmup-steps 1 --no-bf16"
    done = CliRunner().invoke(app, [*arguments(call), *more.split()])
    assert done.exit_code == 0, done.output
    ends = [load_file(f"students/{x}/model.safetensors") for x in ("mine", "command")]
    for name, weight in ends[0].items():
        torch.testing.assert_close(ends[1][name], weight)

    student = LlamaForCausalLM.from_pretrained("students/mine")
    tokenizer = AutoTokenizer.from_pretrained("students/mine")
    assert student.config.vocab_size == len(tokenizer) + STUDENT_ROWS
    start = load_file("STUDENT/model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    assert not torch.equal(student.model.layers[0].self_attn.q_proj.weight, start)
