import random
from dataclasses import replace
from functools import partial

import pytest
import torch
from fixtures.distillation import build
from fixtures.shades import ShadesTask, shades_tokenizer
from transformers import PreTrainedConfig

from workbench.analysis.chains.generation import generation_accuracy, write_chains
from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.prompts.chain import ChainCase, make_chain, question_cases, step_spans
from workbench.prompts.events import make_events
from workbench.prompts.prompt import VARIANTS
from workbench.prompts.templates import Cues, PlainTemplate
from workbench.prompts.word_encoder import end_token


@pytest.fixture(scope="module")
def task() -> ShadesTask:
    return ShadesTask()


@pytest.fixture(scope="module")
def tokenizer():
    return shades_tokenizer()


@pytest.fixture(scope="module")
def raw_tokenizer(tokenizer):
    return tokenizer.backend_tokenizer


@pytest.fixture
def given(task, tokenizer, monkeypatch):
    """Makes decisions with the task's own correct chain for every variant."""
    drawn = {}
    original = ShadesTask.counterfactuals

    def keep(self, prompt, event, rng):
        drawn[prompt.id, event] = found = original(self, prompt, event, rng)
        return found

    monkeypatch.setattr(ShadesTask, "counterfactuals", keep)

    def make(**options) -> list[ChainCase]:
        cases = []
        prompts = make_events(task, PlainTemplate(), tokenizer, **options)
        for case in question_cases(prompts, tokenizer):
            event, chains = case.event, {}
            for name in VARIANTS:
                prompt = getattr(drawn[event.id, event.event], name)
                chains[name] = make_chain(
                    tokenizer,
                    case.chains[name].question,
                    "".join(f"\n{step}" for step in task.chain(prompt)),
                    opening=tokenizer(PlainTemplate.reason_cue)["input_ids"],
                    stages=task.stages,
                    event=event.event,
                )
            cases.append(replace(case, chains=chains))
        return cases

    return make


class Writer:
    """Stands in for a model: reads the prompt as text and writes what `write` says."""

    device = torch.device("cpu")
    generation_config = None
    config = PreTrainedConfig()

    def __init__(self, tokenizer, write) -> None:
        self.tokenizer, self.write = tokenizer, write
        self.calls = []

    def generate(self, input_ids, attention_mask, generation_config):
        self.calls.append(generation_config)
        pad_token_id = generation_config.pad_token_id
        rows = []
        for row, mask in zip(input_ids.tolist(), attention_mask.bool(), strict=True):
            tokens = [token for token, real in zip(row, mask.tolist(), strict=True) if real]
            assert row[len(row) - len(tokens) :] == tokens  # padding stands on the left
            text = self.write(self.tokenizer.decode(tokens))
            rows.append([*self.tokenizer.encode(text).ids, pad_token_id])
        width = max(map(len, rows))
        written = [row + [pad_token_id] * (width - len(row)) for row in rows]
        return torch.cat([input_ids, torch.tensor(written)], dim=1)


@pytest.fixture(scope="module")
def run(task, raw_tokenizer):
    def accuracy(write, chain=False, **options):
        writer = Writer(raw_tokenizer, write)
        settings = {"n_prompts": 20, "seed": 0, "batch_size": 8, **options}
        result = generation_accuracy(writer, raw_tokenizer, task, chain=chain, **settings)
        return result, writer

    return accuracy


@pytest.fixture(scope="module")
def prompts_by_text(task):
    """Every prompt the function draws (seed 0), by its rendered text without the cue."""
    rng = random.Random("0:generation")
    prompts = [task.draw(str(index), rng) for index in range(20)]
    cue = PlainTemplate.answer_cue
    return {task.render(p, PlainTemplate()).text.removesuffix(cue): p for p in prompts}


@pytest.mark.parametrize(
    ("chain", "written", "exact", "per_mention"),
    [
        pytest.param(False, lambda right: right, 1.0, 1.0, id="right letters"),
        pytest.param(False, lambda right: ["BA"[x == "B"] for x in right], 0.0, 0.0, id="others"),
        pytest.param(False, lambda right: [*right, "Z"], 0.0, 1.0, id="a letter too many"),
        pytest.param(False, lambda right: [], 0.0, 0.0, id="nothing"),
        pytest.param(True, lambda right: ["\nanswer:", *right], 1.0, 1.0, id="after a chain"),
        pytest.param(True, lambda right: ["A B C"], 0.0, 0.0, id="a chain without an answer"),
        pytest.param(True, None, 0.0, 0.0, id="no chain"),
    ],
)
def test_letters_score_by_prompt_and_mention(
    run, prompts_by_text, task, chain, written, exact, per_mention
):
    def write(text):
        prompt = prompts_by_text[text.removesuffix("\nreason:" if chain else "\nanswer:")]
        steps = [f"\n{step}" for step in task.chain(prompt)] if chain else []
        return "".join(steps) + " " + " ".join(written(task.answer(prompt))) if written else ""

    result, writer = run(write, chain=chain)
    assert (result.n, result.exact, result.per_mention) == (20, exact, per_mention)
    assert len(writer.calls) == 3  # 20 prompts in batches of 8
    assert not any(call.do_sample for call in writer.calls)


