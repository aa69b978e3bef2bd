from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from workbench.models.llama import LlamaShape
from workbench.predicting.model import PlainModel, load_plain

SHAPE = LlamaShape(n_layers=2, n_heads=4, n_kv_heads=2, d_model=32, d_mlp=48)


@pytest.fixture(scope="session")
def save_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A tiny model with random weights and a tokenizer, as a folder."""

    def save(tokenizer: PreTrainedTokenizerFast, context: int = 512) -> Path:
        folder = tmp_path_factory.mktemp("model")
        torch.manual_seed(0)
        more: dict[str, Any] = {"initializer_range": 0.3}
        SHAPE.build(len(tokenizer), context, **more).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def folder(save_model, tokenizer) -> Path:
    return save_model(tokenizer)


@pytest.fixture(scope="session")
def chat_model(save_model, chat_tokenizer) -> PlainModel:
    """One with a chat form, in memory."""
    return load_plain(save_model(chat_tokenizer, context=1500), device="cpu")
