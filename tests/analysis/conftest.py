"""A tiny random Llama (grouped-query attention) and hand-made decision events for it."""

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import DecisionEvent, Option, PromptSet

D_VOCAB = 64
ROLES = ("gold", "near", "near", "far", "far", "far", "other")


def _make_event(
    seed: int = 0,
    prompt_id: str = "p0",
    event: int = 0,
    evidence_first: bool = True,
    roles: tuple[str, ...] = ROLES,
) -> DecisionEvent:
    """Evidence of 3 tokens, 2 tokens per option, and the decision, with fillers between.

    The far variant has one token more before the suffix, so that the variants are ragged.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> list[int]:
        return torch.randint(0, D_VOCAB, (count,), generator=generator).tolist()

    described = draw(2 * len(roles))
    start = 5 if evidence_first else 2
    options = tuple(
        Option(f"label {index}", 3 * index + 1, role, (start + 2 * index, start + 2 * index + 2))
        for index, role in enumerate(roles)
    )
    clean, far, near = draw(3), draw(4), draw(3)
    if evidence_first:
        tail = [*described, *draw(3)]
        variants = [[9, *middle, 8, *tail] for middle in (clean, far, near)]
        evidence, suffix = (1, 4), len(tail) + 1
    else:
        tail = draw(3)
        variants = [[9, 8, *described, *middle, *tail] for middle in (clean, far, near)]
        evidence, suffix = (2 + len(described), 5 + len(described)), len(tail)
    clean, far, near = (tuple(tokens) for tokens in variants)
    return DecisionEvent(prompt_id, event, clean, far, near, suffix, evidence, options)


@pytest.fixture(scope="session")
def make_event() -> Callable[..., DecisionEvent]:
    return _make_event


@pytest.fixture(scope="session")
def model() -> HookedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=D_VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    return HookedModel.from_pretrained_model(LlamaForCausalLM(config))


@pytest.fixture(scope="session")
def event() -> DecisionEvent:
    return _make_event()


@pytest.fixture(scope="session")
def prompts() -> PromptSet:
    """Five events of four prompts."""
    ids = ["p0", "p0", "p1", "p2", "p3"]
    events = [_make_event(index, name, index) for index, name in enumerate(ids)]
    return PromptSet("test", tuple(events))
