"""A language model with named activations, on top of TransformerLens's bridge.

`HookedModel` adds three things to the bridge: loading that checks first, runs over sequences of
different lengths in which padding changes nothing, and shapes and hashes to record beside results.
The numerics are the Hugging Face model's own: no weight is folded, centred or otherwise processed.
"""

import inspect
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities.devices import get_device
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workbench.errors import InputError
from workbench.markup import table
from workbench.models import loading, memory, parity, plain_weights, steered
from workbench.models.batch_budget import PackBudget
from workbench.models.batched import Run, check_names, check_sequences, run_sequences, token_rows
from workbench.models.hooks import Hook
from workbench.models.info import ModelInfo
from workbench.models.loading import Provenance
from workbench.models.pieces import Pieces, tokens_of
from workbench.models.residual import Found, model_ways
from workbench.models.rotary import switches
from workbench.models.shortcuts import Shortcut
from workbench.models.steered import View
from workbench.progress import Reporter, pulse


class HookedModel:
    """A causal language model whose activations can be read and replaced by name."""

    def __init__(
        self,
        bridge: TransformerBridge,
        view: View,
        info: ModelInfo,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        self.bridge = bridge
        self.view = view
        self.info = info
        self.tokenizer = tokenizer
        self.pack_budget = PackBudget(self.device)
        self.shortcuts: dict[str, Shortcut] = {}
        self._switches = switches(self.text_config)
        self._forward_parameters = inspect.signature(bridge.original_model.forward).parameters

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        dtype: torch.dtype | str = "float32",
        device: str | torch.device | None = None,
        device_map: Any = None,
        revision: str | None = None,
        reporter: Reporter | None = None,
    ) -> "HookedModel":
        """Load a model in any form that `loading` reads, with its tokenizer when it has one.

        What lies on this machine needs no network. Without `device` and `device_map` the model goes
        to the accelerator if there is one; a device "auto" is the `device_map` "auto", which
        spreads it over all of them. `reporter` is told what was done to the weights.

        Raises:
            InputError: the model is not there, not in safetensors, damaged, not supported, or
                larger than the memory that is free.
        """
        if device is not None and device_map is not None:
            raise InputError("give either a device or a device_map, not both")
        if device == "auto":
            device, device_map = None, "auto"
        dtype = loading.parse_dtype(dtype)
        target = None if device_map else loading.parse_device(device or get_device())
        folder = loading.model_folder(source, revision)
        if target is not None:
            memory.check_fits(loading.hf_config(folder), dtype, target, source)
        origin = loading.provenance(folder)
        model = loading.read_model(folder, dtype=dtype, device_map=device_map)
        if target is not None:
            model.to(target)  # pyright: ignore[reportArgumentType]
        name, revision = loading.recorded_name(source, folder, revision)
        loaded = cls._wrap(model, loading.read_tokenizer(folder), name, revision, origin)
        if reporter is not None and loaded.info.origin:
            reporter.say(f"model: {loaded.info.architecture}, {loaded.info.origin}")
        return loaded

    @classmethod
    def from_pretrained_model(
        cls,
        hf_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        name: str = "in-memory",
        weights_sha256: str | None = None,
    ) -> "HookedModel":
        """Wrap a model that is already in memory; it is changed in place (hooks, eager attention).

        The weights are hashed unless `weights_sha256` says what to record.

        Raises:
            InputError: the model is quantised, has an adapter or weights that are not finite, or
                its architecture is not supported.
        """
        plain_weights.check_in_memory(hf_model, name)
        digest = weights_sha256 or loading.tensors_sha256(hf_model.state_dict())
        hf_model.eval().set_attn_implementation("eager")
        return cls._wrap(hf_model, tokenizer, name, None, Provenance(digest))

    @classmethod
    def _wrap(
        cls,
        hf_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        name: str,
        revision: str | None,
        origin: Provenance,
    ) -> "HookedModel":
        plain = parity.run_plain(hf_model, name)
        view = View(hf_model)  # before the bridge puts its own modules into the model
        bridge = parity.build_bridge(hf_model, tokenizer, name)
        # A model built otherwise is as good, only its sweeps are slower (`can_fork`).
        with suppress(AttributeError, LookupError, TypeError):
            view.steer(*steered.module_paths(bridge))
        info = ModelInfo.of(hf_model, bridge, name, revision, origin)
        model = cls(bridge, view, info, tokenizer)
        for block in bridge.blocks:
            block.register_forward_hook(_pulse)
        parity.check_bridge(model, plain)
        return model

    @property
    def device(self) -> torch.device:
        """Device of the input embedding, where token ids go."""
        return self._embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self._embedding.dtype

    @property
    def _embedding(self) -> Tensor:
        model: Any = self.bridge.original_model
        return model.get_input_embeddings().weight

    @property
    def context_length(self) -> int | None:
        """Longest sequence the model has positions for; None when its config names none."""
        return getattr(self.text_config, "max_position_embeddings", None)

    @property
    def text_config(self) -> Any:
        """The model's own config, of its language part where it has several."""
        model: Any = self.bridge.original_model
        return model.config.get_text_config()

    def accepts(self, parameter: str) -> bool:
        """Whether the model's own forward takes this keyword."""
        return parameter in self._forward_parameters

    @property
    def _keeps_positions(self) -> bool:
        """Whether the forward can be told at which positions logits are wanted, not how many."""
        parameter = self._forward_parameters.get("logits_to_keep")
        return parameter is not None and "Tensor" in str(parameter.annotation)

    def check_head(self, layer: int, head: int) -> None:
        """Refuse a head that the model does not have.

        Raises:
            InputError: naming the head and the model's shape.
        """
        if not (0 <= layer < self.info.n_layers and 0 <= head < self.info.n_heads):
            raise InputError(
                f"head (layer {layer}, head {head}) is not in model {self.info.name!r}, which has "
                f"{self.info.n_layers} layers of {self.info.n_heads} heads, both counted from 0"
            )

    def check_sequences(self, sequences: Sequence[Sequence[int]]) -> None:
        """Refuse sequences that the model cannot run.

        Raises:
            InputError: an empty or overlong sequence, or a token outside the vocabulary.
        """
        check_sequences(self, sequences)

    def to_tokens(self, text: str) -> list[int]:
        """The tokens of a text, as prompts have them.

        The tokenizer's start token comes first where it adds one and the text does not begin with
        it; no other token is added. TransformerLens' `bridge.to_tokens` may add another one.

        Raises:
            InputError: the model has no tokenizer.
        """
        return tokens_of(self._needed_tokenizer, text)

    def to_str_tokens(self, given: Any) -> list[str]:
        """One string a token of a text, of tokens, or of a decision event's clean prompt.

        Joined they are the text, control tokens written out. Entry i is of token i of the event:
        `zip(model.to_str_tokens(event), event.clean)`.

        Raises:
            InputError: the model has no tokenizer, or a token is outside the vocabulary.
        """
        tokens = self.to_tokens(given) if isinstance(given, str) else getattr(given, "clean", given)
        if strange := [one for one in tokens if not 0 <= one < self.info.d_vocab]:
            raise InputError(f"token {strange[0]} is not among 0 to {self.info.d_vocab - 1}")
        return Pieces(self._needed_tokenizer, tokens).strings

    @property
    def _needed_tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise InputError(f"model {self.info.name!r} has no tokenizer; give it token ids")
        return self.tokenizer

    def __repr__(self) -> str:
        return f"HookedModel({', '.join(self._facts().values())})"

    def _repr_html_(self) -> str:
        return table([self._facts()])

    def _facts(self) -> dict[str, str]:
        info = self.info
        shared = "" if info.n_kv_heads == info.n_heads else f" ({info.n_kv_heads} key-value)"
        context = "" if self.context_length is None else f", {self.context_length:,} tokens at most"
        return {
            "model": info.name,
            "kind": info.architecture + (f", {info.origin}" if info.origin else ""),
            "heads": f"{info.n_layers} layers of {info.n_heads} heads{shared}",
            "width": f"width {info.d_model}{context}",
            "weights": f"{info.dtype} on {self.device}",
            "tokenizer": "no tokenizer" if self.tokenizer is None else "with its tokenizer",
        }

    @torch.no_grad()
    def output_weights(self) -> Float[Tensor, "layer head d_head d_model"]:
        """Each head's slice of the output projection: its `hook_z` times this is what it writes."""
        return self.bridge.W_O.detach()

    @cached_property
    def ways(self) -> Found:
        """From each layer's output projection to the residual stream; None where not known."""
        return model_ways(self)

    @torch.no_grad()
    def run(
        self,
        sequences: str | Sequence[str | Sequence[int]],
        names: Collection[str] = (),
        *,
        batch_size: int = 8,
    ) -> list[Run]:
        """Run texts or token sequences of any lengths; results in their order.

        One text alone gives a list of one run. Texts become tokens as `to_tokens` says.

        Batches are made of sequences of similar length. Attention mask and position ids are given
        explicitly, so a batched run equals a single one; sequences whose logits would depend on
        what they are batched with run alone.

        Raises:
            InputError: an empty or overlong sequence, a token outside the vocabulary, a name that
                is no hook of this model, logits that are no numbers, or a text where the model has
                no tokenizer.
        """
        rows = token_rows(self, sequences)
        self.check_sequences(rows)
        check_names(self, names)
        return run_sequences(self, rows, names, batch_size)

    def rotation(self, length: int) -> int:
        """What a sequence's length decides about its rotary embeddings: sequences of one kind."""
        return sum(length > switch for switch in self._switches)

    def logits_at(
        self,
        tokens: Int[Tensor, "batch position"],
        positions: Sequence[int],
        hooks: Sequence[Hook] = (),
        *,
        grad: bool = False,
        **kwargs: Any,
    ) -> Float[Tensor, "batch kept d_vocab"]:
        """Logits at a few positions, the same in every row; the others are not unembedded.

        With `grad` they can be differentiated. `kwargs` go to the model's forward; those it does
        not know are left out.

        Raises:
            InputError: the model returns logits of other positions.
        """
        # Never a number of positions: models that share keys and values leave the others out of
        # whole layers then.
        kept = list(positions)  # no tensor: one would be moved to the first device, if spread
        kwargs = {"use_cache": False, **kwargs}
        # A hook on the unembedding is entitled to every position.
        narrow = not any("unembed" in name for name, _ in hooks)
        if narrow and self._keeps_positions:
            kwargs["logits_to_keep"] = kept
        kwargs = {name: value for name, value in kwargs.items() if self.accepts(name)}
        with torch.set_grad_enabled(grad):
            logits = self.bridge.run_with_hooks(tokens, fwd_hooks=list(hooks), **kwargs)
        if logits.shape[:2] == (len(tokens), tokens.shape[1]) != (len(tokens), len(kept)):
            return logits[:, kept]
        if logits.shape[:2] != (len(tokens), len(kept)):
            raise InputError(
                f"model {self.info.name!r} returns logits of shape {tuple(logits.shape)} for "
                f"{len(tokens)} sequences and {len(kept)} positions"
            )
        return logits


def _pulse(block: Any, args: Any, output: Any) -> None:
    pulse("layers")
