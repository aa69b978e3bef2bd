import json
import pickle
import random
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter

from workbench.distill.examples import stream as data
from workbench.distill.examples.questions import (
    Example,
    direct_example,
    make_question,
    traced_example,
)
from workbench.distill.examples.stream import Collator, check_context
from workbench.distill.losses.losses import IGNORED
from workbench.distill.reading.positions import Marks
from workbench.errors import InputError
from workbench.organism.mix import ExampleMix
from workbench.prompts.templates import PlainTemplate
from workbench.prompts.text import tokenize


@pytest.fixture
def drawn(small_task, encode):
    prompt = small_task.draw("", random.Random(3))
    return prompt, make_question(small_task, prompt, encode)


def test_places_of_a_question_are_those_of_the_tokenizer(drawn, small_task, tokenizer):
    prompt, question = drawn
    rendered = small_task.render(prompt, PlainTemplate())
    text = tokenize(tokenizer, rendered.text)
    assert text.tokens[: len(question.ids)] == question.ids
    assert question.option_spans == tuple(map(text.token_span, rendered.options))
    assert question.evidence == tuple(map(text.token_span, rendered.mentions))
    letters = prompt.letters
    assert [tokenizer.decode([token]) for token in question.option_tokens] == [
        f" {letters[label]}" for label in prompt.candidates
    ]


def test_decisions_are_followed_by_the_answer(drawn, encode, traces):
    for example in (direct_example(drawn[1], encode), *traces):
        whole = (*example.question.ids, *example.target)
        answers = tuple(whole[place + 1] for place in example.decisions)
        assert answers == example.question.answer
        assert whole[-1] == answers[-1]


def test_only_right_answers_are_traces(traces, encode):
    example = traces[0]
    opening = len(encode(PlainTemplate.reason_cue))
    written = example.target[opening:]
    assert traced_example(example.question, written, encode) == example
    wrong = next(token for token in example.question.option_tokens if token != written[-1])
    assert traced_example(example.question, (*written[:-1], wrong), encode) is None
    assert traced_example(example.question, (*written, wrong), encode) is None
    assert traced_example(example.question, written[:-1], encode) is None
    assert traced_example(example.question, [], encode) is None


def test_examples_survive_json(traces):
    assert TypeAdapter(Example).validate_json(json.dumps(traces[0].to_json())) == traces[0]
    assert traces[0].fits()


def test_a_sample_depends_on_seed_and_index_alone(make_stream):
    stream = make_stream()
    first = [stream[index] for index in (7, 2, 7)]
    assert first[0] == first[2] == make_stream()[7]
    assert pickle.loads(pickle.dumps(stream))[2] == first[1]
    direct = replace(ExampleMix(partial=0.0), direct=1.0)
    assert make_stream(mix=direct, seed=1)[7] != make_stream(mix=direct)[7]


def test_the_mix_says_how_many_are_direct(make_stream, traces):
    chains = {trace.question.ids + trace.target for trace in traces}
    for share in (0.0, 0.5, 1.0):
        stream = make_stream(mix=ExampleMix(direct=share, partial=0.0))
        taken = [tuple(stream[index]["ids"][:-1]) in chains for index in range(60)]
        assert abs(1 - share - sum(taken) / 60) < 0.2


def test_a_stream_without_traces_must_be_direct(make_stream):
    with pytest.raises(InputError, match="no traces"):
        make_stream(traces=[])
    assert make_stream(traces=[], mix=ExampleMix(direct=1.0, partial=0.0))[0]["decisions"]


def test_batches_are_of_one_length_and_traces_are_each_taken_once(make_stream, traces):
    stream = make_stream(mix=ExampleMix(direct=0.0, partial=0.0))
    taken = [stream[index]["ids"] for index in range(2 * len(traces))]
    assert taken[: len(traces)] == taken[len(traces) :]
    given = [[*trace.question.ids, *trace.target] for trace in traces]
    assert sorted(ids[:-1] for ids in taken[: len(traces)]) == sorted(given)

    def padded(rows: list[list[int]]) -> int:
        return sum(4 * max(map(len, rows[at : at + 4])) for at in range(0, len(rows), 4))

    assert padded(taken[: len(traces)]) < 0.9 * padded(given)


def test_direct_examples_have_as_many_options_as_the_trace_they_stand_for(make_stream):
    chains = make_stream(mix=ExampleMix(direct=0.0, partial=0.0))
    direct = make_stream(mix=ExampleMix(direct=1.0, partial=0.0))
    n_options = [[len(x[index]["option_spans"]) for index in range(24)] for x in (chains, direct)]
    assert n_options[0] == n_options[1]
    assert len(set(n_options[0])) > 1


def test_batches_are_padded(make_stream):
    stream = make_stream()
    samples = [stream[index] for index in range(6)]
    batch = Collator(16)(samples)
    assert batch["input_ids"].shape[1] % 16 == 0
    for row, sample in enumerate(samples):
        n = len(sample["ids"])
        assert batch["input_ids"][row, :n].tolist() == sample["ids"]
        assert batch["labels"][row, n:].unique().tolist() in ([], [IGNORED])
        assert batch["weights"][row, n:].sum() == 0
    assert (batch["decisions"] == -1).any()  # notes have one or two mentions
    assert {key: value.dtype for key, value in batch.items() if value.is_floating_point()} == {
        "weights": torch.float32
    }


def test_marks_point_where_they_say(batch):
    marks = Marks.of(batch)
    whole = batch["input_ids"]
    for row in range(len(whole)):
        n, question = int(batch["length"][row]), int(batch["question"][row])
        first = int(batch["option_spans"][row, 0, 0])
        assert marks.rows[row].nonzero().flatten().tolist() == list(range(first, n))
        assert marks.targets[row].nonzero().flatten().tolist() == list(range(question - 1, n - 1))
        for place in marks.decisions[row][marks.decided[row]]:
            assert whole[row, place + 1] in batch["option_tokens"][row]
    n_decisions = marks.decisions.shape[1]
    assert marks.sampled[:, :n_decisions].equal(marks.decided)
    ends = marks.samples[:, n_decisions:][marks.offered]
    assert ends.equal(batch["option_spans"][..., 1][marks.offered] - 1)
    assert Marks.of(batch, "all").rows.sum() == batch["length"].sum()
    assert Marks.of(batch, "target").rows.sum() == (batch["length"] - batch["question"] + 1).sum()


def test_a_context_that_no_question_fits_is_refused(make_stream):
    with pytest.raises(InputError, match="context is 20: even of the questions with the fewest"):
        make_stream(context=20)
    only_traces = ExampleMix(direct=0.0, partial=0.0)
    assert len(make_stream(context=20, mix=only_traces)[0]["ids"]) > 20


def test_where_no_direct_question_fits_another_example_stands(
    small_task, encode, traces, make_stream, monkeypatch
):
    shortest = check_context(small_task, encode, 400)
    context = len(shortest.question.ids) + len(shortest.target) + 1  # fits few, and those in time
    sizes = {"context": context, "mix": ExampleMix(direct=1.0, partial=0.0)}
    stream = make_stream(40, **sizes, traces=[])
    assert all(len(stream[index]["ids"]) <= context for index in range(40))
    stream = make_stream(40, **sizes)
    monkeypatch.setattr(data, "LAST_TRY", 1)
    chains = [trace.target for trace in traces]
    kept = [s for s in map(stream.__getitem__, range(40)) if len(s["ids"]) > context]
    assert kept and all(tuple(s["ids"][s["question"] : -1]) in map(tuple, chains) for s in kept)
