import pickle
import random

import pytest
import torch
from torch.utils.data import DataLoader

from workbench.labels.icd10cm import category
from workbench.organism.examples import IGNORED, Collator, ExampleMix, TrainingStream
from workbench.prompts.coding import CodingTask, TaskConfig
from workbench.prompts.templates import PlainTemplate
from workbench.prompts.word_encoder import END, WordEncoder, end_token


@pytest.fixture(scope="module")
def make_stream(seen_task, raw_tokenizer):
    def make(task=seen_task, **mix):
        usual = {"n_samples": 300, "context": 4096, "same_size": 4, "seed": 0}
        sizes = {name: mix.pop(name, size) for name, size in usual.items()}
        return TrainingStream(task, raw_tokenizer, ExampleMix(**mix), **sizes)

    return make


def decode(tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False)


def test_word_by_word_is_equal_to_the_tokenizer_on_whole_texts(seen_task, raw_tokenizer):
    encode, rng = WordEncoder(raw_tokenizer), random.Random(0)
    for _ in range(60):
        prompt = seen_task.draw("", rng)
        steps = seen_task.chain(prompt)
        text = seen_task.render(prompt, PlainTemplate()).text + "".join(steps) + " A B C"
        assert encode(text) == raw_tokenizer.encode(text).ids


@pytest.mark.parametrize("text", ["", "\n", " ", "a  b", "a \n b\n", "d/o 12 (poly)x's", " é漢"])
def test_word_by_word_on_unusual_texts(raw_tokenizer, text):
    assert WordEncoder(raw_tokenizer)(text) == raw_tokenizer.encode(text).ids


def test_encoder_goes_to_other_processes(raw_tokenizer):
    encode = WordEncoder(raw_tokenizer)
    again = pickle.loads(pickle.dumps(encode))
    assert again("note: 1 . left fx") == encode("note: 1 . left fx")
    assert again.end == encode.end == end_token(raw_tokenizer)


def test_letters_with_their_space_are_tokens(raw_tokenizer):
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        assert len(raw_tokenizer.encode(f" {letter}").ids) == 1


def test_sample_depends_on_seed_and_index_alone(make_stream):
    one, other = make_stream(), make_stream()
    backwards = [other[k] for k in reversed(range(6))][::-1]
    assert [one[k] for k in range(6)] == backwards
    assert one[0] != make_stream(seed=1)[0]
    assert one[0]["ids"] != one[1]["ids"]


def test_sample_is_the_same_in_another_worker(make_stream):
    stream = make_stream(n_samples=8)
    loader = DataLoader(stream, batch_size=2, num_workers=2, collate_fn=list)
    assert [sample for batch in loader for sample in batch] == [stream[k] for k in range(8)]


def test_sample_is_a_prompt_with_its_weights_then_chain_answer_and_end(make_stream, raw_tokenizer):
    stream = make_stream(direct=0.3, partial=0.3, prompt_weight=0.25, ramp=0.0)
    kinds = set()
    for index in range(60):
        sample = stream[index]
        assert len(sample["ids"]) == len(sample["weights"])
        n_prompt = sample["weights"].count(0.25)
        assert sample["weights"] == [0.25] * n_prompt + [1.0] * (len(sample["ids"]) - n_prompt)
        question = decode(raw_tokenizer, sample["ids"][:n_prompt])
        target = decode(raw_tokenizer, sample["ids"][n_prompt:])
        assert question.startswith("note: 1 . ")
        assert "reason:" not in question
        steps, _, answer = target.partition("\nanswer:")
        *letters, last = answer.replace(END, f" {END}").split()
        assert last == END
        assert len(letters) == question.count(" ;\n") + question.partition("\n")[0].count(" ; ")
        kinds.add(steps.count("\n"))
        assert steps.startswith("\nreason:\n") or not steps
    assert kinds == {0, 2, 3, 4, 5, 6, 7}  # none, the first 1 to 5 steps, all 6; and the cue's line


