import json
from dataclasses import replace

import pytest

from workbench.errors import InputError
from workbench.prompts.chat import ChatTemplate
from workbench.prompts.events import make_events
from workbench.prompts.files import read_prompts
from workbench.prompts.meaning import Meaning, changed, check_meaning
from workbench.prompts.prompt import VARIANTS
from workbench.prompts.templates import PlainTemplate

CHECKED = ("plain", "chat")


@pytest.fixture(scope="module")
def events(seen_task, tokenizer, chat_tokenizer):
    """One event of a task in each template."""
    templates = {"plain": (PlainTemplate(), tokenizer)}
    templates["chat"] = (ChatTemplate(chat_tokenizer), chat_tokenizer)
    made = {
        name: make_events(seen_task, *setting, n_prompts=3, seed=2)
        for name, setting in templates.items()
    }
    return {name: list(prompts) for name, prompts in made.items()}


def refusal(event):
    with pytest.raises(InputError) as refused:
        check_meaning(event)
    message = str(refused.value)
    assert "\n" not in message and event.id not in message
    said = event.text() if event.tokenizer else ""
    words = {word for word in said.split() if len(word) > 8 and word.isalpha()}
    assert not words & set(message.split())
    return message


def with_options(event, **changes):
    """The event with other options; each change is a list, a value an option."""
    columns = [
        dict(zip(changes, values, strict=True)) for values in zip(*changes.values(), strict=True)
    ]
    options = [replace(one, **new) for one, new in zip(event.options, columns, strict=True)]
    return replace(event, options=tuple(options))


def turned(values):
    """Each value at the place before; so that all are exchanged."""
    return [*values[1:], values[0]]


@pytest.mark.parametrize("form", CHECKED)
def test_what_tasks_make_is_meant(events, form):
    for event in events[form]:
        check_meaning(event)
        check_meaning(replace(event, tokenizer=None))


@pytest.mark.parametrize("form", CHECKED)
def test_letters_without_their_space_or_with_one_too_many(events, form):
    event = events[form][0]
    texts = [str(text) for text in Meaning(event).continuations]
    assert all(text.startswith(" ") == (form == "plain") for text in texts)
    other = [text.strip() if form == "plain" else f" {text}" for text in texts]
    rows = [event.tokenizer.encode(text, add_special_tokens=False) for text in other]
    kept = [at for at, row in enumerate(rows) if len(row) == 1]  # the vocabulary is small
    event = replace(event, options=tuple(event.options[at] for at in kept))
    tokens = [rows[at][0] for at in kept]
    message = refusal(with_options(event, token=tokens))
    if form == "chat":
        assert "option tokens begin with a space" in message
    else:
        assert "option tokens begin without a space, but after this prompt's last sign" in message
        assert f"options[0].token must be {event.options[0].token}, not {tokens[0]}" in message
    check_meaning(replace(with_options(event, token=tokens), tokenizer=None))


@pytest.mark.parametrize("form", CHECKED)
def test_spans_or_tokens_that_are_exchanged(events, form):
    event = events[form][0]
    spans = [one.span for one in event.options]
    message = refusal(with_options(event, span=turned(spans)))
    assert "options[0].span holds the option that options[1].token selects" in message
    two = [spans[1], spans[0], *spans[2:]]
    assert "spans or tokens are exchanged" in refusal(with_options(event, span=two))
    beside = [(a, b - 1) if form == "plain" else (a + 2, b) for a, b in spans]
    check_meaning(with_options(event, span=beside))
    assert "exchanged" in refusal(with_options(event, span=turned(beside)))


def test_labels_that_are_texts_and_exchanged(events):
    event = events["chat"][0]
    labels = [event.pieces().of(one.span)[3:] for one in event.options]
    check_meaning(with_options(event, label=labels))
    two = [labels[1], labels[0], *labels[2:]]
    message = refusal(with_options(event, label=two))
    assert "options[1].span holds the label of options[0]; labels or spans are" in message


@pytest.mark.parametrize("known", [True, False])
def test_places_that_cannot_be_meant(events, known):
    event = events["plain"][0]
    event = event if known else replace(event, tokenizer=None)
    first, second = (one.span for one in event.options[:2])
    start = len(event.clean) - event.aligned_suffix
    a, b = event.evidence
    inside = (first[0] + 1, first[1])
    for evidence, message in {
        inside: f"evidence {[*inside]} lies in options[0].span {[*first]}",
        (a, first[0] + 1): "overlaps options[0].span",
        (a, start + 1): f"reaches into the aligned suffix, which begins at {start} and is",
        (0, 1): "evidence is the same tokens in 'clean' and in 'far', which differ in",
    }.items():
        assert message in refusal(replace(event, evidence=evidence))
    assert "fine_evidence" in refusal(replace(event, fine_evidence=inside))
    spans = [one.span for one in event.options]
    wide = [(first[0], second[0] + 1), *spans[1:]]
    assert "options[1].span" in refusal(with_options(event, span=wide))
    assert "overlaps options[0].span" in refusal(with_options(event, span=wide))
    assert b <= start


