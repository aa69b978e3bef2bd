from io import StringIO

import pytest
from fixtures.distillation import build
from fixtures.shades import ShadesTask, shades_tokenizer
from rich.console import Console
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from workbench.analysis.chains import generation
from workbench.analysis.replies import UNCLOSED, UNREAD, explain_replies, reply_table
from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter
from workbench.prompts.chain import find_cues, question_cases
from workbench.prompts.chat import ChatTemplate
from workbench.prompts.chat_form import REASONING, THOUGHTS
from workbench.prompts.events import make_events
from workbench.prompts.templates import PlainTemplate
from workbench.runs.evidence import follow_chains, turns

CHAT = "<user>{{ messages[0].content }}<reply>"
ALWAYS = CHAT + "<think>\n"
CONTROLS = ["<user>", "<reply>", "<think>", "</think>", "<end>"]


def chat_model(source: str, name="think") -> tuple[HookedModel, object]:
    """A tiny model with a chat template, and prompts for it."""
    raw = Tokenizer.from_str(shades_tokenizer().backend_tokenizer.to_str())
    raw.add_special_tokens(CONTROLS)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<end>", pad_token="<end>", chat_template=source
    )
    network = build(vocab_size=len(tokenizer), context=1024, initializer_range=0.3)
    template = PlainTemplate() if name == "plain" else ChatTemplate(tokenizer, name)
    prompts = make_events(ShadesTask(), template, tokenizer, n_prompts=4, seed=0)
    return HookedModel.from_pretrained_model(network, tokenizer), prompts


@pytest.fixture(scope="module")
def thinker():
    return chat_model(ALWAYS)


def letters_of(model, prompts) -> list[str]:
    gold = [event.options[event.with_role("gold")[0]].token for event in prompts]
    return [model.tokenizer.decode([token]).strip() for token in gold]


def written(model, texts, asked_of, monkeypatch) -> None:
    """Stands in for generation: the texts, in turn, as far as there is room for them."""
    tokens = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    def write(network, asked, *, max_new_tokens, **options):
        asked_of.extend(asked)
        return [tokens[i % len(tokens)][:max_new_tokens] for i in range(len(asked))]

    monkeypatch.setattr(generation, "greedy_tokens", write)


def test_thoughts_are_cut_where_they_are_closed(thinker, monkeypatch):
    model, prompts = thinker
    assert find_cues(prompts, model.tokenizer) is THOUGHTS
    cases = question_cases(prompts, model.tokenizer, THOUGHTS)
    for case, event in zip(cases, prompts, strict=True):
        assert (*case.clean.question, *case.cue) == event.clean
        assert model.tokenizer.decode(case.clean.question).endswith("<reply><think>")
    asked = []
    texts = ["The wall is blue.\n\nSo B.\n</think>\n\nB", "The wall\n"]
    written(model, texts, asked, monkeypatch)
    chains = generation.write_chains(model, cases, model.tokenizer, cues=THOUGHTS)
    assert model.tokenizer.decode(asked[0]).endswith("<think>\n")
    for chain, closed in zip([case.clean for case in chains], (True, False) * 2, strict=True):
        text = model.tokenizer.decode(chain.up_to(chain.n_steps)).partition("<think>")[2]
        assert text == ("\nThe wall is blue.\n\nSo B." if closed else "\nThe wall")
        assert (chain.n_steps, chain.closed) == (2 if closed else 1, closed)


def test_answers_are_read_behind_closed_thoughts_alone(thinker, monkeypatch):
    model, prompts = thinker
    right = letters_of(model, prompts)
    wall = "A wall, so A.\n"
    texts = [
        f"{wall}</think>\n\n**{right[0]}**",
        f"{wall}</think>\n\nThe answer is {right[1]}.",
        f"{wall}</think>\n\nnone of them",
        f"{wall}Answer: {right[3]}",
    ]
    written(model, texts, [], monkeypatch)
    table = reply_table(model, prompts, chain=True)
    gold = table["gold"].tolist()
    assert table["written"].tolist() == [gold[0], gold[1], UNREAD, UNCLOSED]
    first, failed, *_ = explain_replies(table)
    assert "written answers right 0.500" in first
    assert "1 name no option or several, 1 are thoughts that did not end" in failed
    # A thought that is cut before it closes is no answer, whatever it says.
    written(model, ["A " * 200 + "</think>\n\nA"], [], monkeypatch)
    assert set(reply_table(model, prompts, chain=True, room=8)["written"]) == {UNCLOSED}


def test_free_thoughts_can_be_followed(thinker, monkeypatch):
    model, prompts = thinker
    written(model, ["The wall is blue.\nSo B.\n</think>\n\nB", "The wall\n"], [], monkeypatch)
    console = Console(record=True, file=StringIO())
    cases, values = follow_chains(model, prompts, Reporter(console), ("clean",))
    assert "2 of 4 chains are not closed" in console.export_text()
    assert set(values["label"]) == {"direct", "other"} and values["offset"].isna().all()
    direct = reply_table(model, prompts).set_index("id")["focus"]
    assert values.query("step == 0").set_index("id")["focus"].sub(direct).abs().max() < 1e-4
    assert set(turns(values, n_resamples=5, seed=0)["axis"]) == {"share"}
    assert len(cases) == 4


def test_models_without_thoughts_reason_in_a_section(monkeypatch):
    model, prompts = chat_model(CHAT)
    right = letters_of(model, prompts)
    assert find_cues(prompts, model.tokenizer) is REASONING
    texts = [f"It is blue.\n\n# Answer\n{letter}" for letter in right]
    asked = []
    written(model, texts, asked, monkeypatch)
    table = reply_table(model, prompts, chain=True)
    assert (table["written"] == table["gold"]).all()
    assert model.tokenizer.decode(asked[0]).endswith("<reply># Reasoning\n")


@pytest.mark.parametrize("name", ["chat", "plain"])
def test_direct_replies(name, monkeypatch):
    model, prompts = chat_model(CHAT, name)
    right = letters_of(model, prompts)
    texts = [f"{letter}. A shade" for letter in right[:3]] + ["?"]
    asked = []
    written(model, texts, asked, monkeypatch)
    table = reply_table(model, prompts)
    assert [tuple(row) for row in asked] == [event.clean for event in prompts]
    assert (table["written"] == table["gold"]).tolist() == [True, True, True, False]
    known = {event.id: {option.label for option in event.options} for event in prompts}
    assert all(row.likeliest in known[row.id] for row in table.itertuples())
    if name == "chat":
        with pytest.raises(InputError, match="no answer cue"):
            reply_table(model, prompts, chain=True)
