import hashlib
import json
from copy import deepcopy
from types import SimpleNamespace

import pytest
from fixtures.mutations import mutants

from workbench.errors import InputError
from workbench.prompts.files import read_prompts, write_prompts
from workbench.prompts.prompt import Option, to_json

IN_TOKENS = {
    "id": "p0",
    "event": 0,
    "clean": {"input_ids": [1, 2, 3, 4, 5, 6]},
    "far": {"input_ids": [1, 9, 9, 4, 5, 6]},
    "near": {"input_ids": [8, 4, 5, 6]},
    "aligned_suffix": 3,
    "evidence": [1, 3],
    "options": [
        {"label": "E11.65", "token": 20, "role": "gold", "span": [3, 4]},
        {"label": "E11.9", "token": 21, "role": "near", "span": [4, 5]},
        {"label": "I10", "token": 22, "role": "far", "span": [5, 6]},
    ],
}
NOTES = {"clean": "hyperglycemia", "far": "hypertension", "near": "diabetes nos"}
REST = " ;\noptions:\n With hyperglycemia A\n Without B\n Hypertension C\nanswer:"


def in_text() -> dict:
    clean = "note: " + NOTES["clean"] + REST

    def span(words: str) -> list[int]:
        return [clean.index(words), clean.index(words) + len(words)]

    options = [
        ("E11.65", "gold", " With hyperglycemia A"),
        ("E11.9", "near", "Without B"),
        ("I10", "far", "Hypertension C"),
    ]
    return {
        "id": "p0",
        "event": 0,
        **{name: {"text": f"note: {words}{REST}"} for name, words in NOTES.items()},
        "evidence": span("hyperglycemia"),
        "options": [
            {"label": label, "token_text": words[-2:], "role": role, "span": span(words)}
            for label, role, words in options
        ],
    }


@pytest.fixture
def file(tmp_path):
    """Writes lines (objects, or raw text) to a file and returns its path."""

    def write(*lines):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
        return path

    return write


def refusal(path, tokenizer=None) -> str:
    with pytest.raises(InputError) as error:
        read_prompts(path, tokenizer)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{path}:")
    return message.removeprefix(f"{path}:")


def changed(line: dict, *steps, **entries) -> dict:
    """The line with entries set (or, if None, removed) in the object that the steps lead to."""
    line = deepcopy(line)
    place = line
    for step in steps:
        place = place[step]
    for key, value in entries.items():
        if value is None:
            del place[key]
        else:
            place[key] = value
    return line


def test_a_line_in_token_ids(file):
    prompts = read_prompts(file(IN_TOKENS))
    (event,) = prompts
    assert prompts.task == "prompts" and read_prompts(file(IN_TOKENS), task="mine").task == "mine"
    assert to_json(event) == IN_TOKENS
    assert event.options[1] == Option("E11.9", 21, "near", (4, 5))
    assert (event.far, event.evidence, event.aligned_suffix) == ((1, 9, 9, 4, 5, 6), (1, 3), 3)


def test_the_families_of_options_are_kept(file):
    line = deepcopy(IN_TOKENS)
    for option, family in zip(line["options"], ("E11", "E11", "I"), strict=True):
        option["family"] = family
    (event,) = read_prompts(file(line))
    assert [option.family for option in event.options] == ["E11", "E11", "I"]
    assert to_json(event) == line


def test_round_trip_is_byte_equal_and_has_the_sets_hash(file, tmp_path):
    strange = changed(IN_TOKENS, id="naïve \u2028 \u00a0 prompt", event=3)
    prompts = read_prompts(file(IN_TOKENS, strange))
    first, second = tmp_path / "new" / "first.jsonl", tmp_path / "second.jsonl"
    write_prompts(prompts, first)
    write_prompts(read_prompts(first), second)
    assert read_prompts(first, task="prompts") == prompts
    assert first.read_bytes() == second.read_bytes()
    assert hashlib.sha256(first.read_bytes()).hexdigest() == prompts.sha256
    assert [path.name for path in first.parent.iterdir()] == ["first.jsonl"]


