import logging

import pytest
import torch
from transformer_lens.patching import get_act_patch_attn_head_out_all_pos
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from workbench.errors import InputError
from workbench.models.forked import Branch, Edit, can_fork, fork_mask, forked_forward, patch_heads
from workbench.models.hooked import HookedModel

LAYERS, HEADS, D_HEAD, VOCAB, LENGTH = 3, 4, 8, 48, 14
Z = [f"blocks.{layer}.attn.hook_z" for layer in range(LAYERS)]
EVERY_HEAD = [[(layer, head)] for layer in range(LAYERS) for head in range(HEADS)]
GROUPED = {
    "vocab_size": VOCAB,
    "hidden_size": HEADS * D_HEAD,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # large enough for patches to move the logits by tenths
}


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(**GROUPED))
    if name == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**GROUPED))
    if name == "mistral":
        return MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=6, head_dim=D_HEAD))
    sizes = {"n_embd": HEADS * D_HEAD, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, **sizes, initializer_range=0.3))


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2"])
def model(request) -> HookedModel:
    return HookedModel.from_pretrained_model(build(request.param))


@pytest.fixture
def llama() -> HookedModel:
    return HookedModel.from_pretrained_model(build("llama"))


@pytest.fixture(scope="module")
def prompts() -> tuple[list[int], list[int]]:
    """Two prompts that share their last nine tokens."""
    generator = torch.Generator().manual_seed(3)
    base, other, suffix = (
        torch.randint(0, VOCAB, (n,), generator=generator).tolist() for n in (5, 5, 9)
    )
    return base + suffix, other + suffix


def z_of(model: HookedModel, tokens: list[int], last: int) -> torch.Tensor:
    activations = model.run([tokens], Z)[0].activations
    return torch.stack([activations[name][-last:] for name in Z])


def one_by_one(model, base, source, groups) -> torch.Tensor:
    """The slow reference: a whole forward per group, hooks of the library head by head."""

    def hook_for(layer, head):
        def hook(z, hook):
            z = z.clone()
            z[:, -source.shape[1] :, head] = source[layer, :, head]
            return z

        return Z[layer], hook

    with torch.no_grad():
        return torch.stack(
            [
                model.bridge.run_with_hooks(
                    torch.tensor([base]), fwd_hooks=[hook_for(*head) for head in group]
                )[0, -1]
                for group in groups
            ]
        )


def close(first: torch.Tensor, second: torch.Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=1e-4)


GROUPS = [
    *EVERY_HEAD,
    [],
    [(0, 1), (0, 2), (2, 3)],
    [(2, 0), (1, 1)],
    [head for group in EVERY_HEAD for head in group],
]


@pytest.mark.parametrize("last", [1, 2, 9, LENGTH])
def test_every_group_equals_its_own_forward(model, prompts, last):
    base, other = prompts
    source = z_of(model, other, last)
    patched = patch_heads(model, base, source, GROUPS)
    close(patched, one_by_one(model, base, source, GROUPS))
    unpatched = model.run([base])[0].logits
    assert float((patched[0] - unpatched).abs().max()) > 1e-2  # the patch did something


def test_a_whole_prompt_sweep_equals_transformer_lens(model, prompts):
    base, other = prompts
    _, cache = model.bridge.run_with_cache(torch.tensor([other]))
    expected = get_act_patch_attn_head_out_all_pos(
        model.bridge, torch.tensor([base]), cache, lambda logits: logits[0, -1, 7]
    )
    patched = patch_heads(model, base, z_of(model, other, LENGTH), EVERY_HEAD, tokens=[7])
    close(patched.reshape(LAYERS, HEADS), expected)


@pytest.mark.parametrize("last", [1, 9])
def test_patching_a_run_with_itself_changes_nothing(model, prompts, last):
    base, _ = prompts
    patched = patch_heads(model, base, z_of(model, base, last), GROUPS)
    close(patched, model.run([base])[0].logits.expand_as(patched))


@pytest.mark.parametrize("last", [1, 9])
def test_batch_size_and_order_change_nothing(llama, prompts, last):
    base, other = prompts
    source = z_of(llama, other, last)
    patched = patch_heads(llama, base, source, GROUPS)
    close(patch_heads(llama, base, source, GROUPS, row_tokens=1), patched)
    close(patch_heads(llama, base, source, GROUPS[::-1], row_tokens=3 * LENGTH).flip(0), patched)


@pytest.mark.parametrize("last", [1, 9])
def test_columns_and_no_groups(llama, prompts, last):
    base, other = prompts
    source = z_of(llama, other, last)
    columns = [9, 2, 40]
    whole = patch_heads(llama, base, source, GROUPS)
    close(patch_heads(llama, base, source, GROUPS, tokens=columns), whole[:, columns])
    assert patch_heads(llama, base, source, []).shape == (0, VOCAB)
    assert patch_heads(llama, base, source, [], tokens=columns).shape == (0, 3)


def test_a_prompt_of_one_token(llama):
    source = z_of(llama, [5], 1)
    patched = patch_heads(llama, [7], source, EVERY_HEAD)
    close(patched, one_by_one(llama, [7], source, EVERY_HEAD))


def test_nothing_is_computed_below_the_patch(llama, prompts):
    base, other = prompts
    rows = dict.fromkeys(range(LAYERS), 0)

    def count(layer):
        def hook(block, args, kwargs):
            hidden = args[0] if args else kwargs["hidden_states"]
            rows[layer] += hidden.shape[0] if hidden.shape[1] == len(base) else 0

        return hook

    source = z_of(llama, other, 9)
    patch_heads(llama, base, source, [[]])  # so that the probe of the model is not counted
    for layer, block in enumerate(llama.bridge.blocks):
        block.register_forward_pre_hook(count(layer), with_kwargs=True)
    patch_heads(llama, base, source, [[(1, 0)], [(2, 1)], [(2, 2), (1, 3)], []])
    assert rows == {0: 1, 1: 1 + 2, 2: 1 + 3}


