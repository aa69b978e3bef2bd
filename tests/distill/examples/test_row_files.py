import json

import pytest

from workbench.distill.examples.row_files import Draws, record_path, row_files, write_rows
from workbench.distill.examples.rows import read_rows
from workbench.errors import InputError


def rows(numbers):
    """Every third draw is wrong."""
    return [{"prompt": f"q{n}", "answer": "A"} if n % 3 else None for n in numbers]


def unasked(numbers):
    raise AssertionError


def write(path, part=(0, 1), n=10, seed=0, rows=rows, **options):
    return write_rows(path, rows, Draws(n, seed, part), {"by": "rule"}, block=4, **options)


def test_right_draws_are_rows_and_all_are_counted(tmp_path):
    path, told = tmp_path / "rows.jsonl", []
    assert write(path, progress=lambda done, of: told.append((done, of))) == 6
    assert [row.prompt for _, row in read_rows(path)] == ["q1", "q2", "q4", "q5", "q7", "q8"]
    assert told == [(4, 10), (8, 10), (10, 10)]
    made = json.loads(record_path(path).read_text())
    assert (made["done"], made["kept"], made["settings"]) == (10, 6, {"by": "rule", "seed": 0})
    text = path.read_bytes()
    assert write(path, rows=unasked) == 6 and path.read_bytes() == text  # nothing is made again


def test_what_was_begun_goes_on(tmp_path):
    whole, path, asked = tmp_path / "whole.jsonl", tmp_path / "rows.jsonl", []
    write(whole)

    def stopped(numbers):
        asked.extend(numbers)
        if len(asked) > 4:
            raise KeyboardInterrupt
        return rows(numbers)

    with pytest.raises(KeyboardInterrupt):
        write(path, rows=stopped)
    with path.open("a") as file:
        file.write('{"prompt": "cut o')
    with pytest.raises(InputError, match=r"is unfinished, 4 of 10 draws; the command"):
        row_files(path)
    asked.clear()
    write(path, rows=lambda numbers: [asked.extend(numbers), rows(numbers)][1])
    assert asked == list(range(4, 10)) and path.read_bytes() == whole.read_bytes()


def test_parts_make_the_whole_in_order(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for which in range(11):
        write(folder / f"{which}.jsonl", (which, 11), n=22)
    assert [row.prompt for _, row in read_rows(folder)] == [f"q{n}" for n in range(22) if n % 3]


def test_folders_that_are_no_whole_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no file of rows \(\*\.jsonl\)"):
        row_files(tmp_path)
    write(tmp_path / "0.jsonl", (0, 2))
    with pytest.raises(InputError, match="part 1 of 2 is missing"):
        row_files(tmp_path)
    write(tmp_path / "b.jsonl", (1, 2), seed=1)
    with pytest.raises(InputError, match=r"b\.jsonl: is no further part of the rows in 0\.jsonl"):
        row_files(tmp_path)
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(InputError, match=r"b\.jsonl: has 0 bytes, its record says"):
        row_files(tmp_path)
    record_path(tmp_path / "b.jsonl").unlink()
    with pytest.raises(InputError, match=r"b\.jsonl: no record says how it was made"):
        row_files(tmp_path)
    record_path(tmp_path / "0.jsonl").unlink()
    assert [path.name for path in row_files(tmp_path)] == ["0.jsonl", "b.jsonl"]  # one's own


def test_other_settings_and_files_of_others_are_left_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path)
    with pytest.raises(InputError, match=r"holds rows made with other settings \(n, seed\)"):
        write(path, n=9, seed=2)
    record_path(path).write_text("{}")
    with pytest.raises(InputError, match=r"rows\.made\.json: is no record of rows"):
        write(path)
    record_path(path).unlink()
    with pytest.raises(InputError, match="no record says how it was made"):
        write(path)
    with pytest.raises(InputError, match=r"named \.jsonl"):
        write(tmp_path / "rows.txt")
    with pytest.raises(InputError, match="part 2 of 2 is not there"):
        write(path, (2, 2))