def test_writing_that_fails_leaves_the_old_file(file, tmp_path, monkeypatch):
    path = file(IN_TOKENS)
    before = path.read_bytes()
    prompts = read_prompts(path)
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_prompts(prompts, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("separator", ["\r\n", "\n\n  \n"])
def test_line_ends_blank_lines_and_byte_order_mark(tmp_path, separator):
    path = tmp_path / "prompts.jsonl"
    lines = [json.dumps(changed(IN_TOKENS, event=event)) for event in (0, 1)]
    path.write_bytes(b"\xef\xbb\xbf" + separator.join(lines).encode())
    assert [event.event for event in read_prompts(path)] == [0, 1]


def test_unreadable_files(tmp_path):
    assert refusal(tmp_path / "nowhere") == " cannot be read, No such file or directory"
    assert refusal(tmp_path) == " cannot be read, Is a directory"
    for content in (b"", b"\n \n"):
        (tmp_path / "empty").write_bytes(content)
        assert refusal(tmp_path / "empty") == " holds no prompts; needs one JSON object a line"


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(json.dumps(IN_TOKENS).encode() + b'\n{"id": "\xe9"}\n')
    assert refusal(path) == " line 2 is not UTF-8; save the file as UTF-8"


MALFORMED = {
    '{"id": "p0", }': "not JSON, column 14: ",
    "[1, 2]": "a JSON object is needed, got list",
    '{"id": "p0", "id": "p1"}': "key 'id' occurs twice in one object",
    '{"clean": ' + "[" * 100_000: "not JSON that can be read: nested too deeply",
    '{"event": ' + "1" * 5000 + "}": "a whole number of 5000 digits is too large",
    '{"event": 1e999}': "the number '1e999' is not finite",
    '{"event": NaN}': "the number 'NaN' is not finite",
    "{}": "id: key is missing (and 7 more)",
    '{"clean": 1, "options": {"a": 1}}': "id: key is missing",
}


@pytest.mark.parametrize(("text", "reason"), MALFORMED.items(), ids=range(len(MALFORMED)))
def test_malformed_lines(file, text, reason):
    assert refusal(file(IN_TOKENS, text)).startswith(f"2: {reason}")


REFUSALS = {
    "unknown key": ((), {"colour": 1}, "colour: unknown key"),
    "text in tokens": (("options", 1), {"text": "x"}, "mixes text ('text') and token"),
    "unknown key of an option": (("options", 1), {"name": "x"}, "options[1].name: unknown key"),
    "missing suffix": ((), {"aligned_suffix": None}, "aligned_suffix: key is missing"),
    "bool for int": ((), {"event": True}, "event: input should be a valid integer, got bool"),
    "text for int": (("options", 2), {"token": "22"}, "options[2].token: input should be a valid"),
    "three numbers": ((), {"evidence": [1, 2, 3]}, "evidence: too many: takes at most 2, got 3"),
    "float for int": ((), {"event": 0.0}, "event: input should be a valid integer, got float"),
    "false suffix": ((), {"aligned_suffix": False}, "aligned_suffix: input should be a valid int"),
    "long suffix": ((), {"aligned_suffix": 7}, "does not share the last 7 tokens"),
    "event": ((), {"event": -1}, "events count from 0"),
    "gold is near": (("options", 1), {"label": "E11.65"}, "options[0] and options[1] are one"),
    "one token": (("options", 1), {"token": 20}, "share token 20"),
    "no near": ((), {"near": None}, "near: key is missing"),
    "role": (("options", 0), {"role": "best"}, "options[0].role: input should be 'gold', 'near'"),
    "span outside": ((), {"evidence": [5, 7]}, "evidence [5, 7] is outside"),
}


@pytest.mark.parametrize(("steps", "entries", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_refused_lines_in_token_ids(file, steps, entries, reason):
    message = refusal(file(IN_TOKENS, changed(IN_TOKENS, *steps, **entries)))
    assert message.startswith("2: ")
    assert reason in message


def test_the_same_event_twice_is_refused_with_both_lines(file):
    other = changed(IN_TOKENS, event=1)
    message = refusal(file(IN_TOKENS, other, IN_TOKENS))
    assert message == "3: the same id and event are on line 1"


def test_a_line_in_text(file, tokenizer):
    (event,) = read_prompts(file(in_text()), tokenizer)
    line = in_text()
    for name in NOTES:
        assert tokenizer.decode(event.variant(name)) == line[name]["text"]
    assert tokenizer.decode(event.clean[slice(*event.evidence)]) == " hyperglycemia"
    words = [tokenizer.decode(event.clean[slice(*option.span)]) for option in event.options]
    assert words == [" With hyperglycemia A", " Without B", " Hypertension C"]
    assert tokenizer.decode(event.option_tokens) == " A B C"
    assert tokenizer.decode(event.clean[-event.aligned_suffix :]) == REST


def test_a_stated_suffix_is_kept(file, tokenizer):
    (event,) = read_prompts(file(changed(in_text(), aligned_suffix=3)), tokenizer)
    assert event.aligned_suffix == 3


def test_text_written_again_is_in_token_ids(file, tokenizer, tmp_path):
    prompts = read_prompts(file(in_text(), changed(IN_TOKENS, event=1)), tokenizer)
    write_prompts(prompts, tmp_path / "tokens.jsonl")
    assert read_prompts(tmp_path / "tokens.jsonl", task=prompts.task) == prompts


TEXT_REFUSALS = {
    "token ids among text": (("far",), {"text": None, "input_ids": [1]}, "mixes text"),
    "token among text": (("options", 0), {"token_text": None, "token": 5}, "mixes text ('text')"),
    "missing token text": (("options", 0), {"token_text": None}, "options[0].token_text: key is"),
    "evidence in a word": (
        (),
        {"evidence": [8, 19]},
        "evidence: span [8, 19] starts inside a token",
    ),
    "option in a word": (("options", 1), {"span": [55, 60]}, "options[1].span: span [55, 60]"),
    "span outside": ((), {"evidence": [0, 999]}, "evidence: span [0, 999] is outside the text"),
    "two tokens": (("options", 0), {"token_text": " A B"}, "text of options[0] is not one token"),
    "no suffix": (("near",), {"text": "note: x"}, "clean, far and near end in different tokens"),
}


@pytest.mark.parametrize(("steps", "entries", "reason"), TEXT_REFUSALS.values(), ids=TEXT_REFUSALS)
def test_refused_lines_in_text(file, tokenizer, steps, entries, reason):
    message = refusal(file(changed(in_text(), *steps, **entries)), tokenizer)
    assert message.startswith("1: ")
    assert reason in message


def leaves(value, path=()):
    """Places of all that is no object and no list."""
    if not isinstance(value, dict | list):
        return [path]
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    return [place for key, inner in steps for place in leaves(inner, (*path, key))]


@pytest.mark.parametrize("mark", ["Smithson", 987654, ["Smithson"], {"text": "Smithson"}])
def test_no_refusal_shows_a_value(file, tokenizer, mark):
    refused = 0
    for line in (IN_TOKENS, in_text()):
        for place in leaves(line):
            bad = json.loads(json.dumps(line))
            *above, last = place
            part = bad
            for step in above:
                part = part[step]
            part[last] = mark
            bad["aligned_suffix"] = 999  # refused for this at last, where not for the mark
            with pytest.raises(InputError) as caught:
                read_prompts(file(bad), tokenizer)
            refused += 1
            assert "Smithson" not in str(caught.value)
    assert refused > 30


@pytest.mark.parametrize("line", [IN_TOKENS, in_text()], ids=["tokens", "text"])
def test_damaged_lines_are_refused_in_one_line(line, tmp_path, tokenizer):
    path, taken = tmp_path / "prompts.jsonl", []
    for mutant in mutants(line, 250, seed=19):
        path.write_bytes(mutant.content)
        try:
            read_prompts(path, tokenizer)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
        else:
            taken.append(mutant)
    # Another number, text or token may be meant; options stand in any order.
    for mutant in taken:
        last = next(step for step in reversed(mutant.where) if isinstance(step, str))
        assert (mutant.how, last) in MAY or last == "aligned_suffix", mutant


MAY = {
    *((how, name) for how in ("out of range", "other type") for name in ("id", "event", "label")),
    *((how, name) for how in ("out of range", "other type") for name in ("input_ids", "token")),
    *((how, "text") for how in ("other type",)),
    *((how, "options") for how in ("shorter", "swapped")),
    *((how, "input_ids") for how in ("doubled", "shorter", "swapped")),
}


def test_text_needs_a_tokenizer(file):
    assert refusal(file(in_text())) == "1: a prompt in text needs the model's tokenizer"


@pytest.mark.parametrize(
    ("d_vocab", "n_context", "near", "message"),
    [
        (22, None, [8, 4, 5, 6], "token 22 in options is not among the model's, 0 to 21"),
        (9, None, [8, 4, 5, 6], "token 9 in variant 'far' is not among the model's, 0 to 8"),
        (23, 5, [8, 4, 5, 6], "variant 'clean' has 6 tokens, the model's context holds 5"),
        (23, 6, [23, 4, 5, 6], "token 23 in variant 'near' is not among the model's, 0 to 22"),
    ],
)
def test_prompts_that_a_model_cannot_run(file, d_vocab, n_context, near, message):
    info = SimpleNamespace(d_vocab=d_vocab)
    model = SimpleNamespace(tokenizer=None, info=info, context_length=n_context)
    path = file(changed(IN_TOKENS, "near", input_ids=near))
    with pytest.raises(InputError) as error:
        read_prompts(path, model=model)
    assert str(error.value) == f"{path}:1: {message}"
    info.d_vocab, model.context_length = 23, 6
    assert len(read_prompts(file(IN_TOKENS), model=model)) == 1
