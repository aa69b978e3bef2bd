import json
import unicodedata

import pytest

from workbench.analysis.chains.matching import read_own, with_aliases
from workbench.analysis.chains.places import find_all, tokens_over
from workbench.analysis.chains.reading import ChainSettings, coverage
from workbench.errors import InputError
from workbench.labels.space import Label, LabelSpace
from workbench.prompts.own_chains import read_own_chains

LINE = {
    "id": "c0",
    "document": {"text": "Note: forêt fever, EF 35 %. Cyst of spleen; Cyst of liver; Gout. Think:"},
    "chain": {"text": " It may be CYST OF SPLEEN or a hepatic cyst. Cyst of spleen fits."},
    "labels": [
        {"label": "A", "text": "Cyst of spleen", "role": "gold"},
        {"label": "B", "text": "Cyst of liver", "role": "near", "aliases": ["hepatic cyst"]},
        {"label": "C", "text": "Gout", "role": "far"},
    ],
    "evidence": ["ef 35 %", unicodedata.normalize("NFD", "Forêt fever")],
}


def lines(tmp_path, *given):
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in given) + "\n", encoding="utf-8")
    return path


def said(tokenizer, reading, spans):
    return [tokenizer.decode(reading.tokens[slice(*span)]).strip() for span in spans]


@pytest.mark.parametrize("as_ids", [False, True])
def test_labels_aliases_and_evidence_are_found(tmp_path, tokenizer, as_ids):
    line = dict(LINE)
    if as_ids:
        for part in ("document", "chain"):
            ids = tokenizer(LINE[part]["text"], add_special_tokens=False)["input_ids"]
            line[part] = {"input_ids": ids}
    [own] = read_own_chains(lines(tmp_path, line))
    reading = read_own(own, tokenizer)
    spleen, liver, gout = reading.labels
    assert said(tokenizer, reading, spleen.listed) == ["CYST OF SPLEEN", "Cyst of spleen"]
    assert said(tokenizer, reading, liver.listed) == ["hepatic cyst"]
    assert gout.listed == () and len(gout.document) == len(liver.document) == 1
    assert [x.rstrip(",.") for x in said(tokenizer, reading, reading.evidence)] == [
        "forêt fever", "EF 35 %",
    ]  # fmt: skip
    assert tokenizer.decode(reading.tokens[reading.start :]).startswith(" It may")
    assert (spleen.family == liver.family) and gout.family != spleen.family
    # Told by what the other does not say: not by "Cyst of".
    assert "ist" not in tokenizer.decode(spleen.next_tokens)
    assert not set(spleen.next_tokens) & set(liver.next_tokens)
    # After both were listed, the decision is asked; before the first, none is.
    assert reading.asked[0] == -1 and reading.asked[-1] == 0
    assert reading.compared(0)[0] == liver.listed[0][1] - reading.start
    assert reading.ends[-1] == reading.n_chain and len(reading.ends) == 2
    shares = coverage([reading], ChainSettings()).set_index("what")["share"]
    assert shares["exact"] == 0 and shares["shortlist"] == shares["evidence"] == 1


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        ("Cyst of spleen, cyst", [["cyst"], ["cyst of spleen"]], [["cyst"], ["Cyst of spleen"]]),
        ("cysts; subcyst; CYST", [["cyst"]], [["CYST"]]),
        ("the same words", [["same words"], ["Same  Words"]], [[], []]),  # neither's
        ("HFrEF (hfref)", [["heart failure", "HFrEF"]], [["HFrEF", "hfref"]]),
        ("肺癌です", [["肺癌"]], [["肺癌"]]),
        ("nothing", [[""], ["x"]], [[], []]),
    ],
)
def test_whole_words_in_any_case_and_the_longest_wins(text, wanted, found):
    assert [[text[slice(*at)] for at in places] for places in find_all(text, wanted)] == found


def test_tokens_that_overlap_count():
    assert tokens_over([3, 5, 9], (4, 6)) == (1, 3)
    assert tokens_over([3, 5, 9], (3, 5)) == (1, 2)


def test_synonyms_of_a_label_space_are_aliases(tmp_path):
    space = LabelSpace("s", [Label("B", "Cyst of liver", ("K",), ("liver bubble",))])
    [own] = read_own_chains(lines(tmp_path, LINE))
    assert [x.aliases for x in with_aliases(own, space).labels] == [
        [], ["hepatic cyst", "liver bubble"], [],
    ]  # fmt: skip


def test_without_evidence_the_gold_text_is_looked_for(tmp_path, tokenizer):
    [own] = read_own_chains(lines(tmp_path, LINE | {"evidence": []}))
    reading = read_own(own, tokenizer)
    assert [x.rstrip(";") for x in said(tokenizer, reading, reading.evidence)] == ["Cyst of spleen"]


def changed(**roles):
    return [label | {"role": roles.get(label["label"], label["role"])} for label in LINE["labels"]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (LINE | {"x": 1}, "x: unknown key"),
        (LINE | {"document": {}}, "give either text or input_ids"),
        (LINE | {"document": {"text": "secret", "input_ids": [1]}}, "give either text or"),
        (LINE | {"labels": changed(A="far")}, "needs a gold label and a near one"),
        (LINE | {"labels": changed(C="gold")}, "gold and near ones need a family"),
        (LINE | {"labels": changed() + changed()[:1]}, "need a family|given twice"),
        (LINE | {"labels": [*changed()[:1], changed()[1] | {"family": "f"}]}, "without a gold one"),
        (LINE | {"evidence": "secret words of a patient"}, "evidence"),
    ],
)
def test_bad_lines_are_refused_without_a_word_of_the_text(tmp_path, line, reason):
    with pytest.raises(InputError, match=reason) as error:
        read_own_chains(lines(tmp_path, LINE | {"id": "first"}, line))
    assert "own.jsonl:2: " in str(error.value) and "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_chains_that_cannot_be_read_are_refused(tmp_path, tokenizer):
    [own] = read_own_chains(lines(tmp_path, {k: v for k, v in LINE.items() if k != "chain"}))
    with pytest.raises(InputError, match="chain 'c0': has no chain"):
        read_own(own, tokenizer)
    with pytest.raises(InputError, match="the same id is on line 1"):
        read_own_chains(lines(tmp_path, LINE, LINE))
    with pytest.raises(InputError, match="holds no chains"):
        read_own_chains(lines(tmp_path))
