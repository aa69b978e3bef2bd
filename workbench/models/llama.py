"""Llama models made from nothing: their sizes, and a model of these sizes with random weights."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from workbench.errors import InputError
from workbench.files import settings

if TYPE_CHECKING:  # configurations hold shapes, and reading one must stay quick
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM


Size = Annotated[int, Field(ge=1)]


@settings
class LlamaShape:
    """The sizes of a Llama model besides vocabulary and context.

    Raises:
        InputError: a size below 1, or sizes that do not divide each other.
    """

    n_layers: Size
    n_heads: Size
    n_kv_heads: Size
    d_model: Size
    d_mlp: Size

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads or self.d_model % self.n_heads:
            raise InputError(
                f"n_heads {self.n_heads} must divide d_model {self.d_model} and be a multiple of "
                f"n_kv_heads {self.n_kv_heads}"
            )

    def config(self, vocab_size: int, context: int, **more: Any) -> "LlamaConfig":
        """The sizes as transformers names them; `more` are further fields of its configuration.

        Embeddings are tied, and there are no special tokens, unless `more` says so.
        """
        from transformers import LlamaConfig

        tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
        return LlamaConfig(
            vocab_size=vocab_size,
            max_position_embeddings=context,
            num_hidden_layers=self.n_layers,
            num_attention_heads=self.n_heads,
            num_key_value_heads=self.n_kv_heads,
            hidden_size=self.d_model,
            intermediate_size=self.d_mlp,
            **{"tie_word_embeddings": True, **tokens, **more},
        )

    def build(
        self, vocab_size: int, context: int, *, dtype: "torch.dtype | None" = None, **more: Any
    ) -> "LlamaForCausalLM":
        """A model of this configuration, with weights drawn from torch's generator.

        It is made in torch's default dtype unless another is given, and on torch's default device.
        """
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_config(
            self.config(vocab_size, context, **more), dtype=dtype, trust_remote_code=False
        )
