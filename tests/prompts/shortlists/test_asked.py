import random
from dataclasses import replace

import pytest

from workbench.errors import InputError
from workbench.labels import cache as label_cache
from workbench.labels.frame import frame_corpus
from workbench.prompts.forms.form import Form
from workbench.prompts.meaning import check_meaning
from workbench.prompts.shortlists.maker import make_shortlisted
from workbench.prompts.shortlists.sizes import ShortlistConfig
from workbench.prompts.shortlists.writers import open_writer

GROUPS = ("fracture", "diabetes", "pneumonia", "melanoma")
KINDS = ("left arm", "right leg", "upper back", "lower jaw")
TEXTS = {
    f"{group[0]}{n}": f"{group} of the {kind}" for group in GROUPS for n, kind in enumerate(KINDS)
}
CLUSTERS = {name: name[0] for name in TEXTS}
FORM = Form("mine", "Note:\n{document}\n\nWhich?\n{options}")
SMALL = ShortlistConfig(n_candidates=8, n_near=3, n_mentions=2, min_df=1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(label_cache, "user_cache_path", lambda *_: tmp_path / "cache")


def corpus(n: int = 24, filler: str = ""):
    """Notes that tell each of two labels twice: in the text, and in a list."""
    rng, rows = random.Random(0), []
    for number in range(n):
        first, second = rng.sample(list(TEXTS), 2)
        text = (
            f"He came on Monday with {TEXTS[first]} indeed. No fever.{filler}\n\nProblems:\n"
            f"1. known {TEXTS[second]}\n2. {TEXTS[first].upper()} again\n\n"
            f"Sent home. He was told of {TEXTS[second]}"
        )
        rows.append({"id": f"n{number}", "text": text, "labels": [first, second]})
    return frame_corpus(rows, TEXTS, clusters=CLUSTERS)


def make(tokenizer, config=SMALL, form=FORM, source=None, n=12):
    writer = open_writer(form, tokenizer, task="frame:", max_tokens=config.max_tokens)
    return make_shortlisted(
        source or corpus(), "all", writer, tokenizer, n_prompts=n, seed=0, config=config
    )


def document(event, variant="clean") -> str:
    return event.text(variant).partition("Note:\n")[2].partition("\n\nWhich?\n")[0]


def test_documents_stand_as_they_are_and_all_that_tells_gold_changes(tokenizer):
    source = corpus()
    texts = {row.text for row in source.rows}
    prompts, report = make(tokenizer, source=source)
    assert report.told == {2: 12} and report.n_used == 12 and not report.n_cut
    for event in prompts:
        check_meaning(event)
        assert document(event) in texts
        label = {o.role: TEXTS[o.label] for o in event.options if o.role == "gold"}["gold"]
        assert document(event).lower().count(label) == 2
        assert label in event.pieces().of(event.evidence).lower()
        for name in ("far", "near"):
            told = document(event, name).lower()
            assert label not in told
            offered = [TEXTS[event.options[at].label] for at in event.with_role(name)]
            assert any(text in told for text in offered)
            lines = [line for line in told.splitlines() if line[:2] in ("1.", "2.")]
            assert all(line[3:] for line in lines)
        first = event.options[0].span[0]
        assert first >= len(event.clean) - event.aligned_suffix
        names = [event.pieces().of(option.span)[:2].strip() for option in event.options]
        assert names == [f"{letter}." for letter in "ABCDEFGH"]
        assert [event.tokenizer.decode([o.token]).strip() for o in event.options] == [*"ABCDEFGH"]


def test_long_documents_lose_the_same_passages_in_all_variants(tokenizer):
    source = corpus(filler=" Nothing happened on that day at all." * 20)
    whole, _ = make(tokenizer, source=source)
    config = replace(SMALL, max_tokens=450)
    cut, report = make(tokenizer, config, source=source)
    assert report.n_cut == 12 and "12 of 12 prompts leave out passages" in str(report)
    for event, full in zip(cut, whole, strict=True):
        assert max(len(event.variant(name)) for name in ("clean", "far", "near")) <= 450
        assert len(full.clean) > 450
        assert event.pieces().of(event.evidence) == full.pieces().of(full.evidence)
        assert all("[…]" in document(event, name) for name in ("clean", "far", "near"))


def test_names_of_several_tokens_are_refused_in_one_line(tokenizer):
    form = replace(FORM, names="numbers")
    with pytest.raises(InputError, match=r"option name '.*' is several tokens to this tokenizer"):
        make(tokenizer, replace(SMALL, n_candidates=16), form)
