from dataclasses import replace
from math import isnan

import pytest
import torch
from fixtures.tiny_runs import save_reader

from workbench.analysis.answers import answer
from workbench.analysis.patching.patching import sweep_event
from workbench.analysis.readout import option_mass
from workbench.errors import InputError
from workbench.models.answers import option_log_probs
from workbench.models.hooked import HookedModel


@pytest.fixture(scope="module")
def reader(tokenizer, tmp_path_factory) -> HookedModel:
    return HookedModel.load(save_reader(tokenizer, tmp_path_factory.mktemp("reader") / "model"))


def test_an_event_is_answered_as_its_readouts_say(model, event):
    found = answer(model, event)
    [run] = model.run([event.clean])
    roles = [option.role for option in event.options]
    logits = run.logits[event.option_tokens]
    assert found.table["logit"].tolist() == pytest.approx(logits.tolist(), abs=1e-5)
    assert found.table["role"].tolist() == roles and roles[-1] == "other"
    p = found.table["p"]
    assert p.iloc[:-1].tolist() == pytest.approx(logits[:-1].softmax(-1).tolist(), abs=1e-5)
    assert p.isna().tolist() == [role == "other" for role in roles]
    near = p[found.table["role"] == "near"].sum()
    assert found.focus == pytest.approx(p.iloc[0] + near, abs=1e-6)
    assert found.confusion == pytest.approx(near / (p.iloc[0] + near), abs=1e-6)
    assert found.mass == pytest.approx(float(option_mass(run.logits, event)), abs=1e-6)


@pytest.mark.parametrize("head", [(0, 1), (1, 3)])
def test_a_patched_answer_is_that_of_the_sweep(model, event, head):
    swept = sweep_event(model, event, [[head]], ["span"]).set_index("run")
    runs = {"far_with_clean": ("far", "clean"), "clean_with_near": ("clean", "near")}
    for run, (variant, source) in runs.items():
        found = answer(model, event, patch={f"{head[0]}-{head[1]}": source}, variant=variant)
        for name in ("focus", "confusion"):
            assert getattr(found, name) == pytest.approx(swept.loc[run, name], abs=1e-5)
        assert found.changed == (f"{head[0]}-{head[1]} from {source}",)


def test_ablated_heads_write_nothing_or_their_mean(model, event):
    with torch.no_grad():
        saved = model.bridge.blocks[1].attn.o.weight.clone()
    plain = answer(model, event)
    off = answer(model, event, ablate=["1-2", (0, 0)])
    name = "blocks.1.attn.hook_z"
    both = answer(model, event, ablate="1-2,0-0")
    assert off.table.equals(both.table) and not off.table.equals(plain.table)
    [run] = model.run([event.clean], [name])
    steady = answer(model, event, ablate={"1-2": "mean"})
    assert not steady.table.equals(answer(model, event, ablate=["1-2"]).table)
    last = answer(model, event, ablate={"2-0": "mean", "2-1": "zero"}, patch={(2, 2): "far"})
    assert last.changed == ("2-0 ablated (mean)", "2-1 ablated (zero)", "2-2 from far")
    assert torch.equal(saved, model.bridge.blocks[1].attn.o.weight)
    assert answer(model, event).table.equals(plain.table)
    assert run.activations[name].shape[1] == model.info.n_heads


def test_a_text_with_options_of_one_token(reader):
    text = "note: 1 . left fx ;\nanswer:"
    found = answer(reader, text, [" A", " B"])
    [run] = reader.run(text)
    tokens = [reader.tokenizer.convert_tokens_to_ids(f"Ġ{letter}") for letter in "AB"]
    assert found.table["logit"].tolist() == pytest.approx(run.logits[tokens].tolist(), abs=1e-5)
    assert found.table["p"].sum() == pytest.approx(1)
    assert isnan(found.focus) and set(found.table["role"]) == {""}
    assert "Focus" not in repr(found)