def test_shares_of_direct_and_partial_examples(make_stream, raw_tokenizer):
    def n_steps(**mix) -> set[int]:
        stream = make_stream(**mix)
        texts = [decode(raw_tokenizer, stream[index]["ids"]) for index in range(25)]
        return {text.partition("\nreason:")[2].count("\n") for text in texts}

    assert n_steps(direct=1.0, partial=0.0) == {0}
    assert n_steps(direct=0.0, partial=0.0) == {7}  # six steps and the answer's line
    assert n_steps(direct=0.0, partial=1.0) <= {2, 3, 4, 5, 6}


def test_mentions_are_written_out_at_the_start_of_the_ramp(make_stream, seen_task):
    plain = seen_task.eased(0.0)
    ramped, unramped = make_stream(ramp=0.5), make_stream(ramp=0.0)
    assert ramped[0] == make_stream(task=plain, ramp=0.0)[0]
    assert ramped[75] != unramped[75]
    assert ramped[150] == unramped[150]  # half of 300 samples: the ramp is over


def test_long_examples_are_drawn_again(make_stream):
    free = make_stream()
    lengths = [len(free[index]["ids"]) for index in range(20)]
    context = sorted(lengths)[10]
    short = make_stream(context=context)
    for index, length in enumerate(lengths):
        redrawn = short[index]
        assert len(redrawn["ids"]) <= context
        assert (redrawn == free[index]) == (length <= context)


def test_a_batch_shares_its_numbers_of_families_and_candidates(space, categories, make_stream):
    config = TaskConfig(n_mentions=(1, 1), n_families=(2, 4), family_size=(2, 5))
    task = CodingTask(space, categories[0], config)
    stream = make_stream(task=task, same_size=5, direct=1.0, partial=0.0)
    newline = stream._encode("\n")[0]
    n_lines = [stream[index]["ids"].count(newline) for index in range(40)]
    batches = [set(n_lines[start : start + 5]) for start in range(0, 40, 5)]
    assert all(len(batch) == 1 for batch in batches)
    assert len(set.union(*batches)) > 3


def described(tokenizer, ids: list[int]) -> set[str]:
    """The options' descriptions, without their letters."""
    options = decode(tokenizer, ids).partition("\noptions:\n")[2]
    lines = options.partition("\nreason:")[0].partition("\nanswer:")[0].split("\n")
    return {line.strip().rpartition(" ")[0] for line in lines}


@pytest.mark.parametrize("invented", [0.0, 0.5])
def test_unseen_categories_never_occur_in_training(
    make_stream, space, categories, raw_tokenizer, invented
):
    held_out = set(categories[1])
    unseen = {label.text for label in space if category(label.id) in held_out}
    seen = {label.text for label in space if category(label.id) not in held_out}
    stream = make_stream(invented=invented)
    real = 0
    for index in range(200):
        options = described(raw_tokenizer, stream[index]["ids"])
        assert len(options) > 15
        assert options.isdisjoint(unseen - seen)
        real += options <= seen
    assert real == 200 if invented == 0 else real < 100


def test_collator_pads_on_the_right_and_ignores_padding():
    samples = [
        {"ids": [5, 6, 7], "weights": [0.2, 1.0, 1.0]},
        {"ids": [8, 9], "weights": [0.2, 1.0]},
    ]
    batch = Collator()(samples)
    assert batch["input_ids"].shape[1] % 64 == 0
    real = batch["labels"] != IGNORED
    assert real.sum(1).tolist() == [3, 2]
    for row, sample in enumerate(samples):
        n = len(sample["ids"])
        assert real[row, :n].all()
        assert batch["input_ids"][row, :n].tolist() == sample["ids"]
        assert batch["labels"][row, :n].tolist() == sample["ids"]
        assert torch.equal(batch["weights"][row, :n], torch.tensor(sample["weights"]))
    assert (batch["weights"][~real] == 0).all()
