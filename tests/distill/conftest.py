"""A small coding task, its right chains as traces, and tiny models that read its tokens."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.distill.data import Collator, DistillationStream
from workbench.distill.matching import HeadMap, ModelShape, match_by_depth
from workbench.distill.questions import Example, make_question, traced_example
from workbench.distill.traces import SCHEMA
from workbench.labels import LabelSpace
from workbench.models import loading
from workbench.models.organism_data import ExampleMix, WordEncoder
from workbench.prompts.chain import chain_steps
from workbench.prompts.tasks import CodingPrompt, CodingTask, TaskConfig
from workbench.prompts.templates import PlainTemplate, letter_of

MakeModel = Callable[..., LlamaForCausalLM]


@pytest.fixture(scope="session")
def small_task(space: LabelSpace, categories) -> CodingTask:
    sizes = TaskConfig(n_mentions=(1, 2), n_families=(2, 2), family_size=(2, 3))
    return CodingTask(space, categories[0][::8], sizes)


@pytest.fixture(scope="session")
def encode(raw_tokenizer: Tokenizer) -> WordEncoder:
    return WordEncoder(raw_tokenizer)


@pytest.fixture(scope="session")
def right_chain(encode: WordEncoder):
    """(task, prompt) → what a perfect teacher writes after the reason cue."""

    def write(task: CodingTask, prompt: CodingPrompt) -> list[int]:
        letters = letter_of(prompt)
        steps = chain_steps(task.space, prompt, letters)
        answer = "".join(f" {letters[mention.label]}" for mention in prompt.mentions)
        return encode("".join(f"\n{step}" for step in steps) + PlainTemplate.answer_cue + answer)

    return write


@pytest.fixture(scope="session")
def traces(small_task: CodingTask, encode: WordEncoder, right_chain) -> list[Example]:
    found = []
    for number in range(24):
        prompt = small_task.draw("", random.Random(number))
        question = make_question(small_task, prompt, encode)
        found.append(traced_example(question, right_chain(small_task, prompt), encode))
    return found


@pytest.fixture(scope="session")
def make_stream(small_task: CodingTask, encode: WordEncoder, traces: list[Example]):
    def make(n_samples: int = 1000, **options) -> DistillationStream:
        settings = {"mix": ExampleMix(direct=0.3, partial=0.0), "seed": 0, "traces": traces}
        return DistillationStream(
            small_task,
            encode,
            **{**settings, **options},
            n_samples=n_samples,
            context=400,
            same_size=4,
        )

    return make


@pytest.fixture(scope="session")
def batch(make_stream) -> dict[str, torch.Tensor]:
    stream = make_stream()
    return Collator(8)([stream[index] for index in range(4)])


def build(seed: int = 0, n_layers: int = 2, vocab_size: int = 800, **changes) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    config = LlamaConfig(num_hidden_layers=n_layers, vocab_size=vocab_size, **{**shape, **changes})
    return LlamaForCausalLM(config)


@pytest.fixture
def make_model() -> MakeModel:
    return build


@pytest.fixture
def teacher(make_model: MakeModel, tokenizer, tmp_path: Path) -> Path:
    """A model folder."""
    folder = tmp_path / "teacher"
    make_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def trace_file(teacher: Path, traces: list[Example], tmp_path: Path) -> Path:
    """The right chains, as if that teacher had written them."""
    digest = loading.files_sha256(loading.weight_files(teacher))
    head = {"schema": SCHEMA, "teacher": digest, "n": len(traces), "part": [0, 1]}
    lines = [head, *({"draw": i, **x.to_json()} for i, x in enumerate(traces))]
    (tmp_path / "given").mkdir()
    path = tmp_path / "given" / "traces.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="session")
def headmap() -> HeadMap:
    """Coarse 0-1 and refine 1-2, 1-3 of a teacher of two layers, for a student of its shape."""
    shape = ModelShape(n_layers=2, n_heads=4, n_kv_heads=2)
    return match_by_depth({"coarse": [(0, 1)], "refine": [(1, 2), (1, 3)]}, shape, shape)
