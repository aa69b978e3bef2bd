import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from workbench.errors import InputError
from workbench.models.greedy import greedy_tokens
from workbench.predicting.generating import Generator, open_generator

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14], [15]]


def test_prompts_are_continued_as_one_by_one(chat_model):
    generator = open_generator("transformers", chat_model, 64)
    assert isinstance(generator, Generator)
    told: list[int] = []
    written = generator.write(PROMPTS, 6, told.append)
    end = [chat_model.tokenizer.eos_token_id]
    alone = [greedy_tokens(chat_model.hf, [p], max_new_tokens=6, end=end)[0] for p in PROMPTS]
    assert written == alone and sum(told) == len(PROMPTS)
    assert all(end[0] not in row for row in written)


@pytest.fixture
def vllm(monkeypatch):
    """A stand-in that writes each prompt backwards, and then an end token and more."""
    made = ModuleType("vllm")
    made.seen = {}  # pyright: ignore

    class LLM:
        def __init__(self, **given):
            made.seen["engine"] = given  # pyright: ignore

        def generate(self, prompts, sampling, use_tqdm):
            end = sampling.stop_token_ids[0]
            rows = [[*reversed(p["prompt_token_ids"]), end, 3] for p in prompts]
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=row)]) for row in rows]

    made.LLM = LLM  # pyright: ignore
    made.SamplingParams = lambda **given: SimpleNamespace(**given)  # pyright: ignore
    monkeypatch.setitem(sys.modules, "vllm", made)
    return made


def test_vllm_writes_where_it_is_installed(chat_model, vllm):
    generator = open_generator("vllm", chat_model, 64)
    assert isinstance(generator, Generator)
    assert generator.write(PROMPTS, 6) == [row[::-1] for row in PROMPTS]
    assert vllm.seen["engine"]["model"] == str(chat_model.folder)
    assert vllm.seen["engine"]["max_model_len"] == 64


def test_vllm_is_refused_where_it_cannot_be(chat_model, monkeypatch, vllm):
    with pytest.raises(InputError, match="CUDA_VISIBLE_DEVICES and --part"):
        open_generator("vllm", chat_model, 64, launched=True)
    with pytest.raises(InputError, match="an adapter or a GGUF file"):
        open_generator("vllm", replace(chat_model, folder=Path("model.gguf")), 64)
    monkeypatch.setattr(vllm, "LLM", lambda **_: 1 / 0)
    with pytest.raises(InputError, match=r"vLLM cannot run .*division by zero"):
        open_generator("vllm", chat_model, 64)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match="needs the package vllm, which is not installed"):
        open_generator("vllm", chat_model, 64)