def test_what_changed_is_found_in_both(events):
    for event in events["plain"]:
        for name in ("far", "near"):
            (a, b), (c, d) = changed(event, name)
            assert event.clean[:a] == event.variant(name)[:c]
            assert event.clean[b:] == event.variant(name)[d:]
            assert event.clean[a:b] != event.variant(name)[c:d]
            assert event.evidence[0] <= b and a <= event.evidence[1]


def written(tokenizer, tmp_path, shown, cue, *tokens, labels=("L1", "L2", "L3"), whole=False):
    """The event of a text whose options are shown as lines, read from a file."""
    texts = [line.strip() if whole else line.strip(" ABC.") for line in shown]
    starts = ["note: cold;\n", "note: warm;\n", "note: fine;\n"]
    read = [start + "\n".join(shown) + cue for start in starts]
    spans, at = [], len(starts[0])
    for line, text in zip(shown, texts, strict=True):
        first = at + line.index(text)
        spans.append([first, first + len(text)])
        at += len(line) + 1
    roles = ("gold", "near", "far")
    options = [
        {"label": label, "token_text": token, "role": role, "span": span}
        for label, token, role, span in zip(labels, tokens, roles, spans, strict=True)
    ]
    variants = {name: {"text": text} for name, text in zip(VARIANTS, read, strict=True)}
    row = {"id": "p", "event": 0, **variants, "evidence": [5, 10], "options": options}
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row))
    return read_prompts(path, tokenizer)


LINES = [" cyst of spleen A", " gout left foot B", " burn of arm C"]
DOTTED = ["A. cyst of spleen", "B. gout left foot", "C. burn of arm"]


def test_a_text_that_can_be_meant_is_read(tokenizer, tmp_path):
    assert written(tokenizer, tmp_path, LINES, "\nanswer:", " A", " B", " C")
    assert written(tokenizer, tmp_path, DOTTED, "\nanswer:\n", "A", "B", "C")
    assert written(tokenizer, tmp_path, LINES, "\nanswer (", "A", "B", "C")
    for cue in ("\n答案是", "\n答えは", "\n정답은", "\n答案(A-C):", "\n请选ABC:", "\n答案："):
        assert written(tokenizer, tmp_path, LINES, cue, "A", "B", "C")
    shown = "\n\n".join(f"note: old;\nanswer:{letter}" for letter in "AC")
    assert written(tokenizer, tmp_path, LINES, f"\n{shown}\n\nanswer:", "A", "B", "C")


def test_texts_that_differ_in_signs_are_two(tokenizer, tmp_path):
    for texts in (("C", "C++", "C#"), ("1.5 mg", "15 mg", "1 5 mg"), ("<5", ">5", "=5")):
        for form in ("{1}. {0}", "({1}) {0}", " {0} {1}"):
            shown = [form.format(*both) for both in zip(texts, "ABC", strict=True)]
            assert written(tokenizer, tmp_path, shown, "\nanswer:", " A", " B", " C", whole=True)


@pytest.mark.parametrize(
    ("shown", "cue", "tokens", "message"),
    [
        (LINES, "\nanswer:", "ABC", "begin without a space, but after this prompt's last sign"),
        (LINES, "\nit is", "ABC", "begin without a space, but after this prompt's last sign"),
        (DOTTED, "\nanswer:\n", [" A", " B", " C"], "the prompt ends in a line break"),
        (LINES, "\nanswer: ", "ABC", "'clean' ends in a space, after which"),
        (LINES, "\nanswer:", [" B", " C", " A"], "options.0..span holds the option that options"),
        (LINES, "\nanswer:", [" A", " B", " E"], "options.2..token selects another letter than"),
        (DOTTED, "\nanswer:", [" B", " C", " D"], "options.0..token selects another letter than"),
        ([LINES[0], " cyst of spleen B", LINES[2]], "\nanswer:", [" A", " B", " C"], "one text"),
    ],
)
def test_texts_that_cannot_be_meant_are_refused(tokenizer, tmp_path, shown, cue, tokens, message):
    with pytest.raises(InputError, match=message) as refused:
        written(tokenizer, tmp_path, shown, cue, *tokens)
    assert str(refused.value).startswith(f"{tmp_path / 'p.jsonl'}:1: ")
    assert "spleen" not in str(refused.value)


def test_a_span_of_blanks(events):
    event = events["plain"][0]
    spans = [one.span for one in event.options]
    between = range(spans[0][1], spans[1][0])
    line = next(at for at in between if event.pieces().of((at, at + 1)) == "\n")
    message = refusal(with_options(event, span=[(line, line + 1), *spans[1:]]))
    assert "options[0].span" in message and "holds only blanks" in message


def test_a_token_that_the_tokenizer_does_not_write_there(events):
    event = events["plain"][0]
    words = {event.tokenizer.decode([event.option_tokens[0]]): 7}

    class Other:
        """The tokenizer, which writes one letter as another token."""

        def __getattr__(self, name):
            return getattr(event.tokenizer, name)

        def __call__(self, text, **how):
            made = event.tokenizer(text, **how)
            if isinstance(text, str) and text.endswith(tuple(words)):
                made["input_ids"][-1] = 7
            return made

    message = refusal(replace(event, tokenizer=Other()))
    letter = event.options[0].token
    assert f"options[0].token is {letter}, but this tokenizer writes its text there" in message
