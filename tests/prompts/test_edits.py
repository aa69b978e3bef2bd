import json
import random
import re
from dataclasses import replace

import pytest
from models.test_pieces import sentencepiece  # noqa: F401, a fixture

from workbench.errors import InputError
from workbench.prompts.edits import edit_at, with_text
from workbench.prompts.events import make_events
from workbench.prompts.files import read_prompts
from workbench.prompts.prompt import VARIANTS

NOTE = "note: 1 . {} ; 2 . old cough ;\noptions:\n mild fever A\n wet chills B\n gout C\nanswer:"
WORDS = {"clean": "hot fever", "far": "sore toe", "near": "wet chills"}


def line(**clean: str) -> dict:
    """A prompt of text; `clean` replaces what its clean variant says."""
    texts = {name: NOTE.format(words) for name, words in (WORDS | clean).items()}
    shown = [("mild fever", " A", "gold"), ("wet chills", " B", "near"), ("gout", " C", "far")]

    def span(part: str, start: int = 0) -> list[int]:
        at = texts["clean"].index(" " + part, start)
        return [at, at + 1 + len(part)]

    options = texts["clean"].index("options")
    return {
        "id": "t",
        "event": 0,
        **{name: {"text": text} for name, text in texts.items()},
        "evidence": span((WORDS | clean)["clean"]),
        "options": [
            {"label": text, "token_text": letter, "role": role, "span": span(text, options)}
            for text, letter, role in shown
        ],
    }


@pytest.fixture(params=["tokenizer", "chat_tokenizer", "sentencepiece"])
def any_tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def read(tmp_path, any_tokenizer):
    def read(made: dict):
        (tmp_path / "made.jsonl").write_text(json.dumps(made))
        return read_prompts(tmp_path / "made.jsonl", any_tokenizer).events[0]

    return read


@pytest.fixture
def event(read):
    return read(line())


def said(event, variant: str = "clean") -> str:
    return event.text(variant).removeprefix("<s>").lstrip(" ")


def shown(event) -> list[str]:
    spans = [event.evidence, *(option.span for option in event.options)]
    return [event.pieces().of(span).strip() for span in spans]


def test_evidence_is_changed_in_the_clean_variant_alone(event, read):
    new = event.edit("hot fever", "a high pulse")
    assert new == read(line(clean="a high pulse"))
    assert said(new) == NOTE.format("a high pulse")
    assert [new.far, new.near] == [event.far, event.near]
    assert shown(new) == ["a high pulse", *shown(event)[1:]]


def test_what_the_variants_share_is_changed_in_all_three(event):
    for old, words in [("old cough", "no pain at all"), ("note: 1", "findings: 1"), (".", ",")]:
        new = event.edit(old, words, occurrence=0)
        for variant in VARIANTS:
            assert said(new, variant) == said(event, variant).replace(old, words, 1)
        assert shown(new) == shown(event)
        ends = {new.variant(name)[-new.aligned_suffix :] for name in VARIANTS}
        assert len(ends) == 1


def test_the_suffix_goes_as_far_as_it_meant_something(event):
    assert event.edit("old", "very old").aligned_suffix > event.aligned_suffix
    # The clean text is now more like the near one, which is no reason to patch more of it.
    alike = event.edit("hot fever", "red chills")
    assert alike.aligned_suffix <= event.aligned_suffix
    assert alike.edit("red chills", "hot fever") == event


def test_the_label_of_an_option_follows_its_text(event):
    new = event.edit("gout", "acute gout")
    assert [option.label for option in new.options] == ["mild fever", "wet chills", "acute gout"]
    assert shown(new)[3] == "acute gout"
    assert [option.token for option in new.options] == event.option_tokens
    coded = line()
    coded["options"][2]["label"] = "M10"
    assert event.edit("gout", "pain").options[2].label == "pain"
    assert with_text(new, event.text()) == event


def test_a_label_that_is_no_part_of_the_text_stays(read):
    coded = line()
    coded["options"][2]["label"] = "M10"
    assert read(coded).edit("gout", "pain").options[2].label == "M10"


def test_text_at_the_end_of_a_span_lengthens_it(event):
    text = event.text()
    end, start = text.index(" ; 2"), text.index(" hot")
    new = edit_at(event, end, end, " and chills")
    assert shown(new)[0] == "hot fever and chills"
    before = edit_at(event, start, start, " very")
    assert shown(before)[0] == "hot fever" and "very sore" in before.text("far")


def test_free_typing_in_several_places(event):
    text = event.text().replace("hot fever", "high fever").replace("old cough", "dry cough")
    new = with_text(event, text.replace("gout", "joint pain"))
    assert said(new) == NOTE.format("high fever").replace("old", "dry").replace(
        "gout", "joint pain"
    )
    assert "sore toe ; 2 . dry cough" in new.text("far")
    assert with_text(event, event.text()) == event


REFUSED = [
    (
        ("fever", "x"),
        {},
        "stands in 2 places of the clean prompt; say which with occurrence=, 0 to",
    ),
    (("fever", "x"), {"occurrence": 2}, "occurrence is 2, the text to replace stands in 2 places"),
    (("fevr", "x"), {}, "the text to replace is not in the clean prompt"),
    (("", "x"), {}, "the text to replace is empty"),
    ((" hot fever", ""), {}, "the edit leaves evidence empty"),
    ((". hot", ". x"), {}, "the edit crosses the border of evidence"),
    (("gout C", "gout D"), {}, "crosses the border of options[2]"),
    ((" gout C\n", ""), {}, "options cannot be added or taken away by an edit"),
    ((" gout", " gout\n pain"), {}, "the edit adds or takes away a line; options cannot"),
    (("answer:", "answer: "), {}, "the edited text ends in a space"),
    (("mild fever", "wet chills"), {}, "options[0] and options[1] are one label"),
]


