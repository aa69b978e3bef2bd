import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.errors import InputError
from workbench.labels.icd10cm import category
from workbench.labels.sides import side_of
from workbench.models import loading
from workbench.organism import reasoner
from workbench.organism.card import reasoner_card
from workbench.organism.mix import ExampleMix
from workbench.organism.reasoner import ReasonerConfig, accuracy_by_depth, train_reasoner
from workbench.organism.reasoner_examples import ReasonerStream, TextEncoder
from workbench.organism.scramble import lexicon, scramble
from workbench.prompts.laterality import LateralityTask
from workbench.prompts.laterality_chain import CONTROL_CUE


@pytest.fixture(scope="module")
def task(space) -> LateralityTask:
    return LateralityTask(space, {category(label.id) for label in space})


def stream(task, tokenizer, **mix) -> ReasonerStream:
    sizes = {"n_samples": 40, "context": 4096, "same_size": 1, "seed": 0}
    return ReasonerStream(task, TextEncoder(tokenizer), ExampleMix(**mix), control=0.5, **sizes)


def texts(found: ReasonerStream, tokenizer) -> list[tuple[str, list[str], list[str]]]:
    """Note, steps and numbers asked for, of every example."""
    parts = []
    for at in range(40):
        text = tokenizer.decode(found[at]["ids"])
        question, _, answer = text.rpartition("\nanswer:")
        cue = CONTROL_CUE if CONTROL_CUE in question else "\nreason:"
        note, _, chain = question.partition(cue)
        words = answer.replace(tokenizer.eos_token, "").split()
        parts.append((note, [step for step in chain.split("\n") if step], words[::2]))
    return parts


def test_direct_examples_ask_about_mentions_that_refer_to_none(task, tokenizer):
    for note, steps, numbers in texts(stream(task, tokenizer, direct=1, partial=0), tokenizer):
        assert not steps
        mentions = note.partition("note:")[2].partition(" ;\noptions:")[0].split(" ;")
        stated = [
            mention.split()[0]
            for mention in mentions
            if not any(sign.isdigit() for sign in mention.rpartition(" , ")[2])
            and mention.split()[2] != "as"
        ]
        assert sorted(numbers) == sorted(stated)


def test_partial_examples_ask_about_mentions_whose_shortlist_is_there(task, tokenizer):
    for _, steps, numbers in texts(stream(task, tokenizer, direct=0, partial=1), tokenizer):
        listed = {step.split()[0] for step in steps if " in " in step.partition("not")[0]}
        assert set(numbers) <= listed
        assert len(steps) < 24


def test_whole_chains_are_in_both_formats_and_ask_about_all(task, tokenizer):
    found = texts(stream(task, tokenizer, direct=0, partial=0), tokenizer)
    first = [" side " in steps[0] for _, steps, _ in found]
    assert 5 < sum(first) < 35
    assert all(len(steps) == 24 for _, steps, _ in found)
    orders = [numbers for *_, numbers in found]
    assert all(sorted(numbers) == list("123456") for numbers in orders)
    assert 5 < sum(numbers == list("123456") for numbers in orders) < 35


def test_invented_words_keep_sides_pairs_and_references(task):
    words = lexicon(task)
    for seed in range(10):
        prompt = task.draw("p", random.Random(seed))
        invented, after = scramble(task, prompt, words, random.Random(seed), 1.0)
        assert after.golds == prompt.golds
        for label in prompt.candidates:
            assert side_of(invented.space[label].text) == side_of(task.space[label].text)
        for old, new in zip(prompt.mentions, after.mentions, strict=True):
            assert (new.words_of, new.side_of, new.side) == (old.words_of, old.side_of, old.side)
            assert (new.text == old.text) == (old.words_of is not None) or new.words == old.words
        chain = invented.chain(after)
        for place, gold in enumerate(after.golds):
            last = [step for step in chain if step.split()[0] == str(place + 1)][-1]
            assert f" is {invented.space[gold].text} " in last


@pytest.fixture
def base(tmp_path, tokenizer):
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_an_adapter_is_trained_recorded_and_loaded(base, tmp_path, space, task, monkeypatch):
    pytest.importorskip("peft")
    monkeypatch.setattr(reasoner, "reasoner_tasks", lambda config: {"seen": task, "unseen": task})
    monkeypatch.setattr(
        reasoner,
        "accuracy_by_depth",
        lambda *given, **settings: accuracy_by_depth(*given, **settings, max_new_tokens=4),
    )
    config = ReasonerConfig(base=str(base), steps=2, batch_size=2, context=4096)
    config = replace(config, mix=replace(config.mix, invented=0.5))
    out = tmp_path / "adapter"
    found = train_reasoner(out, config, n_eval=2, workers=0)
    assert set(found) == {
        f"{split} {mode}" for split in ("seen", "unseen") for mode in reasoner.MODES
    }
    assert all(accuracy.exact == 0 for accuracy in found.values())
    record = json.loads((out / "training.json").read_text())
    assert record["config"]["task"]["name"] == "laterality"
    assert record["base_sha256"] == loading.weights_sha256(base)
    assert "--invented 0.5" in (out / "README.md").read_text()
    merged = loading.read_model(out, dtype=torch.float32)
    plain = loading.read_model(base, dtype=torch.float32)
    one, other = (dict(model.named_parameters()) for model in (merged, plain))
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    assert changed == {name for name in one if "_proj" in name}
    with pytest.raises(InputError, match="holds a trained adapter already"):
        train_reasoner(out, config, n_eval=2, workers=0)


def test_the_shipped_card_says_what_its_record_says():
    folder = Path(__file__).resolve().parents[2] / "data" / "reasoner"
    record = json.loads((folder / "training.json").read_text())
    assert (folder / "README.md").read_text() == reasoner_card(record)
    assert (
        record["accuracy"]["unseen direct"]["exact"]
        < 0.1
        < 0.9
        < (record["accuracy"]["unseen chain"]["exact"])
    )
    adapter = json.loads((folder / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == record["config"]["base"] == "smollm2"