def test_a_right_first_letter_counts_by_mention_only(run, prompts_by_text):
    def write(text):
        first, *rest = ShadesTask().answer(prompts_by_text[text.removesuffix("\nanswer:")])
        return f" {first}" + " Z" * len(rest)

    result, _ = run(write)
    answers = [ShadesTask().answer(prompt) for prompt in prompts_by_text.values()]
    assert result.exact == sum(len(answer) == 1 for answer in answers) / 20
    assert result.per_mention == 20 / sum(map(len, answers))


def test_new_tokens_leave_room_for_the_answer_and_its_end(run, task, raw_tokenizer):
    _, writer = run(lambda text: "")
    assert max(call.max_new_tokens for call in writer.calls) == task.most_decisions + 1
    _, writer = run(lambda text: "", chain=True, max_new_tokens=99)
    assert {call.max_new_tokens for call in writer.calls} == {99}
    assert writer.calls[0].eos_token_id == [end_token(raw_tokenizer)]


tiny = partial(build, context=1024, initializer_range=0.3, tie_word_embeddings=False)


def test_chains_belong_to_their_variant(given):
    for case in given(n_prompts=6, seed=3, event="all"):
        number, own = case.event.event, case.clean.own_step
        assert own == 2 * number + 1
        after = (case.clean.n_steps - own - 1) // 2
        assert case.clean.stages == (
            *("before",) * 2 * number, "coarse", "fine", *("after",) * 2 * after
        )  # fmt: skip
        assert (*case.clean.question, *case.cue) == case.event.clean
        gold = next(option.token for option in case.event.options if option.role == "gold")
        last = {name: chain.tokens[chain.kept(own + 1) - 1] for name, chain in case.chains.items()}
        role = {option.token: option.role for option in case.event.options}
        assert last["clean"] == gold
        assert role[last["far"]] in ("far", "other") and role[last["near"]] == "near"
        # The steps before the swapped mention's are the same for all.
        assert len({chain.tokens[: chain.kept(own - 1)] for chain in case.chains.values()}) == 1


def test_steps_end_where_their_text_ends(tokenizer):
    opening = tokenizer("\nreason:")["input_ids"]
    written = "\n 1 in A B\n\n 1 is Cyst of spleen B"
    chain = make_chain(tokenizer, [1, 2], written, opening=opening)
    kept = [tokenizer.decode(chain.tokens[: chain.kept(step)]) for step in (0, 1, 2)]
    assert kept == ["", "\nreason:\n 1 in A B", "\nreason:" + written]
    tokens = tokenizer(written)["input_ids"]
    assert make_chain(tokenizer, [1, 2], tokens, opening=opening) == chain
    # Tokens that the tokenizer would not have chosen: one for each byte.
    spelled = [token for letter in written for token in tokenizer(letter)["input_ids"]]
    spelled_chain = make_chain(tokenizer, [1, 2], spelled)
    texts = [tokenizer.decode(spelled[: spelled_chain.kept(step)]) for step in (1, 2)]
    assert len(spelled) > len(tokens)
    assert texts == ["\n 1 in A B", written]


def test_sentences_are_steps_where_asked():
    text = "First this. Then that!\nSo B"
    assert [text[slice(*span)] for span in step_spans(text, "sentence")] == [
        "First this.",
        "Then that!",
        "So B",
    ]
    assert len(step_spans(text)) == 2
    with pytest.raises(InputError, match="line, sentence"):
        step_spans(text, "word")


def test_written_chains_stop_before_the_answer(task, tokenizer, given, monkeypatch):
    """The model stands in for one that writes the right chain and answer."""
    expected = given(n_prompts=4, seed=0)
    prompts = make_events(task, PlainTemplate(), tokenizer, n_prompts=4, seed=0)
    chain_of = {chain.question: chain.tokens for case in expected for chain in case.chains.values()}
    opening = tokenizer(PlainTemplate.reason_cue)["input_ids"]
    closing = tokenizer("\nanswer: A B")["input_ids"]

    def write(model, asked, **options):
        assert all(row[-len(opening) :] == opening for row in asked)
        chains = [chain_of[tuple(row[: -len(opening)])] for row in asked]
        return [[*chain[len(opening) :], *closing] for chain in chains]

    monkeypatch.setattr("workbench.analysis.chains.generation.greedy_tokens", write)
    model = HookedModel.from_pretrained_model(tiny(vocab_size=len(tokenizer)))
    bare = question_cases(prompts, tokenizer)
    assert write_chains(model, bare, tokenizer, variants=VARIANTS) == expected
    [clean, *_] = write_chains(model, bare, tokenizer)
    assert set(clean.chains) == {"clean"}


def test_a_chain_needs_room_and_a_prompt_its_cue(task, tokenizer):
    prompts = make_events(task, PlainTemplate(), tokenizer, n_prompts=2, seed=0)
    cases = question_cases(prompts, tokenizer)
    longest = max(len(event.clean) for event in prompts)
    short = tiny(vocab_size=len(tokenizer), context=longest + 3)
    model = HookedModel.from_pretrained_model(short)
    with pytest.raises(InputError, match="no room for a chain"):
        write_chains(model, cases, tokenizer)
    with pytest.raises(InputError, match="no answer cue"):
        question_cases(prompts, tokenizer, Cues("", "", "\ndecision:"))