@pytest.mark.parametrize(("given", "how", "part"), REFUSED)
def test_what_cannot_be_meant_is_refused_in_a_line_without_words_of_the_prompt(
    tokenizer, tmp_path, given, how, part
):
    made = line()
    made["options"][2]["span"][1] += 2  # with its letter
    (tmp_path / "made.jsonl").write_text(json.dumps(made))
    event = read_prompts(tmp_path / "made.jsonl", tokenizer).events[0]
    if given[0] == "gout C":
        part = "the edit changes what selects options[2] at the decision"
    with pytest.raises(InputError) as refusal:
        event.edit(*given, **how)
    assert part in str(refusal.value) and "\n" not in str(refusal.value)
    assert not re.search("fever|gout|toe|fevr|hot", str(refusal.value))


def test_options_that_an_edit_makes_the_same_are_refused(read):
    made = line()
    for number, option in enumerate(made["options"]):
        option["label"] = f"L{number}"
    with pytest.raises(
        InputError, match=r"after the edit options\[0\] and options\[1\] have one text"
    ):
        read(made).edit("mild fever", "wet chills")


def test_an_option_more_is_refused(event):
    for text in (
        event.text().replace("\nanswer", "\n pain D\nanswer"),
        event.text().replace(" gout C\n", ""),
        event.text().replace(" gout C", " pain D\n gout C"),
    ):
        with pytest.raises(InputError, match="options cannot be added or taken away"):
            with_text(event, text)
    with pytest.raises(InputError, match="outside the clean text"):
        edit_at(event, 3, 9999, "x")


def test_token_ids_alone_have_no_text(read):
    bare = replace(read(line()), tokenizer=None)
    for use in (bare.text, bare.str_tokens, lambda: bare.edit("a", "b")):
        with pytest.raises(InputError, match="token ids alone: read the file with model=, or give"):
            use()


def test_control_tokens_that_are_typed_are_text(chat_tokenizer, tmp_path):
    (tmp_path / "made.jsonl").write_text(json.dumps(line()))
    event = read_prompts(tmp_path / "made.jsonl", chat_tokenizer).events[0]
    new = event.edit("hot fever", "hot <user> fever")
    assert chat_tokenizer.convert_tokens_to_ids("<user>") not in new.clean
    assert "hot <user> fever" in new.text() and with_text(new, event.text()) == event


def test_tokens_that_were_made_otherwise_stay(tokenizer, tmp_path):
    """As a model may write them: letters of the note's first word one by one."""
    (tmp_path / "made.jsonl").write_text(json.dumps(line()))
    event = read_prompts(tmp_path / "made.jsonl", tokenizer).events[0]
    odd = [token for letter in "note" for token in tokenizer(letter)["input_ids"]]
    first = len(tokenizer("note")["input_ids"])
    shift = len(odd) - first
    assert shift > 0
    moved = {"id": "t", "event": 0, "aligned_suffix": event.aligned_suffix}
    moved |= {v: {"input_ids": [*odd, *event.variant(v)[first:]]} for v in VARIANTS}
    moved["evidence"] = [place + shift for place in event.evidence]
    moved["options"] = [
        {"label": x.label, "token": x.token, "role": x.role, "span": [a + shift for a in x.span]}
        for x in event.options
    ]
    (tmp_path / "made.jsonl").write_text(json.dumps(moved))
    event = read_prompts(tmp_path / "made.jsonl", tokenizer).events[0]
    new = event.edit("old cough", "dry cough")
    assert list(new.clean[: len(odd)]) == odd and shown(new) == shown(event)
    assert new.edit("dry cough", "old cough") == event
    with pytest.raises(InputError, match="does not give the text at the edit back"):
        event.edit("note", "text")


def test_any_word_of_a_task_there_and_back(seen_task, setting):
    template, tokenizer = setting
    rng = random.Random(0)
    for event in make_events(seen_task, template, tokenizer, n_prompts=2, seed=3):
        text = event.text()
        words = [found.span() for found in re.finditer(r"\w{2,}", text)]
        for start, end in rng.sample(words, 8):
            if text[start:end] in ("user", "reply"):
                continue
            new = edit_at(event, start, end, "zebra")
            assert new.text() == text[:start] + "zebra" + text[end:]
            spans = [
                (one.evidence, *(option.span for option in one.options)) for one in (event, new)
            ]
            for before, after in zip(*spans, strict=True):
                first, last = event.pieces().chars(before)
                inside = first <= start and end <= last
                wanted = event.pieces().of(before)
                if inside:
                    wanted = wanted[: start - first] + "zebra" + wanted[end - first :]
                assert new.pieces().of(after) == wanted
            assert with_text(new, text) == event


@pytest.mark.parametrize("variant", ["far", "near"])
def test_an_edit_into_a_counterfactual_exchanges_the_two(event, variant):
    edited = event.edit(WORDS["clean"], WORDS[variant], occurrence=0)
    assert edited.clean == event.variant(variant)
    assert edited.variant(variant) == event.clean
    assert edited.edit(WORDS[variant], WORDS["clean"], occurrence=0) == event
