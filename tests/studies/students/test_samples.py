"""Samples of a study: what is read is what was made, of whole and of right files alone."""

import json

import numpy as np
import pytest
from fixtures.chats import ROWS, row, write_rows
from safetensors.numpy import load_file, save_file

from workbench.distill.examples.chats import examples_from_chats
from workbench.distill.examples.row_files import Draws
from workbench.distill.examples.row_files import write_rows as write_part
from workbench.errors import InputError
from workbench.studies.students import samples as module
from workbench.studies.students.samples import Samples, make_samples, read_samples

BARE = {"prompt": "Note: old cough\n", "answer": "D"}
FULL = {
    **row(1),
    "early": [{"span": "The first", "decision": 0}],
    "late": [{"span": "the second", "decision": 1}],
    "shortlist": [{"span": "The first is", "decision": 0}],
    "near_options": [[0, 3], []],
    "evidence": [row(1)["evidence"][0], None],
}


@pytest.fixture
def folder(qwen_tokenizer, make_model, tmp_path):
    """Of a model with a tokenizer."""
    made = tmp_path / "model"
    make_model().save_pretrained(made)
    qwen_tokenizer.save_pretrained(made)
    return made


@pytest.fixture
def make(folder, tmp_path):
    """Makes samples of rows at a path and reads them."""

    def run(rows, n=100, context=1000) -> Samples:
        out = tmp_path / "samples.safetensors"
        n_made = make_samples(rows, folder, context, n, out)
        found = read_samples(out)
        assert len(found) == n_made
        return found

    return run


def as_lists(samples):
    """Without tuples, which no file keeps."""
    return json.loads(json.dumps(samples))


def test_what_is_read_is_what_was_made(make, qwen_tokenizer, tmp_path):
    rows = [BARE, FULL, row(2), {**BARE, "id": 3}]
    expected = as_lists(examples_from_chats(rows, qwen_tokenizer))
    assert {"gold", "near", "near_options", "shortlist", "evidence"} <= set(expected[1])
    found = make(write_rows(tmp_path / "rows.jsonl", rows))
    assert list(found) == expected
    assert isinstance(found[0]["question"], int) and isinstance(found[0]["weights"][0], float)
    assert list(found.of([2, 0])) == [expected[2], expected[0]]
    kinds = {name: part.dtype for name, part in load_file(tmp_path / "samples.safetensors").items()}
    assert kinds.pop("weights") == np.float32 and set(kinds.values()) == {np.dtype(np.int32)}


def test_a_sample_that_lacks_keys_lacks_them_when_read(make, qwen_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)
    rows = [BARE, {**BARE, "id": 1}, FULL, row(2), BARE]
    expected = [
        one
        for at in (0, 2, 4)
        for one in as_lists(examples_from_chats(rows[at : at + 2], qwen_tokenizer))
    ]
    assert "options" not in expected[0] and "gold" in expected[3] and "gold" not in expected[4]
    assert list(make(write_rows(tmp_path / "rows.jsonl", rows))) == expected


def test_the_first_rows_are_taken_and_long_ones_left_out(make, qwen_tokenizer, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [BARE, row(0), BARE, BARE])
    assert len(make(path, n=3)) == 3
    n_tokens = len(examples_from_chats([BARE], qwen_tokenizer)[0]["ids"])
    assert len(make(path, n=3, context=n_tokens + 1)) == 2
    with pytest.raises(InputError, match=f"no row has fewer than {n_tokens} tokens"):
        make(path, context=n_tokens)


def test_parts_are_read_in_order_once_all_are_finished(make, qwen_tokenizer, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()

    def write(which, stop=False):
        def rows(numbers):
            if stop and numbers[0] % 6:
                raise KeyboardInterrupt
            return [ROWS[number % 12] for number in numbers]

        part = Draws(66, part=(which, 11))
        write_part(folder / f"{which}.jsonl", rows, part, {"by": "rule"}, block=2)

    for which in range(10):
        write(which)
    with pytest.raises(InputError, match="part 10 of 11 is missing"):
        make(folder)
    with pytest.raises(KeyboardInterrupt):
        write(10, stop=True)
    with pytest.raises(InputError, match=r"10\.jsonl: is unfinished, 2 of 6 draws"):
        make(folder)
    with pytest.raises(InputError, match=r"10\.jsonl: is unfinished"):
        make(folder / "10.jsonl")
    assert not (tmp_path / "samples.safetensors").exists()
    write(10)
    expected = as_lists(examples_from_chats([ROWS[at % 12] for at in range(66)], qwen_tokenizer))
    assert list(make(folder)) == expected
    assert len(make(folder / "10.jsonl")) == 6, "one part may be given by itself"


def test_bad_rows_are_refused_with_file_and_line(make, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [BARE, {**BARE, "labels": ["X"]}])
    with pytest.raises(InputError, match=r"rows\.jsonl: line 2: labels\[0\] is no word of the"):
        make(path)
    path.write_text('{"prompt"\n')
    with pytest.raises(InputError, match=r"rows\.jsonl: line 1: not JSON"):
        make(path)
    path.write_text("\n")
    with pytest.raises(InputError, match=r"rows\.jsonl: there are no rows"):
        make(path)
    with pytest.raises(InputError, match="cannot be read, No such file"):
        make(tmp_path / "none.jsonl")


def test_damaged_and_foreign_files_are_refused_in_one_line(make, tmp_path):
    make(write_rows(tmp_path / "rows.jsonl", [BARE, row(0)]))
    path = tmp_path / "samples.safetensors"
    whole, arrays = path.read_bytes(), load_file(path)
    keys = {"ids": True, "question": False}
    about = {"samples": json.dumps({"schema": module.SCHEMA, "keys": keys})}

    def rewritten(**changes):
        save_file({**arrays, **changes}, path, about)

    def refused():
        with pytest.raises(InputError, match=r"samples\.safetensors: holds no samples") as said:
            read_samples(path)
        assert "\n" not in str(said.value)

    rewritten()
    assert [set(one) for one in read_samples(path)] == [set(keys)] * 2
    for content in (
        b"",
        b"\x80\x05]",
        whole[:-1],
        whole[:100],
        whole.replace(b"samples 1", b"?" * 9),
    ):
        path.write_bytes(content)
        refused()
    for changes in (
        {"ids": arrays["ids"][:-1]},
        {"ids/n": arrays["ids/n"][:1]},
        {"question/n": np.array([2, 0], dtype=np.int32)},
        {"ids/n": np.array([-2, len(arrays["ids"])], dtype=np.int32)},
    ):
        rewritten(**changes)
        refused()
    save_file(arrays, path)
    refused()
    path.unlink()
    with pytest.raises(InputError, match="cannot be read, No such file"):
        read_samples(path)
