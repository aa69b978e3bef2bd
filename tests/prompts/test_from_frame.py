import random
from collections.abc import Sequence
from io import StringIO

import pandas as pd
import pytest
from rich.console import Console

from workbench.errors import InputError
from workbench.labels import cache as label_cache
from workbench.progress import Reporter
from workbench.prompts.files import read_prompts, write_prompts
from workbench.prompts.from_frame import prompts_from_frame
from workbench.prompts.prompt import VARIANTS
from workbench.prompts.shortlists.sizes import CONTEXT

GROUPS = ("fracture", "diabetes", "pneumonia", "melanoma")
KINDS = ("left arm", "right leg", "upper back", "lower jaw")
LABELS = pd.DataFrame(
    [
        {"id": f"{group[0].upper()}{n}", "text": f"{group} of the {kind}", "cluster": group}
        for group in GROUPS
        for n, kind in enumerate(KINDS)
    ]
).assign(synonyms=lambda table: table["text"].str.replace("of the", "in"))
TEXT_OF = dict(zip(LABELS["id"], LABELS["text"], strict=True))
CLUSTER_OF = dict(zip(LABELS["id"], LABELS["cluster"], strict=True))
OWN = "Note: {document}\n\nOptions:\n{options}\n\nThe right one is {answer}"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(label_cache, "user_cache_path", lambda *_: tmp_path / "cache")


def mentions(n: int = 16, seed: int = 0, **more: str) -> pd.DataFrame:
    """Notes with two labels each, one row a mention; evidence stands inside of sentences."""
    rng, rows = random.Random(seed), []
    ids = list(TEXT_OF)
    for number in range(n):
        labels = rng.sample(ids, 2)
        words = [TEXT_OF[label].upper() for label in labels]
        text = (
            f"Seen on\nMonday with ({words[0]}), no fever. Later {words[1]}; then sent home.\n\n"
            "-- --\nNothing more."
        )
        rows += [
            {"id": f"n{number}", "text": text, "labels": label, "evidence": held} | more
            for label, held in zip(labels, words, strict=True)
        ]
    return pd.DataFrame(rows)


def listened() -> Reporter:
    return Reporter(Console(record=True, width=400, file=StringIO()))


@pytest.fixture(params=["plain", "chat", OWN, "function"])
def setting(request):
    if request.param == "chat":
        return request.param, request.getfixturevalue("chat_tokenizer")

    def written(document: str, options: Sequence[tuple[str, str]]) -> str:
        lines = "".join(f"{text} is {letter}\n" for letter, text in options)
        return f"{lines}Which is this?\n{document}\nIt is "

    template = written if request.param == "function" else request.param
    return template, request.getfixturevalue("tokenizer")


def make(table, setting, labels=LABELS, **more):
    template, tokenizer = setting
    more = {"n_options": 8, "reporter": listened(), **more}
    return prompts_from_frame(
        table, labels, template=template, tokenizer_or_model=tokenizer, **more
    )


def test_every_event_is_valid_and_its_evidence_is_the_one_given(setting, tmp_path):
    _, tokenizer = setting
    table = mentions(10)
    prompts = make(table, setting)
    assert prompts.prompt_ids == [f"n{number}" for number in range(10)]
    write_prompts(prompts, tmp_path / "p.jsonl")
    assert read_prompts(tmp_path / "p.jsonl", tokenizer).sha256 == prompts.sha256
    given = {(row.id, row.labels): row.evidence for row in table.itertuples()}
    for event in prompts:
        roles = {
            role: [event.options[at] for at in event.with_role(role)]
            for role in ("gold", "near", "far", "other")
        }
        (gold,) = roles["gold"]
        assert event.pieces().of(event.evidence).strip() == given[event.id, gold.label]
        assert {CLUSTER_OF[one.label] for one in roles["near"]} == {CLUSTER_OF[gold.label]}
        assert CLUSTER_OF[gold.label] not in {CLUSTER_OF[one.label] for one in roles["far"]}
        assert all(one.family == CLUSTER_OF[one.label] for one in event.options)
        before = event.text()[: event.pieces().chars(event.evidence)[0]]
        after = event.text()[event.pieces().chars(event.evidence)[1] :]
        for name in ("far", "near"):
            swapped = event.text(name)
            assert swapped.startswith(before) and swapped.endswith(after)
            held = swapped[len(before) : len(swapped) - len(after)].strip().lower()
            offered = {TEXT_OF[one.label] for one in roles[name]}
            assert held in offered | {text.replace("of the", "in") for text in offered}
        assert given[event.id, gold.label] not in before + after


def test_the_note_is_told_whole_and_in_order(setting):
    template, _ = setting
    table = mentions(6)
    for event in make(table, setting):
        text = table.loc[table["id"] == event.id, "text"].iloc[0]
        told = " ".join(text.replace("-- --", "").split())
        marks = (";", "1", "2", ".", "1.", "2.", ">>", "<<")
        assert told in " ".join(word for word in event.text().split() if word not in marks)
        assert template in ("plain", "chat") or not event.with_role("other")


