from dataclasses import replace

import pandas as pd
import pytest

from workbench.bench.notes import TELLINGS, write_notes
from workbench.bench.notes_told import tellings_left
from workbench.errors import InputError
from workbench.labels.folders import open_corpus
from workbench.prompts.prompt import DecisionEvent, Option, PromptSet


@pytest.fixture
def folder(tmp_path, space, monkeypatch):
    for module in ("bench.notes", "labels.mimic4"):
        monkeypatch.setattr(f"workbench.{module}.load_icd10cm", lambda: space)
    write_notes(tmp_path / "notes", n=4, n_training=2, seed=3)
    return tmp_path / "notes"


class Characters:
    """A token a character."""

    def decode(self, tokens, **_):
        return "".join(map(chr, tokens))


def event(folder, kept):
    """Of the first note: its first label, of whose tellings far keeps these."""
    corpus = open_corpus(f"mimic4:{folder}")
    note = next(iter(corpus.documents("test")))
    gold = corpus.label_ids[note.labels[0]]
    table = pd.read_csv(folder / TELLINGS)
    table = table[(table.note_id == note.id) & (table.label == gold)].reset_index()
    text = note.full_text

    def swapped(left):
        told = text
        for at in reversed(range(len(table))):
            if at not in left:
                told = f"{told[: table.start[at]]}somewhat else{told[table.end[at] :]}"
        return told

    options = f"\nA. {corpus.label_texts[note.labels[0]]}\nB. other"
    variants = [swapped(left) + options for left in (range(len(table)), kept, ())]
    variants[2] = variants[2].replace("somewhat", "a little", 1)
    clean, far, near = (tuple(map(ord, one)) for one in variants)
    start = len(text)
    places = [(start, start + 5), (start + 6, start + 8), (len(clean) - 3, len(clean))]
    some = [
        Option(label=label, token=token, span=span, role=role)
        for label, token, span, role in zip(
            (gold, "n", "f"), (65, 66, 67), places, ("gold", "near", "far"), strict=True
        )
    ]
    first = int(table.start[0])
    made = DecisionEvent("p0", 0, clean, far, near, len(options), (first, first + 3), tuple(some))
    return replace(made, tokenizer=Characters()), len(table)


def gold(made):
    return next(one.label for one in made.options if one.role == "gold")


@pytest.mark.parametrize("kept", [(), (1,), (0,)])
def test_tellings_that_a_counterfactual_keeps_are_counted_and_options_are_none(folder, kept):
    made, n = event(folder, kept)
    (row,) = tellings_left(PromptSet("some", (made,)), folder).to_dict("records")
    table = pd.read_csv(folder / TELLINGS)
    whole = table[(table.note_id == table.note_id[0]) & (table.label == gold(made))].whole.tolist()
    assert row == {
        **{"prompt": "p0", "told": n, "clean": n, "far": len(kept), "near": 0},
        **{"far_whole": sum(whole[at] for at in kept), "near_whole": 0},
    }


def test_prompts_of_other_documents_and_other_folders_are_refused(folder, tmp_path):
    made, _ = event(folder, ())
    with pytest.raises(InputError, match=r"tellings\.csv: no such file"):
        tellings_left(PromptSet("some", (made,)), tmp_path)
    other = replace(
        made,
        clean=(1,) * len(made.clean[: -made.aligned_suffix]) + made.clean[-made.aligned_suffix :],
    )
    with pytest.raises(InputError, match="prompt p0: not of a note"):
        tellings_left(PromptSet("some", (other,)), folder)