def test_options_that_the_text_does_not_go_on_with_are_said_to_be_unlikely(model, event):
    found = answer(model, event)
    plain = replace(found, mass=0.001, table=found.table.assign(role=""))
    assert "is a space missing" in repr(plain) and "is a space missing" in plain._repr_html_()
    for other in (replace(plain, mass=0.5), replace(plain, table=found.table)):
        assert "is a space missing" not in repr(other)


def test_a_text_with_options_of_several_tokens(reader):
    text, options = "note: 1 . left fx ;\nanswer:", [" A", " left fracture", " B C"]
    tokens = reader.to_tokens(text)
    wanted = [reader.to_tokens(text + option)[len(tokens) :] for option in options]
    expected = option_log_probs(reader, tokens, wanted)
    found = answer(reader, text, options)
    assert found.table["logit"].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert found.mass == pytest.approx(float(expected.exp().sum()), abs=1e-5)
    off = answer(reader, text, options, ablate=["0-0"])
    alone = answer(reader, text, options[:1], ablate=["0-0"])
    first = reader.logits_at(torch.tensor([tokens]), [len(tokens) - 1])[0, 0]
    shift = off.table["logit"].iloc[0] - alone.table["logit"].iloc[0]
    assert shift == pytest.approx(-float(first.logsumexp(-1)), abs=0.5)
    assert not off.table.equals(found.table)


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ({"ablate": ["9-0"]}, "head (layer 9, head 0) is not in model"),
        ({"ablate": ["best"]}, "is not a head"),
        ({"ablate": {"0-0": "zero", (0, 0): "mean"}}, "a head is named twice"),
        ({"ablate": ["0-0"], "patch": {"0-0": "far"}}, "head 0-0 is ablated and patched"),
        ({"patch": {"0-0": "clean"}}, "head 0-0: this run is the clean one itself"),
        ({"options": [" A"]}, "an event has options of its own"),
    ],
)
def test_bad_questions_about_events(model, event, how, part):
    with pytest.raises(InputError) as refusal:
        answer(model, event, **how)
    assert part in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "how", "part"),
    [
        ("note:", {}, "a text needs options="),
        ("note:", {"options": " A"}, "a text needs options=, the texts that may follow"),
        ("note:", {"options": [" A"], "patch": {"0-0": "far"}}, "a text has no variants"),
        ("note: ", {"options": ["A", "B"]}, "options[0] merges with the end of the text"),
        ("note:", {"options": [" A", ""]}, "options[1] is empty"),
        ("note:", {"options": [" A", " B", " A"]}, "options[0] and options[2] are the same tokens"),
    ],
)
def test_bad_questions_about_texts(reader, text, how, part):
    with pytest.raises(InputError) as refusal:
        answer(reader, text, **how)
    assert part in str(refusal.value)


def test_a_text_needs_a_tokenizer(model):
    with pytest.raises(InputError, match="has no tokenizer; give it token ids"):
        answer(model, "note:", [" A"])


def test_a_changed_word_is_answered_as_a_prompt_made_with_it(reader, seen_task):
    from workbench.prompts.events import make_events
    from workbench.prompts.templates import PlainTemplate
    from workbench.prompts.text import tokenize

    [event] = make_events(seen_task, PlainTemplate(), reader.tokenizer, n_prompts=1, seed=1)
    text = event.text()
    word = text[slice(*event.pieces().chars(event.evidence))].split()[0]
    new = event.edit(word, "fracture", occurrence=0)
    scratch = tokenize(reader.tokenizer, text.replace(word, "fracture", 1)).tokens
    assert answer(reader, new).table.equals(answer(reader, replace(new, clean=scratch)).table)


def test_bars_and_text(model, event):
    found = answer(model, event, ablate=["0-0"])
    page = found._repr_html_()
    assert page.count("inline-block") == 6 and "0-0 ablated (zero)" in page
    lines = repr(found).splitlines()
    assert lines[0].startswith("Focus 0.") and len(lines) == 2 + len(event.options)