@pytest.mark.parametrize("name", ["far", "near"])
def test_without_other_documents_an_option_lends_its_own_words(tokenizer, name):
    reporter = listened()
    prompts = make(mentions(1), ("plain", tokenizer), reporter=reporter)
    assert "in 2 of 2 counterfactuals an option's own words" in reporter.console.export_text()
    (event,) = prompts
    words = [TEXT_OF[event.options[at].label] for at in event.with_role(name)]
    words += [text.replace("of the", "in") for text in words]
    assert any(text in event.text(name) for text in words)


def test_what_gives_no_event_is_counted_by_reason(tokenizer):
    table = mentions(4)
    broken = pd.DataFrame(
        [
            {"id": "a", "text": "x", "labels": "F0", "evidence": "not there"},
            {"id": "b", "text": "y", "labels": "", "evidence": None},
            {"id": "c", "text": "fractureofthe", "labels": "F1", "evidence": "ctureofth"},
            {"id": "d", "text": "alone here", "labels": "Z", "evidence": "alone"},
        ]
    )
    labels = pd.concat([LABELS, pd.DataFrame([{"id": "Z", "text": "Zoster", "cluster": "z"}])])
    reporter = listened()
    prompts = make(pd.concat([table, broken]), ("plain", tokenizer), labels, reporter=reporter)
    said = reporter.console.export_text()
    assert len(prompts) == 4 and "frame: 4 prompts of 8 documents (1 " in said
    for reason in (
        "1 whose evidence is not in the text",
        "1 without labels",
        "1 whose evidence does not fall on token borders",
        "1 without a near option",
        "1 pieces of evidence are not in their document's text",
    ):
        assert reason in said


def test_gold_labels_named_elsewhere_are_counted(tokenizer):
    table = mentions(4)
    again = table["text"] + table.groupby("id")["labels"].transform("first").map(TEXT_OF)
    reporter = listened()
    make(table.assign(text=again), ("plain", tokenizer), reporter=reporter)
    seen = make(table.assign(text=again), ("plain", tokenizer))
    first = table.groupby("id")["labels"].first()
    expected = sum(
        event.options[event.with_role("gold")[0]].label == first[event.id] for event in seen
    )
    said = reporter.console.export_text()
    assert expected and f"in {expected} events the document names the gold label outside" in said


def test_documents_without_evidence_take_the_sentence_most_like_the_label(tokenizer):
    table = (
        mentions()
        .drop(columns="evidence")
        .groupby("id", as_index=False)
        .agg({"text": "first", "labels": list})
    )
    for event in make(table, ("plain", tokenizer), clusters=CLUSTER_OF):
        gold = TEXT_OF[event.options[event.with_role("gold")[0]].label]
        assert gold.upper() in event.pieces().of(event.evidence)


def test_labels_may_be_a_mapping_with_learned_clusters(tokenizer):
    prompts = make(mentions(), ("plain", tokenizer), labels=TEXT_OF)
    assert len(prompts) >= 12
    assert {len(event.options) for event in prompts} == {8}


def test_the_same_seed_gives_the_same_prompts_whatever_their_number(tokenizer):
    table = mentions(6)
    few, all_ = (make(table, ("plain", tokenizer), n_prompts=n) for n in (3, None))
    assert len(few) == 3 and set(few.events) < set(all_.events)
    assert few.prompt_ids == sorted(few.prompt_ids, key=lambda name: int(name[1:]))
    assert make(table, ("plain", tokenizer), seed=1).sha256 != all_.sha256


def test_a_file_is_written_once(tokenizer, tmp_path):
    out = tmp_path / "p.jsonl"
    made = make(mentions(4), ("plain", tokenizer), out=out)
    assert read_prompts(out).sha256 == made.sha256
    with pytest.raises(InputError, match="exists already"):
        make(mentions(4), ("plain", tokenizer), out=out)
    assert make(mentions(3), ("plain", tokenizer), out=out, force=True)


def test_long_notes_are_cut_to_a_models_context(tokenizer, tmp_path):
    filler = " Nothing happened on that day at all." * 150
    table = mentions(2)
    table["text"] = filler + " " + table["text"] + filler
    for event in make(table, ("plain", tokenizer)):
        assert max(len(event.variant(name)) for name in VARIANTS) <= CONTEXT


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("nice", "template 'nice' is not one of auto, plain, chat"),
        ("{document} {options}", "must end in {answer}"),
        (OWN.replace(" {answer}", "{answer}"), "no document gives a prompt: 4 whose prompt is "),
    ],
)
def test_templates_that_cannot_be_used_are_refused(tokenizer, template, message):
    with pytest.raises(InputError, match=message):
        make(mentions(4), (template, tokenizer))


@pytest.mark.parametrize("n", [0, -1])
def test_a_number_of_prompts_that_is_none_is_refused(tokenizer, n):
    with pytest.raises(InputError, match=f"n_prompts is {n}, must be a whole number"):
        make(mentions(2), (OWN, tokenizer), n_prompts=n)
