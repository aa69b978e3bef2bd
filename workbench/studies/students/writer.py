"""Chains of many prompts at once, by Llama models of one shape whose weights change.

Greedy, as `models.greedy` does it, and with the same result rounding aside; but keys and values lie
in place, every prompt at its own positions, and on CUDA a token is one replayed graph. So a student
can be asked in a second what takes `generate` many.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from workbench.errors import InputError, first_line

LOOK = 32
"""Tokens after which it is looked whether all have ended: looking makes the host wait."""
PREFILL = 64
"""Prompts that are read together."""


class Writer:
    """A copy of a model, in half precision on CUDA, and room for its chains.

    Args:
        config: of a Llama model.
        device: where it writes.
        end: token that ends a text.
        n: prompts at most.
        room: tokens of prompt and reply at most.

    Raises:
        InputError: a model of another kind.
    """

    def __init__(self, config: Any, device: torch.device, end: int, n: int, room: int) -> None:
        if config.model_type != "llama":
            raise InputError(f"chains are written by Llama models here, not by {config.model_type}")
        on_gpu = device.type == "cuda"
        dtype = torch.bfloat16 if on_gpu else torch.float32
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        self._model = model.to(device).eval().requires_grad_(False)
        self._device, self._end, self._room, self._n = device, end, room, n
        self._on_gpu, self._graph = on_gpu, None
        base, shape = self._model.model, self._model.config
        self._heads = shape.num_attention_heads, shape.num_key_value_heads
        width = base.layers[0].self_attn.head_dim
        size = (shape.num_hidden_layers, n, self._heads[1], room, width)
        self._keys, self._values = (torch.zeros(size, dtype=dtype, device=device) for _ in range(2))
        places = torch.arange(room, device=device)[None]
        with torch.no_grad():
            turned = base.rotary_emb(base.embed_tokens(places * 0), position_ids=places)
        self._cos, self._sin = (x[0] for x in turned)
        whole = {"dtype": torch.long, "device": device}
        self._token, self._place, self._at = (torch.zeros(n, **whole) for _ in range(3))
        self._ended = torch.zeros(n, dtype=torch.bool, device=device)
        self._written = torch.zeros(n, room, **whole)

    @torch.no_grad()
    def load(self, model: Any) -> None:
        """Take over the weights of a model of this shape."""
        theirs = model.state_dict()
        for name, weight in self._model.state_dict().items():
            weight.copy_(theirs[name])

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
        """What follows each prompt, up to and without the end token, `most` tokens at most.

        Raises:
            InputError: more prompts or tokens than there is room for.
        """
        longest = max(map(len, prompts))
        if len(prompts) > self._n or longest + most > self._room:
            raise InputError(
                f"{len(prompts)} prompts of {longest} tokens and {most} more, there is room for "
                f"{self._n} of {self._room}"
            )
        self._place.zero_()
        self._at.zero_()
        self._ended.fill_(True)  # places that no prompt takes
        self._written.fill_(self._end)
        for start in range(0, len(prompts), PREFILL):
            self._read(start, prompts[start : start + PREFILL])
        for step in range(most - 1):
            if step % LOOK == 0 and bool(self._ended.all()):
                break
            self._advance()
        rows = self._written[: len(prompts), :most].tolist()
        return [row[: row.index(self._end)] if self._end in row else row for row in rows]

    def _read(self, start: int, prompts: Sequence[Sequence[int]]) -> None:
        """Keys and values of some prompts, and the token that follows each."""
        width = max(map(len, prompts))
        ids = torch.tensor([[*row, *[self._end] * (width - len(row))] for row in prompts])
        ids, rows = ids.to(self._device), slice(start, start + len(prompts))
        last = torch.tensor([len(row) - 1 for row in prompts], device=self._device)
        base, turn = self._model.model, (self._cos[None, :width], self._sin[None, :width])
        x = base.embed_tokens(ids)
        for number, layer in enumerate(base.layers):
            query, key, value = self._projected(layer, x, turn)
            self._keys[number, rows, :, :width] = key
            self._values[number, rows, :, :width] = value
            z = functional.scaled_dot_product_attention(
                query, self._repeated(key), self._repeated(value), is_causal=True
            )
            x = self._block(layer, x, z.transpose(1, 2).flatten(2))
        x = base.norm(x[torch.arange(len(prompts), device=self._device), last])
        token = self._model.lm_head(x).argmax(dim=-1)
        self._token[rows], self._place[rows] = token, last + 1
        self._ended[rows] = token == self._end
        self._written[rows, 0] = token
        self._at[rows] = 1

    def _advance(self) -> None:
        if not self._on_gpu:
            self._step()
            return
        if self._graph is None:
            try:
                self._graph = self._recorded()
            except RuntimeError as error:  # slower, and as right
                print(f"chains are written without a graph: {first_line(error)}", flush=True)
                self._on_gpu = False
                self._step()
                return
        self._graph.replay()

    def _recorded(self) -> Any:
        """One token as a graph; what trying it out changes is put back."""
        state = (self._token, self._place, self._at, self._ended, self._written)
        before = [one.clone() for one in state]
        try:
            return self._captured()
        finally:
            for one, old in zip(state, before, strict=True):
                one.copy_(old)

    def _captured(self) -> Any:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads of this process may go on with what they do, as those that pin memory.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._step()
        return graph

    def _step(self) -> None:
        """A further token of every prompt that has not ended."""
        base, rows = self._model.model, torch.arange(self._n, device=self._device)
        turn = (self._cos[self._place][:, None], self._sin[self._place][:, None])
        seen = torch.arange(self._room, device=self._device)[None] <= self._place[:, None]
        x = base.embed_tokens(self._token)[:, None]
        for number, layer in enumerate(base.layers):
            query, key, value = self._projected(layer, x, turn)
            self._keys[number, rows, :, self._place] = key[:, :, 0]
            self._values[number, rows, :, self._place] = value[:, :, 0]
            z = self._attended(query, self._keys[number], self._values[number], seen)
            x = self._block(layer, x, z)
        token = self._model.lm_head(base.norm(x[:, 0])).argmax(dim=-1)
        token = torch.where(self._ended, self._end, token)
        self._written[rows, self._at.clamp(max=self._room - 1)] = token
        self._ended |= token == self._end
        self._token.copy_(token)
        # Who has ended stays where it is, so that no place is beyond the room.
        self._place += (~self._ended).long()
        self._at += (~self._ended).long()

    def _projected(self, layer: Any, x: Tensor, turn: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Query, key and value [prompt, head, token, channel], the first two turned."""
        attention, normed = layer.self_attn, layer.input_layernorm(x)
        query, key, value = (
            project(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        return [*apply_rotary_pos_emb(query, key, *turn), value]

    def _attended(
        self,
        query: Float[Tensor, "prompt head one channel"],
        keys: Float[Tensor, "prompt kv_head token channel"],
        values: Float[Tensor, "prompt kv_head token channel"],
        seen: Bool[Tensor, "prompt token"],
    ) -> Float[Tensor, "prompt one width"]:
        """Attention of one token a prompt; heads of a group share keys, which are not repeated."""
        grouped = query[:, :, 0].unflatten(1, (self._heads[1], -1))
        scores = grouped @ keys.mT * self._model.model.layers[0].self_attn.scaling
        scores = scores.float().masked_fill(~seen[:, None, None], float("-inf"))
        return (scores.softmax(dim=-1).to(values) @ values).flatten(1)[:, None]

    def _repeated(
        self, values: Float[Tensor, "prompt kv_head token channel"]
    ) -> Float[Tensor, "prompt head token channel"]:
        return values.repeat_interleave(self._heads[0] // self._heads[1], dim=1)

    def _block(self, layer: Any, x: Tensor, z: Tensor) -> Tensor:
        """The residual stream after a block of which attention's heads gave z."""
        x = x + layer.self_attn.o_proj(z)
        return x + layer.mlp(layer.post_attention_layernorm(x))
