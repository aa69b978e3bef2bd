import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from fixtures.distillation import right_chain

from workbench.distill.examples import questions, traces
from workbench.distill.examples.traces import (
    SCHEMA,
    TraceConfig,
    count_draws,
    fingerprint,
    read_traces,
    write_traces,
)
from workbench.errors import InputError

HEADLESS = json.dumps({"schema": SCHEMA}).encode()
BAD_PART = json.dumps({"schema": SCHEMA, "teacher": "t", "n": 1, "part": [1, 1]}).encode()
CONFIG = TraceConfig(n=10, same_size=4, ramp=0.5)


@pytest.fixture
def perfect_teacher(monkeypatch):
    """Writes right chains, but for every third prompt; says which prompts it was asked."""
    chains, asked = {}, []
    make = questions.make_question

    def remember(task, prompt, encode):
        question = make(task, prompt, encode)
        chains[question.ids] = right_chain(task, prompt, encode)
        return question

    def write(model, prompts, *, max_new_tokens, **_):
        written = []
        for prompt in prompts:
            asked.append(tuple(prompt))
            ids = next(ids for ids in chains if tuple(prompt[: len(ids)]) == ids)
            wrong = len(asked) % 3 == 0
            written.append(chains[ids][: -1 if wrong else None][:max_new_tokens])
        return written

    monkeypatch.setattr(questions, "make_question", remember)
    monkeypatch.setattr(traces, "greedy_tokens", write)
    return asked


@pytest.fixture
def write(small_task, encode):
    def run(path, config=CONFIG, batch_size=5, **options):
        return write_traces(
            path, None, small_task, encode, config, teacher="t", batch_size=batch_size, **options
        )

    return run


def test_right_chains_are_kept_and_wrong_ones_counted(perfect_teacher, write, tmp_path):
    path, told = tmp_path / "traces.jsonl", []
    kept = write(path, progress=lambda done, of: told.append((done, of)))
    assert kept == 7 == len(read_traces(path))
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert [line["draw"] for line in lines] == list(range(10))
    assert [line["draw"] for line in lines if "target" not in line] == [2, 5, 8]
    assert told == [(5, 10), (10, 10)]
    assert "note" not in path.read_text()  # tokens, no text


def test_an_interrupted_file_is_continued(perfect_teacher, write, tmp_path):
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    write(whole)

    def stop(done, of):
        raise KeyboardInterrupt

    perfect_teacher.clear()
    with pytest.raises(KeyboardInterrupt):
        write(parts, progress=stop)
    with parts.open("a") as file:
        file.write('{"draw":5,"que')  # killed while it wrote
    assert write(parts) == 7
    assert parts.read_text() == whole.read_text()
    assert len(perfect_teacher) == 10
    assert write(parts) == 7 and len(perfect_teacher) == 10


def test_chains_that_were_cut_off_are_left_out(perfect_teacher, write, tmp_path):
    config = TraceConfig(n=10, same_size=4, max_new_tokens=5)
    path = tmp_path / "traces.jsonl"
    assert write(path, config) == 0
    with pytest.raises(InputError, match="answered nothing rightly"):
        read_traces(path)


def test_files_of_other_settings_and_unfinished_ones_are_refused(perfect_teacher, write, tmp_path):
    path = tmp_path / "traces.jsonl"
    write(path)
    with pytest.raises(InputError, match=r"other settings \(seed\)"):
        write(path, TraceConfig(n=10, same_size=4, ramp=0.5, seed=1))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="is unfinished, 9 of 10 draws"):
        read_traces(path)


def test_mentions_are_written_out_at_first(small_task, encode, monkeypatch):
    eases = []
    draw = traces.draw_question
    monkeypatch.setattr(
        traces, "draw_question", lambda *args: (eases.append(args[-1]), draw(*args))[1]
    )
    drawn = [traces._question(small_task, encode, CONFIG, number) for number in range(10)]
    assert eases == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert len({len(question.option_spans) for question in drawn[:4]}) == 1


def test_a_folder_of_parts_is_the_whole(perfect_teacher, write, tmp_path):
    whole, folder = tmp_path / "whole.jsonl", tmp_path / "parts"
    write(whole)
    perfect_teacher.clear()
    for which in range(3):
        write(folder / f"{9 - which}.jsonl", replace(CONFIG, part=(which, 3)))
    parts = read_traces(folder)
    assert parts == read_traces(whole) and fingerprint(parts) != fingerprint(parts[1:])
    assert count_draws(folder) == count_draws(whole) == CONFIG.n
    (folder / "8.jsonl").rename(tmp_path / "away")
    with pytest.raises(InputError, match="part 1 of 3 is missing"):
        read_traces(folder)
    write(folder / "8.jsonl", replace(CONFIG, part=(1, 3), seed=1))
    with pytest.raises(InputError, match="is no further part of the traces in"):
        read_traces(folder)