def test_branches_equal_separate_runs(model, prompts):
    trunk, _ = prompts
    branches = [Branch(14, [1, 2, 3]), Branch(6, [4]), Branch(0, [5, 6]), Branch(6, [7, 7, 7, 7])]
    for branch, logits in zip(branches, forked_forward(model, trunk, branches), strict=True):
        [run] = model.run([[*trunk[: branch.start], *branch.tokens]], ["hook_unembed"])
        close(logits, run.activations["hook_unembed"][-len(branch.tokens) :])


def test_an_edit_moves_its_own_branch_only(llama, prompts):
    trunk, _ = prompts
    value = torch.randn(2, D_HEAD, generator=torch.Generator().manual_seed(0))
    edited = Branch(8, [1, 2, 3], [Edit(1, 2, slice(1, 3), value)])
    plain = Branch(8, [1, 2, 3])
    first, second, third = forked_forward(llama, trunk, [plain, edited, plain])
    close(first, third)

    def hook(z, hook):
        z = z.clone()
        z[0, -2:, 2] = value
        return z

    alone = llama.bridge.run_with_hooks(
        torch.tensor([[*trunk[:8], 1, 2, 3]]), fwd_hooks=[(Z[1], hook)]
    )[0, -3:].detach()
    close(second, alone)
    close(second[0], first[0])  # before the edited positions nothing moves
    assert float((second[1:] - first[1:]).abs().min(0).values.max()) > 1e-2


def test_fork_mask_is_the_picture_in_the_module():
    mask = fork_mask(4, [Branch(3, [0, 0]), Branch(4, [0])], torch.float16)
    picture = ["#......", "##.....", "###....", "####...", "###.#..", "###.##.", "####..#"]
    allowed = torch.tensor([[mark == "#" for mark in row] for row in picture])
    assert torch.equal(mask[0, 0] == 0, allowed)
    assert float(mask.min()) == torch.finfo(torch.float16).min


def test_without_forks_rows_give_the_same_and_a_warning(llama, prompts, monkeypatch, caplog):
    base, other = prompts
    source = z_of(llama, other, 1)
    expected = patch_heads(llama, base, source, GROUPS)
    other_model = HookedModel.from_pretrained_model(build("llama"))
    accepts = other_model.accepts
    monkeypatch.setattr(
        other_model, "accepts", lambda name: name != "position_ids" and accepts(name)
    )
    with caplog.at_level(logging.WARNING):
        close(patch_heads(other_model, base, source, GROUPS), expected)
        patch_heads(other_model, base, source, GROUPS)
    assert caplog.text.count("does not support the forked forward") == 1


def test_without_block_calls_whole_forwards_give_the_same(llama, prompts, caplog):
    base, other = prompts
    source = z_of(llama, other, 9)
    expected = patch_heads(llama, base, source, GROUPS)
    other_model = HookedModel.from_pretrained_model(build("llama"))
    other_model.supports("resumed forward", lambda: (torch.zeros(1), torch.ones(1)))
    close(patch_heads(other_model, base, source, GROUPS), expected)
    assert "does not support the resumed forward" in caplog.text


def test_prompts_longer_than_a_sliding_window_are_not_forked(prompts):
    base, other = prompts
    model = HookedModel.from_pretrained_model(build("mistral"))
    assert not can_fork(model, len(base))
    for last in (1, 9):
        source = z_of(model, other, last)
        close(patch_heads(model, base, source, GROUPS), one_by_one(model, base, source, GROUPS))


def test_bfloat16_is_forked_too(prompts):
    base, other = prompts
    model = HookedModel.from_pretrained_model(build("llama").to(torch.bfloat16))
    source = z_of(model, other, 1)
    assert can_fork(model, len(base))
    patched = patch_heads(model, base, source, GROUPS).float()
    expected = one_by_one(model, base, source, GROUPS).float()
    assert torch.nn.functional.cosine_similarity(patched, expected).min() > 0.999


def test_errors_name_what_is_wrong(llama, prompts):
    base, _ = prompts
    source = torch.zeros(LAYERS, 1, HEADS, D_HEAD)
    with pytest.raises(InputError, match="layer 3, head 0"):
        patch_heads(llama, base, source, [[(3, 0)]])
    with pytest.raises(InputError, match="2 layers, 4 heads of width 8; model"):
        patch_heads(llama, base, source[:2], EVERY_HEAD)
    with pytest.raises(InputError, match="source covers 15 positions, the prompt has 14 tokens"):
        patch_heads(llama, base, source.expand(-1, 15, -1, -1), EVERY_HEAD)
    with pytest.raises(InputError, match="branch 1 starts at 15, the trunk has 14"):
        forked_forward(llama, base, [Branch(14, [1]), Branch(15, [1])])
    with pytest.raises(InputError, match="branch 0 has no tokens"):
        forked_forward(llama, base, [Branch(1, [])])
    with pytest.raises(InputError, match="branch 0 edits 1 positions with 2 values"):
        edit = Edit(0, 0, slice(0, 2), torch.zeros(2, D_HEAD))
        forked_forward(llama, base, [Branch(14, [1], [edit])])
    assert forked_forward(llama, base, []) == []
