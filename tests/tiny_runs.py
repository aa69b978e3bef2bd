"""Tiny random models in Hugging Face form, and prompt files on which their events count."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from workbench.analysis.patching import baseline_rows
from workbench.analysis.readout import Roles, focus_confusion, select_options
from workbench.models.hooked import HookedModel
from workbench.prompts.files import write_prompts
from workbench.prompts.prompt import VARIANTS, DecisionEvent, Option, PromptSet, Role

D_VOCAB = 64
ARCHITECTURES = ("llama", "gpt2", "qwen2")
FAST = ["--n-resamples", "50", "--n-permutations", "50", "--draws", "2", "--n-nominated", "3"]


def _build(architecture: str) -> PreTrainedModel:
    torch.manual_seed(0)
    shape = {
        "vocab_size": D_VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape))
    if architecture == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**shape))
    config = GPT2Config(
        vocab_size=D_VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3
    )
    return GPT2LMHeadModel(config)


def save_model(architecture: str, folder: Path) -> Path:
    """A model folder without tokenizer."""
    _build(architecture).save_pretrained(folder)
    return folder


def save_prompts(model_folder: Path, path: Path, n_prompts: int = 8) -> PromptSet:
    """A prompt file of one event a prompt, and two of the first, that count for this model."""
    model = HookedModel.load(model_folder, device="cpu")
    numbers = iter(range(1000))
    ids = ["p0", *(f"p{index}" for index in range(n_prompts))]
    events = tuple(
        replace(_counting_event(model, numbers), id=name, event=index)
        for index, name in enumerate(ids)
    )
    prompts = PromptSet(path.stem, events)
    write_prompts(prompts, path)
    return prompts


def _counting_event(model: HookedModel, seeds: Iterator[int]) -> DecisionEvent:
    """The next random event on whose options the model can be said to do the task."""
    for seed in seeds:
        event = _random_event(seed)
        logits = torch.stack(
            [run.logits for run in model.run([event.variant(v) for v in VARIANTS])]
        )
        for gold in range(D_VOCAB):
            chosen = replace(event, options=_options(event, logits.double(), gold))
            readout = focus_confusion(select_options(logits, chosen), Roles.of(chosen))
            row = baseline_rows(*readout)[0]
            if row["counts_far"] and row["counts_near"]:
                return chosen
    raise AssertionError("no event counts")


def _options(event: DecisionEvent, logits: Tensor, gold: int) -> tuple[Option, ...]:
    """Near and far options are the tokens that gain most on gold in their counterfactual."""
    clean, far, near = logits - logits[:, gold, None]
    gain = (near - clean).index_fill(0, torch.tensor(gold), -torch.inf)
    near_tokens = gain.topk(2).indices.tolist()
    rest = (far - clean).index_fill(0, torch.tensor([gold, *near_tokens]), -torch.inf)
    far_tokens = rest.topk(3).indices.tolist()
    roles: list[tuple[int, Role]] = [(gold, "gold")]
    roles += [*product(near_tokens, ["near"]), *product(far_tokens, ["far"])]
    return tuple(
        Option(f"label {index}", token, role, event.options[index].span)
        for index, (token, role) in enumerate(roles)
    )


def _random_event(seed: int) -> DecisionEvent:
    """Evidence of three tokens, six options of two tokens, and a cue; far is one token longer."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> list[int]:
        return torch.randint(0, D_VOCAB, (count,), generator=generator).tolist()

    suffix = draw(14)
    clean, far, near = ((9, *draw(count), *suffix) for count in (3, 4, 3))
    roles: tuple[Role, ...] = ("gold", "near", "near", "far", "far", "far")
    options = tuple(
        Option(str(index), index, role, (4 + 2 * index, 6 + 2 * index))
        for index, role in enumerate(roles)
    )
    return DecisionEvent("p", 0, clean, far, near, len(suffix), (1, 4), options)