def test_only_one_process_writes_a_file(perfect_teacher, write, tmp_path):
    path, told = tmp_path / "traces.jsonl", []

    def write_too(done, of):
        with (  # a thread stands for the process: one that holds a lock may take it again
            ThreadPoolExecutor(1) as other,
            pytest.raises(InputError, match="another process is writing traces to it") as refused,
        ):
            other.submit(write, path).result()
        told.append(refused)

    assert write(path, progress=write_too) == 7 == len(read_traces(path))
    assert len(told) == 2


def test_what_is_no_trace_file_is_left_as_it_is(perfect_teacher, write, tmp_path):
    path = tmp_path / "weights.jsonl"
    for there in (
        b"\xff\xfe\x00",
        b"one line",
        b'{"schema": "other"}',
        HEADLESS,
        b"[" * 100_000,
        BAD_PART,
    ):
        path.write_bytes(there)
        with pytest.raises(InputError, match="is no trace file"):
            write(path)
        for read in (read_traces, count_draws):
            with pytest.raises(InputError, match="is no trace file"):
                read(path)
        assert path.read_bytes() == there
    with pytest.raises(InputError, match="is a folder; give a file"):
        write(tmp_path)


def test_a_context_that_nothing_fits_is_refused_before_the_teacher_writes(write, tmp_path):
    with pytest.raises(InputError, match="context is 20: even of the questions"):
        write(tmp_path / "traces.jsonl", replace(CONFIG, context=20))
    assert not (tmp_path / "traces.jsonl").exists()


DAMAGE = {
    "removed": (lambda lines: lines[:4] + lines[5:], "line 5 is draw 4, must be 3"),
    "doubled": (lambda lines: [*lines[:5], *lines[4:]], "line 6 is draw 3, must be 4"),
    "swapped": (lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]], "line 5 is draw 4"),
    "one more": (lambda lines: [*lines, lines[-1]], "line 12 is one more than its 10 draws"),
    "foreign": (lambda lines: [*lines[:4], '{"a": 1}\n', *lines[5:]], "line 5 is no trace; cut"),
    "no JSON": (lambda lines: [*lines[:4], lines[4][:50] + "\n", *lines[5:]], "line 5 is no trace"),
    "deep": (lambda lines: [*lines[:4], "[" * 100_000 + "\n", *lines[5:]], "line 5 is no trace"),
    "float": (lambda lines: [x.replace('"draw":3', '"draw":3.0') for x in lines], "line 5 is no"),
    "place": (
        lambda lines: [x.replace('"decisions":[', '"decisions":[1,') for x in lines],
        "whole",
    ),
    "half": (lambda lines: [x.replace('"target"', '"draw":3,"targe"') for x in lines], "no trace"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_neither_read_nor_continued(
    damage, message, perfect_teacher, write, tmp_path
):
    path = tmp_path / "traces.jsonl"
    write(path)
    damaged = "".join(damage(path.read_text().splitlines(keepends=True)))
    path.write_text(damaged)
    for use in (read_traces, write):
        with pytest.raises(InputError, match=message) as refused:
            use(path)
        assert "\n" not in str(refused.value) and str(path) in str(refused.value)
    assert path.read_text() == damaged


def test_tokens_that_no_model_reads_are_refused(perfect_teacher, write, tmp_path):
    path = tmp_path / "traces.jsonl"
    write(path)
    most = max(max(example.tokens) for example in read_traces(path))
    assert read_traces(path, n_tokens=most + 1)
    with pytest.raises(InputError, match=f"holds token {most}, .* ids 0 to {most - 1}$"):
        read_traces(path, n_tokens=most)


def test_a_trace_file_is_its_owners_alone_also_where_it_is_continued(
    perfect_teacher, write, tmp_path
):
    path = tmp_path / "traces.jsonl"
    write(path)
    lines = path.read_text().splitlines(keepends=True)
    whole = path.read_bytes()
    path.write_bytes("".join(lines[:6])[:-9].encode())
    write(path)
    assert path.read_bytes() == whole and path.stat().st_mode & 0o777 == 0o600
