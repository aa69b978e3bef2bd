import random
from types import SimpleNamespace

import pytest
import torch

from workbench.models.generation import generation_accuracy
from workbench.models.organism_data import end_token
from workbench.prompts.chain import chain_steps
from workbench.prompts.tasks import CodingTask, TaskConfig
from workbench.prompts.templates import PlainTemplate, letter_of


@pytest.fixture(scope="module")
def task(space, categories) -> CodingTask:
    config = TaskConfig(n_mentions=(1, 3), n_families=(3, 3), family_size=(3, 3))
    return CodingTask(space, categories[0][::8], config)


class Writer:
    """Stands in for a model: reads the prompt as text and writes what `write` says."""

    device = torch.device("cpu")

    def __init__(self, tokenizer, write) -> None:
        self.tokenizer, self.write = tokenizer, write
        self.calls = []

    def generate(self, input_ids, attention_mask, max_new_tokens, pad_token_id, **options):
        self.calls.append(SimpleNamespace(max_new_tokens=max_new_tokens, **options))
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
    return {PlainTemplate().render(task.space, p).text.removesuffix(cue): p for p in prompts}


def right_answer(prompt) -> list[str]:
    return [letter_of(prompt)[mention.label] for mention in prompt.mentions]


def test_right_letters_score_one(run, prompts_by_text):
    def write(text):
        return " " + " ".join(right_answer(prompts_by_text[text.removesuffix("\nanswer:")]))

    result, writer = run(write)
    assert (result.n, result.exact, result.per_mention) == (20, 1.0, 1.0)
    assert len(writer.calls) == 3  # 20 prompts in batches of 8
    assert not any(call.do_sample for call in writer.calls)


def test_right_letters_after_a_chain_score_one(run, prompts_by_text, task):
    def write(text):
        prompt = prompts_by_text[text.removesuffix("\nreason:")]
        steps = chain_steps(task.space, prompt, letter_of(prompt))
        return "\n" + "\n".join(steps) + "\nanswer: " + " ".join(right_answer(prompt))

    assert run(write, chain=True)[0].exact == 1.0


def test_other_letters_score_zero(run, prompts_by_text):
    def write(text):
        right = right_answer(prompts_by_text[text.removesuffix("\nanswer:")])
        return "".join(f" {'B' if letter == 'A' else 'A'}" for letter in right)

    result, _ = run(write)
    assert (result.exact, result.per_mention) == (0.0, 0.0)


@pytest.mark.parametrize("chain", [False, True])
def test_nothing_written_scores_zero(run, chain):
    result, _ = run(lambda text: "", chain=chain)
    assert (result.exact, result.per_mention) == (0.0, 0.0)


def test_a_chain_without_an_answer_scores_zero(run):
    result, _ = run(lambda text: " A B C", chain=True)
    assert (result.exact, result.per_mention) == (0.0, 0.0)


def test_a_right_first_letter_counts_by_mention_only(run, prompts_by_text):
    def write(text):
        first, *rest = right_answer(prompts_by_text[text.removesuffix("\nanswer:")])
        return f" {first}" + " Z" * len(rest)

    result, _ = run(write)
    answers = [right_answer(prompt) for prompt in prompts_by_text.values()]
    assert result.exact == sum(len(answer) == 1 for answer in answers) / 20
    assert result.per_mention == 20 / sum(map(len, answers))


def test_a_letter_too_many_is_not_exact(run, prompts_by_text):
    def write(text):
        right = right_answer(prompts_by_text[text.removesuffix("\nanswer:")])
        return "".join(f" {letter}" for letter in [*right, "Z"])

    result, _ = run(write)
    assert (result.exact, result.per_mention) == (0.0, 1.0)


def test_new_tokens_leave_room_for_the_answer_and_its_end(run, task, raw_tokenizer):
    _, writer = run(lambda text: "")
    most = task.config.n_mentions[1]
    assert max(call.max_new_tokens for call in writer.calls) == most + 1
    _, writer = run(lambda text: "", chain=True, max_new_tokens=99)
    assert {call.max_new_tokens for call in writer.calls} == {99}
    assert writer.calls[0].eos_token_id == end_token(raw_tokenizer)
