"""What identifies a model in a result."""

from dataclasses import dataclass
from typing import Any

from workbench.models.adapters import AdapterInfo
from workbench.models.loading import BaseInfo, Provenance


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
    base: BaseInfo | None = None
    adapter: AdapterInfo | None = None
    quantisation: dict[str, int] | None = None
    """Tensors by storage type of a GGUF file, which was dequantised."""

    @classmethod
    def of(
        cls, hf_model: Any, bridge: Any, name: str, revision: str | None, origin: Provenance
    ) -> "ModelInfo":
        """Of a Hugging Face model and the bridge around it."""
        cfg = bridge.cfg
        return cls(
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

    @property
    def origin(self) -> str:
        """What was done to the weights when they were loaded, in words; empty where nothing was."""
        parts = []
        if self.quantisation is not None:
            counts = ", ".join(f"{n} {kind}" for kind, n in self.quantisation.items())
            parts.append(f"dequantised from GGUF ({counts})")
        if self.base is not None and self.adapter is not None:
            rank = "" if self.adapter.rank is None else f" of rank {self.adapter.rank}"
            parts.append(f"{self.adapter.kind} adapter{rank} merged into {self.base.name}")
            if self.adapter.trained_on not in (None, self.base.weights_sha256):
                parts.append("whose files are not those of the base that it was trained on")
        return ", ".join(parts)
