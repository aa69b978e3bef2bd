"""TransformerLens's bridge around a model, and the check at load that it is the model.

TransformerLens rebuilds attention step by step. An architecture can come out of that as another
model, or with its heads cut at other places. So a few tokens run through the model as transformers
has it, before the bridge changes it, and then as the workbench runs it. Logits must agree, and
every head's output times its slice of the output projection must be what that projection writes.
"""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workbench.errors import InputError, first_line
from workbench.models.shortcuts import moved_by_rounding

if TYPE_CHECKING:
    from workbench.models.hooked import HookedModel

N_TOKENS, N_BEGINNING = 12, 7
RELATIVE = 1e-4
"""Difference allowed besides rounding in the model's dtype, as a part of the range."""
ROUNDINGS = 4
"""Multiple of what two plain ways differ, or the last bit of every head's output moves, that the
bridge may differ in half precision."""


@dataclass(frozen=True)
class PlainRun:
    """What the unchanged model says after some tokens, and after a beginning of them."""

    tokens: list[int]
    beginning: list[int]
    logits: Float[Tensor, "2 d_vocab"]
    noise: float
    """Difference between two plain ways to the same logits."""


@torch.no_grad()
def run_plain(hf_model: PreTrainedModel, name: str) -> PlainRun:
    """Run a model on token ids alone, as users of transformers do.

    Raises:
        InputError: the model does not run on token ids, its logits are not finite, or its last
            token changes the logits before it: it is no causal model.
    """
    model: Any = hf_model

    def logits(*rows: list[int]) -> Tensor:
        device = model.get_input_embeddings().weight.device
        return model(input_ids=torch.tensor(rows, device=device)).logits.float().cpu()

    try:
        tokens = _some_tokens(model)
        beginning = tokens[: max(1, len(tokens) * N_BEGINNING // N_TOKENS)]
        whole, other = logits(tokens, [*tokens[:-1], tokens[0]])
        alone = logits(beginning)[0]
    except Exception as error:
        raise refusal(name, hf_model, "does not run on token ids alone", error) from error
    if not (whole.isfinite().all() and alone.isfinite().all()):
        dtype = str(hf_model.dtype).removeprefix("torch.")
        raise InputError(f"model {name!r} gives logits in {dtype} that are no finite numbers")
    change = float((whole - other)[:-1].abs().max()) if len(tokens) > 1 else 0.0
    if change > _allowed(whole, hf_model.dtype):
        raise refusal(
            name, hf_model, "is no causal language model: its last token changes earlier logits"
        )
    noise = float((whole[len(beginning) - 1] - alone[-1]).abs().max())
    return PlainRun(tokens, beginning, torch.stack([whole[-1], alone[-1]]), noise)


def build_bridge(
    hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, name: str
) -> TransformerBridge:
    """TransformerLens's bridge around a model in memory; needs no network and no tokenizer.

    Raises:
        InputError: an architecture the bridge does not know, fails on, or gives no per-head
            attention outputs.
    """
    try:
        bridge = build_bridge_from_module(
            hf_model,
            type(hf_model).__name__,
            hf_config=copy.deepcopy(hf_model.config),
            # The bridge adds special tokens to a tokenizer that has none; ours stays as it is. One
            # that was made in memory is kept from it: it looks for the files of every tokenizer.
            tokenizer=copy.deepcopy(tokenizer) if _of_files(tokenizer) else None,
            model_name=name,
        )
    except Exception as error:  # each of its adapters has its own ways to fail
        what = "is not taken by TransformerLens's bridge"
        raise refusal(name, hf_model, what, error) from error
    blocks: Any = getattr(bridge, "blocks", None)
    if blocks is not None and len(blocks) != bridge.cfg.n_layers:
        raise InputError(
            f"model {name!r} has {len(blocks)} layers, its configuration {bridge.cfg.n_layers}"
        )
    for layer in range(bridge.cfg.n_layers):
        if f"blocks.{layer}.attn.hook_z" not in bridge.hook_dict:
            what = f"has no per-head attention output in layer {layer}"
            raise refusal(name, hf_model, what)
    bridge.cfg.n_devices = len({parameter.device for parameter in hf_model.parameters()})
    if hf_model.dtype != torch.float32:
        _round_rotated(bridge, hf_model.dtype)
    return bridge


def _of_files(tokenizer: PreTrainedTokenizerBase | None) -> bool:
    return tokenizer is not None and "name_or_path" in tokenizer.init_kwargs


def _round_rotated(bridge: TransformerBridge, dtype: torch.dtype) -> None:
    """Rotated queries and keys in the model's dtype, as transformers has them.

    The OLMo family rotates by float32 sines, and the bridge leaves the outcome in float32.
    """
    for name, point in bridge.hook_dict.items():
        if name.endswith(("hook_rot_q", "hook_rot_k")):
            point.add_perma_hook(lambda tensor, hook: tensor.to(dtype))


@torch.no_grad()
def check_bridge(model: "HookedModel", plain: PlainRun) -> None:
    """Refuse a model that the bridge computes otherwise than transformers, or cuts at other heads.

    Raises:
        InputError: naming the architecture and what differs.
    """
    layers = range(model.info.n_layers)
    hooks = ("hook_resid_pre", "attn.hook_pattern", "attn.hook_z", "attn.o.hook_out")
    names = [f"blocks.{layer}.{hook}" for layer in layers for hook in (*hooks, "hook_resid_post")]
    hf_model: Any = model.bridge.original_model
    try:
        runs = model.run([plain.tokens, plain.beginning], names)
        logits = torch.stack([run.logits.float().cpu() for run in runs])
        problem = _logits_differ(logits, plain, model)
        for layer in layers:
            problem = problem or _heads_differ(model, layer, runs[0].activations)
    except Exception as error:
        what = "does not run in TransformerLens's bridge"
        raise refusal(model.info.name, hf_model, what, error) from error
    if problem:
        raise refusal(model.info.name, hf_model, problem)


def refusal(
    name: str, hf_model: PreTrainedModel, what: str, error: Exception | None = None
) -> InputError:
    """The one line that refuses a model; running out of memory says nothing about it."""
    reason = "" if error is None else f": {first_line(error)}"
    if error is not None and should_reduce_batch_size(error):
        return InputError(f"model {name!r} does not fit into memory{reason}")
    architecture = type(hf_model).__name__
    return InputError(f"model {name!r} is not supported: {architecture} {what}{reason}")


def _logits_differ(logits: Tensor, plain: PlainRun, model: "HookedModel") -> str:
    allowed = _allowed(plain.logits, model.dtype)
    off = float((logits - plain.logits).abs().max())
    if not off <= allowed and model.dtype not in (torch.float32, torch.float64):
        moved = float(moved_by_rounding(model, plain.tokens).abs().max())
        allowed += ROUNDINGS * max(plain.noise, moved)
    if off <= allowed:  # never true of NaN
        return ""
    largest = float(plain.logits.abs().max())
    return (
        f"has other logits in TransformerLens's bridge than in transformers, by {off:.2g} "
        f"(the largest is {largest:.2g}, allowed are {allowed:.1g})"
    )


def _heads_differ(model: "HookedModel", layer: int, activations: dict[str, Tensor]) -> str:
    """What is wrong with a layer's split into heads, if anything is."""
    info = model.info
    attention: Any = model.bridge.blocks[layer].attn
    hook = f"blocks.{layer}.attn."
    z, pattern = activations[f"{hook}hook_z"], activations[f"{hook}hook_pattern"]
    weights, bias = attention.W_O, attention.b_O
    n_heads = getattr(model.text_config, "num_attention_heads", info.n_heads)
    maps, outputs, slices = len(pattern), tuple(z.shape[1:]), tuple(weights.shape)
    if not (maps == n_heads == info.n_heads and outputs == (n_heads, info.d_head)) or (
        slices != (n_heads, info.d_head, info.d_model)
    ):
        return (
            f"has {n_heads} heads of width {info.d_head} by its configuration, but the bridge "
            f"gives layer {layer} {maps} attention maps, head outputs of shape {outputs} and "
            f"output weights of shape {slices}"
        )
    written = activations[f"{hook}o.hook_out"].float()
    rebuilt = torch.einsum("phd,hdm->pm", z.float(), weights.float())
    off = float((rebuilt + (0 if bias is None else bias.float()) - written).abs().max())
    largest = float(written.abs().max())
    if off <= (RELATIVE + ROUNDINGS * torch.finfo(model.dtype).eps) * largest:
        return ""
    return (
        f"has heads in the bridge that do not add up to what attention writes in layer {layer} "
        f"(off by {off:.2g}, the largest is {largest:.2g})"
    )


def _allowed(logits: Tensor, dtype: torch.dtype) -> float:
    """Difference of logits that rounding explains."""
    spread = float(logits.max() - logits.min())
    return RELATIVE * spread + 2 * torch.finfo(dtype).eps * float(logits.abs().max())


def _some_tokens(model: Any) -> list[int]:
    """The same token ids for every model, none with a part to play, within its positions."""
    config = model.config.get_text_config()
    size = min(config.vocab_size, model.get_input_embeddings().weight.shape[0], 1000)
    special = {
        value
        for part in (model.config, config)
        for name, value in part.to_dict().items()
        if name.endswith(("token_id", "token_index")) and isinstance(value, int)
    }
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0)).tolist()
    usual = [token for token in order if token not in special] or [0]
    count = min(N_TOKENS, getattr(config, "max_position_embeddings", None) or N_TOKENS)
    return [usual[index % len(usual)] for index in range(count)]
