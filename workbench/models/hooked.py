"""A language model with named activations, on top of TransformerLens's bridge.

`HookedModel` adds three things to the bridge: loading that checks first, runs over sequences of
different lengths in which padding changes nothing, and shapes and hashes to record beside results.
The numerics are the Hugging Face model's own: no weight is folded, centred or otherwise processed.
"""

import difflib
import inspect
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities.devices import get_device
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workbench.errors import InputError
from workbench.markup import table
from workbench.models import loading, memory, parity, plain_weights
from workbench.models.batch_budget import PackBudget
from workbench.models.hooks import Hook, store
from workbench.models.info import ModelInfo
from workbench.models.loading import Provenance
from workbench.models.pieces import Pieces, tokens_of
from workbench.models.residual import Found, model_ways
from workbench.models.rotary import switches
from workbench.models.shortcuts import Shortcut, supports
from workbench.models.steered import View
from workbench.progress import Reporter, pulse

PATTERNS = ("hook_pattern", "hook_attn_scores")
SIDE_BY_SIDE = "run of sequences side by side"


@dataclass(frozen=True)
class Run:
    """One sequence's logits at its last token and its named activations.

    Activations have no batch axis and no padding: a position axis has the sequence's own length
    (attention patterns and scores: both the query and the key axis).
    """

    logits: Float[Tensor, " d_vocab"]
    activations: dict[str, Tensor]


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
            view.steer(*_module_paths(bridge))
        cfg = bridge.cfg
        info = ModelInfo(
            name=name,
            revision=revision,
            architecture=type(hf_model).__name__,
            n_layers=cfg.n_layers,
            n_heads=cfg.n_heads,
            n_kv_heads=getattr(cfg, "n_key_value_heads", None) or cfg.n_heads,
            d_model=cfg.d_model,
            d_head=cfg.d_head,
            d_vocab=cfg.d_vocab,
            weights_sha256=origin.weights_sha256,
            dtype=str(hf_model.dtype).removeprefix("torch."),
            attention_implementation=str(hf_model.config._attn_implementation),
            compatibility_mode=bool(bridge.compatibility_mode),
            base=origin.base,
            adapter=origin.adapter,
            quantisation=origin.quantisation,
        )
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
        longest = self.context_length
        for index, sequence in enumerate(sequences):
            if not sequence:
                raise InputError(f"sequence {index} is empty")
            if longest is not None and len(sequence) > longest:
                raise InputError(
                    f"sequence {index} has {len(sequence)} tokens, the model takes {longest}"
                )
            if min(sequence) < 0 or max(sequence) >= self.info.d_vocab:
                raise InputError(
                    f"sequence {index} has token ids {min(sequence)}..{max(sequence)}, "
                    f"the vocabulary is 0..{self.info.d_vocab - 1}"
                )

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
        sequences = self._token_rows(sequences)
        self.check_sequences(sequences)
        self._check_names(names)
        runs: dict[int, Run] = {}
        for indices in self._batches(sequences, batch_size):
            batch = [sequences[index] for index in indices]
            if len(batch) > 1 and not supports(self, SIDE_BY_SIDE, batch[-1], self._side_by_side):
                done = [run for one in batch for run in self._run_batch([one], names)]
            else:
                done = self._run_batch(batch, names)
            self._check_numbers(indices, done)
            runs.update(zip(indices, done, strict=True))
        return [runs[index] for index in range(len(sequences))]

    def _token_rows(self, given: Any) -> list[Sequence[int]]:
        """Texts and rows of numbers, also of a tensor, as rows of tokens."""
        given = given if hasattr(given, "__iter__") and not isinstance(given, str) else [given]
        rows = [one.tolist() if hasattr(one, "tolist") else one for one in given]
        if strange := [one for one in rows if not isinstance(one, str | list | tuple)]:
            raise InputError(
                f"a sequence is {type(strange[0]).__name__}; texts or lists of token ids are "
                "needed, [[1, 2]] for one list alone"
            )
        return [self.to_tokens(one) if isinstance(one, str) else one for one in rows]

    def _check_numbers(self, indices: Sequence[int], runs: Sequence[Run]) -> None:
        """Half precision can overflow on some prompts only, later than loading would see."""
        for index, run in zip(indices, runs, strict=True):
            if run.logits.isnan().any():
                raise InputError(
                    f"sequence {index}: model {self.info.name!r} gives logits in "
                    f"{self.info.dtype} that are no numbers; float32 may hold what overflows"
                )

    def _batches(self, sequences: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
        """Indices of sequences of similar length, which are rotated alike."""
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        for _, alike in groupby(order, key=lambda index: self.rotation(len(sequences[index]))):
            indices = list(alike)
            yield from (indices[start : start + size] for start in range(0, len(indices), size))

    def _side_by_side(self, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Logits of a sequence and a shorter one in one batch, and each by itself."""
        shorter = len(tokens) * 3 // 4
        if self.rotation(shorter) != self.rotation(len(tokens)):
            shorter = len(tokens)
        both = [tokens, tokens[-shorter:]]
        quick = self._run_batch(both, ())
        plain = [run for one in both for run in self._run_batch([one], ())]
        together, alone = (torch.stack([run.logits for run in runs]) for runs in (quick, plain))
        return together, alone

    def rotation(self, length: int) -> int:
        """What a sequence's length decides about its rotary embeddings: sequences of one kind."""
        return sum(length > switch for switch in self._switches)

    def _run_batch(self, batch: Sequence[Sequence[int]], names: Collection[str]) -> list[Run]:
        tokens = pad_sequence([torch.tensor(list(one)) for one in batch], batch_first=True)
        lengths = torch.tensor([len(sequence) for sequence in batch])
        mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long().to(self.device)
        stored: dict[str, Tensor] = {}
        last = sorted({len(sequence) - 1 for sequence in batch})
        logits = self.logits_at(
            tokens.to(self.device),
            last,
            [store(name, stored) for name in names],
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        )
        silent = [name for name in names if name not in stored]
        if silent:
            raise InputError(f"hook {silent[0]!r} exists but does not fire in this model's forward")
        return [
            Run(
                logits=logits[row, last.index(len(sequence) - 1)],
                activations={
                    name: self._one_sequence(name, stored[name], row, len(sequence))
                    for name in names
                },
            )
            for row, sequence in enumerate(batch)
        ]

    def _one_sequence(self, name: str, value: Tensor, row: int, length: int) -> Tensor:
        """Row `row` without padding. Size 1 on the batch axis: one value shared by all rows."""
        value = value[row] if value.shape[0] > 1 else value[0]
        if name.endswith(PATTERNS):
            return value[..., :length, :length]
        # Hooks with an unusual layout declare their position axis, counted with the batch axis.
        declared = getattr(self.bridge.hook_dict[name], "pos_dim", None)
        axis = 0 if declared is None else declared - 1 if declared > 0 else declared
        return value.narrow(axis, 0, length)

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

    def _check_names(self, names: Collection[str]) -> None:
        known = self.bridge.hook_dict
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InputError(f"{name!r} is no hook of model {self.info.name!r}{hint}")


def _pulse(block: Any, args: Any, output: Any) -> None:
    pulse("layers")


def _module_paths(bridge: TransformerBridge) -> tuple[list[str], list[str]]:
    """Paths of the Hugging Face model's decoder blocks and of their attention modules."""
    adapter: Any = bridge.adapter
    component = adapter.component_mapping["blocks"]
    blocks = [f"{component.name}.{layer}" for layer in range(bridge.cfg.n_layers)]
    return blocks, [f"{block}.{component.submodules['attn'].name}" for block in blocks]
