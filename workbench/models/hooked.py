"""A language model with named activations, on top of TransformerLens's bridge.

`HookedModel` adds three things to the bridge: loading that checks first, runs over sequences of
different lengths in which padding changes nothing, and shapes and hashes to record beside results.
The numerics are the Hugging Face model's own: no weight is folded, centred or otherwise processed.
"""

import difflib
import inspect
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities.devices import get_device
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workbench.errors import InputError
from workbench.models import loading, parity
from workbench.models.batch_budget import PackBudget
from workbench.models.hooks import Hook, store
from workbench.models.steered import View

logger = logging.getLogger(__name__)


PATTERNS = ("hook_pattern", "hook_attn_scores")


@dataclass(frozen=True)
class ModelInfo:
    """What identifies a model in a result: its shape, the hash of its weights, how it was run."""

    name: str
    revision: str | None
    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_vocab: int
    weights_sha256: str
    dtype: str
    attention_implementation: str
    compatibility_mode: bool


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
        self._supported: dict[str, bool] = {}
        self._forward_parameters = frozenset(
            inspect.signature(bridge.original_model.forward).parameters
        )

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        dtype: torch.dtype | str = "float32",
        device: str | torch.device | None = None,
        device_map: Any = None,
        revision: str | None = None,
    ) -> "HookedModel":
        """Load a model from a local folder or the hub, with its tokenizer when it has one.

        A folder needs no network. Without `device` and `device_map` the model goes to the
        accelerator if there is one.

        Raises:
            InputError: the model is not there, not in safetensors, damaged, or not supported.
        """
        if device is not None and device_map is not None:
            raise InputError("give either a device or a device_map, not both")
        dtype = loading.parse_dtype(dtype)
        target = None if device_map else loading.parse_device(device or get_device())
        folder = loading.model_folder(source, revision)
        loading.read_config(folder)
        files = loading.weight_files(folder)
        model = loading.read_model(folder, dtype=dtype, device_map=device_map)
        if target is not None:
            model.to(target)  # pyright: ignore[reportArgumentType]
        name = folder.name if Path(source).expanduser().is_dir() else str(source)
        return cls._wrap(
            model, loading.read_tokenizer(folder), name, revision, loading.files_sha256(files)
        )

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
            InputError: the architecture has no per-head attention outputs to hook.
        """
        digest = weights_sha256 or loading.tensors_sha256(hf_model.state_dict())
        hf_model.eval().set_attn_implementation("eager")
        return cls._wrap(hf_model, tokenizer, name, None, digest)

    @classmethod
    def _wrap(
        cls,
        hf_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        name: str,
        revision: str | None,
        weights_sha256: str,
    ) -> "HookedModel":
        plain = parity.run_plain(hf_model, name)
        view = View(hf_model)  # before the bridge puts its own modules into the model
        bridge = loading.build_bridge(hf_model, tokenizer, name)
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
            weights_sha256=weights_sha256,
            dtype=str(hf_model.dtype).removeprefix("torch."),
            attention_implementation=str(hf_model.config._attn_implementation),
            compatibility_mode=bool(bridge.compatibility_mode),
        )
        model = cls(bridge, view, info, tokenizer)
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

    @torch.no_grad()
    def output_weights(self) -> Float[Tensor, "layer head d_head d_model"]:
        """Each head's slice of the output projection: its `hook_z` times this is what it writes."""
        return self.bridge.W_O.detach()

    @torch.no_grad()
    def run(
        self,
        sequences: Sequence[Sequence[int]],
        names: Collection[str] = (),
        *,
        batch_size: int = 8,
    ) -> list[Run]:
        """Run token sequences of any lengths; results in their order.

        Batches are made of sequences of similar length. Attention mask and position ids are given
        explicitly, so a batched run equals a single one.

        Raises:
            InputError: an empty or overlong sequence, a token outside the vocabulary, or a name
                that is no hook of this model.
        """
        self.check_sequences(sequences)
        self._check_names(names)
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        runs: dict[int, Run] = {}
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = [sequences[index] for index in indices]
            runs.update(zip(indices, self._run_batch(batch, names), strict=True))
        return [runs[index] for index in range(len(sequences))]

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

    @torch.no_grad()
    def logits_at(
        self,
        tokens: Int[Tensor, "batch position"],
        positions: Sequence[int],
        hooks: Sequence[Hook] = (),
        **kwargs: Any,
    ) -> Float[Tensor, "batch kept d_vocab"]:
        """Logits at a few positions, the same in every row; the others are not unembedded.

        `kwargs` go to the model's forward; those it does not know are left out.
        """
        kept = list(positions)  # no tensor: one would be moved to the first device, if spread
        kwargs = {"use_cache": False, **kwargs}
        # A hook on the unembedding is entitled to every position.
        narrow = not any("unembed" in name for name, _ in hooks)
        if narrow:
            kwargs["logits_to_keep"] = kept
        kwargs = {name: value for name, value in kwargs.items() if self.accepts(name)}
        logits = self.bridge.run_with_hooks(tokens, fwd_hooks=list(hooks), **kwargs)
        if "logits_to_keep" in kwargs:
            return logits
        return logits[:, kept]

    def supports(self, shortcut: str, probe: Callable[[], tuple[Tensor, Tensor]]) -> bool:
        """Whether a shortcut gives this model's own logits; found out once, then remembered.

        `probe` returns logits by the shortcut and by plain forwards. They may differ by 1e-3 (less
        when the logits are small) and by the rounding of the model's dtype. A shortcut that is not
        supported is logged.
        """
        if shortcut not in self._supported:
            try:
                quick, plain = (logits.float() for logits in probe())
                difference = float((quick - plain).abs().max())
                scale = float(plain.abs().max())
                allowed = 1e-3 * min(1.0, scale) + 8 * torch.finfo(self.dtype).eps * scale
                reason = "" if difference <= allowed else f"logits differ by {difference:.2g}"
            except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
                if isinstance(error, InputError) or should_reduce_batch_size(error):
                    raise  # says nothing about the shortcut
                reason = loading.first_line(error)
            self._supported[shortcut] = not reason
            if reason:
                logger.warning(
                    "model %s does not support the %s; falling back to a slower path (%s)",
                    self.info.name,
                    shortcut,
                    reason,
                )
        return self._supported[shortcut]

    def _check_names(self, names: Collection[str]) -> None:
        known = self.bridge.hook_dict
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InputError(f"{name!r} is no hook of model {self.info.name!r}{hint}")


def _module_paths(bridge: TransformerBridge) -> tuple[list[str], list[str]]:
    """Paths of the Hugging Face model's decoder blocks and of their attention modules."""
    adapter: Any = bridge.adapter
    component = adapter.component_mapping["blocks"]
    blocks = [f"{component.name}.{layer}" for layer in range(bridge.cfg.n_layers)]
    return blocks, [f"{block}.{component.submodules['attn'].name}" for block in blocks]
