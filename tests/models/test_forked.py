import logging

import pytest
import torch
from transformer_lens.patching import get_act_patch_attn_head_out_all_pos
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from workbench.errors import InputError
from workbench.models import forked, steered
from workbench.models.branches import Branch, Edit
from workbench.models.forked import can_fork, forked_forward, patch_heads
from workbench.models.hooked import HookedModel
from workbench.models.hooks import replace_z
from workbench.models.prefix import run_prefix
from workbench.models.reference import run_separately

LAYERS, HEADS, D_HEAD, VOCAB, LENGTH = 3, 4, 8, 48, 14
Z = [f"blocks.{layer}.attn.hook_z" for layer in range(LAYERS)]
GEMMA_LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
EVERY_HEAD = [[(layer, head)] for layer in range(LAYERS) for head in range(HEADS)]
GROUPED = {
    "vocab_size": VOCAB,
    "hidden_size": HEADS * D_HEAD,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def build(name: str, std: float = 0.3) -> PreTrainedModel:
    """With weights large enough for patches to move the logits by tenths."""
    torch.manual_seed(0)
    grouped = {**GROUPED, "initializer_range": std}
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(**grouped))
    if name == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**grouped))
    if name == "mistral":
        return MistralForCausalLM(MistralConfig(**grouped, sliding_window=6, head_dim=D_HEAD))
    if name == "gemma2":  # a window in every other layer, capped scores and logits, norms after
        window = {"sliding_window": 6, "layer_types": GEMMA_LAYERS}
        capped = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
        sizes = {"head_dim": D_HEAD, "query_pre_attn_scalar": 5}
        return Gemma2ForCausalLM(Gemma2Config(**grouped, **window, **capped, **sizes))
    sizes = {"n_embd": HEADS * D_HEAD, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, **sizes, initializer_range=std))


@pytest.fixture(scope="module", params=["llama", "qwen2", "mistral", "gemma2", "gpt2"])
def model(request) -> HookedModel:
    model = HookedModel.from_pretrained_model(build(request.param))
    assert can_fork(model, [1] * LENGTH)
    return model


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


def base_and_source(model: HookedModel, prompts, last: int) -> tuple[list[int], torch.Tensor]:
    base, other = prompts
    return base, z_of(model, other, last)


def one_by_one(model, base, source, groups) -> torch.Tensor:
    """The slow reference: a whole forward per group, hooks of the library head by head."""
    last = slice(-source.shape[1], None)
    tokens, rows = torch.tensor([base]), []
    for group in groups:
        hooks = [replace_z(at, (0, last, head), source[at, :, head]) for at, head in group]
        with torch.no_grad():
            rows.append(model.bridge.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1])
    return torch.stack(rows)


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
    base, source = base_and_source(model, prompts, last)
    patched = patch_heads(model, base, source, GROUPS)
    close(patched, one_by_one(model, base, source, GROUPS))
    unpatched = model.run([base])[0].logits
    assert float((patched - unpatched).abs().max()) > 1e-2  # the patches did something


def test_a_whole_prompt_sweep_equals_transformer_lens(model, prompts):
    base, other = prompts
    _, cache = model.bridge.run_with_cache(torch.tensor([other]))
    expected = get_act_patch_attn_head_out_all_pos(
        model.bridge, torch.tensor([base]), cache, lambda logits: logits[0, -1, 7]
    )
    patched = patch_heads(model, base, z_of(model, other, LENGTH), EVERY_HEAD, tokens=[7])
    close(patched.reshape(LAYERS, HEADS), expected)


@pytest.mark.parametrize("last", [1, 9])
def test_batch_size_and_order_change_nothing(llama, prompts, last):
    base, source = base_and_source(llama, prompts, last)
    patched = patch_heads(llama, base, source, GROUPS)
    llama.pack_budget.tokens = 1
    close(patch_heads(llama, base, source, GROUPS), patched)
    llama.pack_budget.tokens = 3 * LENGTH
    close(patch_heads(llama, base, source, GROUPS[::-1]).flip(0), patched)


def test_a_head_named_twice_is_patched_once(llama, prompts):
    base, other = prompts
    once, twice = patch_heads(llama, base, z_of(llama, other, 9), [[(1, 1)], [(1, 1), (1, 1)]])
    close(twice, once)


@pytest.mark.parametrize("last", [1, 9])
def test_columns_and_no_groups(llama, prompts, last):
    base, source = base_and_source(llama, prompts, last)
    columns = [9, 2, 40]
    whole = patch_heads(llama, base, source, GROUPS)
    close(patch_heads(llama, base, source, GROUPS, tokens=columns), whole[:, columns])
    assert patch_heads(llama, base, source, []).shape == (0, VOCAB)
    assert patch_heads(llama, base, source, [], tokens=columns).shape == (0, 3)


def test_a_prompt_of_one_token(llama):
    source = z_of(llama, [5], 1)
    patched = patch_heads(llama, [7], source, EVERY_HEAD)
    close(patched, one_by_one(llama, [7], source, EVERY_HEAD))


def test_decisions_go_beside_their_prefix(llama, prompts, monkeypatch):
    base, other = prompts
    source, groups = z_of(llama, other, 1), [[(2, 1)], [(0, 3)], [], [(1, 0), (2, 2)]]
    expected = one_by_one(llama, base, source, groups)
    patch_heads(llama, base, source, [[]])  # so that the probe of the model is not counted
    monkeypatch.setattr(forked, "run_prefix", lambda *_: pytest.fail("the prompt ran by itself"))
    seen = []
    for block in llama.view.model.model.layers:
        block.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    close(patch_heads(llama, base, source, groups), expected)
    # A row joins at the lowest layer it edits; one without edits at the last.
    assert seen == [len(base) + 1, len(base) + 2, len(base) + 4]


def test_decisions_too_many_for_one_pass_follow_their_prefix(llama, prompts, monkeypatch):
    base, source = base_and_source(llama, prompts, 1)
    expected = patch_heads(llama, base, source, EVERY_HEAD)
    llama.pack_budget.tokens = len(base) + 3
    monkeypatch.setattr(forked, "Together", lambda *_: pytest.fail("more tokens than fit"))
    close(patch_heads(llama, base, source, EVERY_HEAD), expected)


def test_branches_equal_separate_runs(model, prompts):
    prefix, _ = prompts
    branches = [Branch(14, [1, 2, 3]), Branch(6, [4]), Branch(0, [5, 6]), Branch(6, [7, 7, 7, 7])]
    for branch, logits in zip(branches, forked_forward(model, prefix, branches), strict=True):
        sequence = [*prefix[: branch.start], *branch.tokens]
        close(
            logits, model.logits_at(torch.tensor([sequence]), range(branch.start, len(sequence)))[0]
        )


def test_an_edit_moves_its_own_branch_only(llama, prompts):
    prefix, _ = prompts
    value = torch.randn(2, D_HEAD, generator=torch.Generator().manual_seed(0))
    edited = Branch(8, [1, 2, 3], [Edit(1, 2, slice(1, 3), value)])
    plain = Branch(8, [1, 2, 3])
    first, second, third = forked_forward(llama, prefix, [plain, edited, plain])
    close(first, third)
    close(second, run_separately(llama, prefix, [edited], None, False)[0])
    close(second[0], first[0])  # before the edited positions nothing moves
    assert float((second[1:] - first[1:]).abs().min(0).values.max()) > 1e-2


@pytest.mark.parametrize("last_only", [False, True])
def test_edits_of_some_positions_in_copies_of_the_end(model, prompts, last_only):
    """Below the lowest edit, between, in the last block, at the last position and before it."""
    prefix, other = prompts
    z = z_of(model, other, 6)
    edit = [
        Edit(0, 1, slice(0, 4), z[0, :4, 1]),
        Edit(1, 0, slice(2, 6, 2), z[1, 2:6:2, 0]),
        Edit(1, 0, slice(5, 6), z[1, 5:, 0]),
        Edit(2, 3, slice(0, 5), z[2, :5, 3]),
        Edit(2, 2, slice(4, None), z[2, 4:, 2]),
    ]
    sets = [edit, edit[1:], edit[2:3], edit[3:], edit[4:], edit[3:4], [], [edit[0], edit[3]]]
    branches = [Branch(8, prefix[8:], edits) for edits in sets]
    quick = forked_forward(model, prefix, branches, last_only=last_only)
    slow = run_separately(model, prefix, branches, None, last_only)
    for got, expected in zip(quick, slow, strict=True):
        assert len(got) == (1 if last_only else 6)
        close(got, expected)


def test_a_recorded_prefix_saves_its_run_and_changes_nothing(llama, prompts, monkeypatch):
    base, source = base_and_source(llama, prompts, 9)
    expected = patch_heads(llama, base, source, GROUPS)
    prefix = run_prefix(llama, base, 9)
    close(prefix.z, z_of(llama, base, 9))
    close(prefix.logits, llama.run([base])[0].logits)
    lengths = []
    run = llama.view.run
    monkeypatch.setattr(
        llama.view,
        "run",
        lambda job, tokens, *a: lengths.append(tokens.shape[1]) or run(job, tokens, *a),
    )
    close(patch_heads(llama, prefix, source, GROUPS), expected)
    assert len(base) not in lengths
    # One that recorded too little is still a prefix, only its branches start from their tokens.
    close(patch_heads(llama, run_prefix(llama, base, 1), source, GROUPS), expected)


def test_nothing_is_computed_below_the_patch(llama, prompts):
    base, source = base_and_source(llama, prompts, 9)
    prefix = run_prefix(llama, base, 9)
    patch_heads(llama, prefix, source, [[]])  # so that the probe of the model is not counted
    seen = {layer: [] for layer in range(LAYERS)}
    for layer, block in enumerate(llama.view.model.model.layers):
        for name, module in (("attention", block.self_attn.q_proj), ("mlp", block.mlp)):
            module.register_forward_pre_hook(
                lambda _, args, at=layer, name=name: seen[at].append((name, *args[0].shape[:2]))
            )
    patch_heads(llama, prefix, source, [[(1, 0)], [(2, 1)], [(2, 2), (1, 3)], [(2, 0)], []])
    assert seen == {
        0: [],
        1: [("mlp", 2, 9)],  # two rows join; what attention writes there is known
        2: [("attention", 2, 9), ("attention", 2, 1), ("mlp", 4, 1)],  # keys of all, then the end
    }


def test_a_model_that_cannot_fork_gets_the_loop_and_says_so(llama, prompts, caplog):
    base, source = base_and_source(llama, prompts, 9)
    expected = patch_heads(llama, base, source, GROUPS)
    model = HookedModel.from_pretrained_model(build("llama"))
    model.view.model.set_attn_implementation("eager")  # as if attention could not be steered
    with caplog.at_level(logging.WARNING):
        close(patch_heads(model, base, source, GROUPS), expected)
        close(patch_heads(model, base, source, GROUPS, tokens=[3, 1]), expected[:, [3, 1]])
    assert not can_fork(model, base)
    assert caplog.text.count("does not support the forked forward") == 1


def test_a_model_built_otherwise_still_loads_and_gets_the_loop(llama, prompts, monkeypatch, caplog):
    base, source = base_and_source(llama, prompts, 1)
    monkeypatch.setattr(steered, "module_paths", lambda bridge: (["model.nowhere"], ["at.all"]))
    model = HookedModel.from_pretrained_model(build("llama"))
    close(patch_heads(model, base, source, GROUPS), patch_heads(llama, base, source, GROUPS))
    assert "not where they were expected" in caplog.text


def test_processed_weights_are_not_forked(prompts):
    model = HookedModel.from_pretrained_model(build("gpt2"))
    model.bridge.enable_compatibility_mode()
    assert not can_fork(model, prompts[0])


def test_running_out_of_memory_halves_the_pack_and_goes_on(llama, prompts, monkeypatch, caplog):
    base, other = prompts
    source = z_of(llama, other, 9)
    expected = patch_heads(llama, base, source, GROUPS)
    run, sizes = llama.view.run, []

    def small_memory(job, tokens, *rest):
        sizes.append(len(getattr(job, "branches", [0])))
        if sizes[-1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return run(job, tokens, *rest)

    monkeypatch.setattr(llama.view, "run", small_memory)
    with caplog.at_level(logging.WARNING):
        close(patch_heads(llama, base, source, GROUPS), expected)
    assert sizes == [1, 15, 7, 3, 3, 3, 3, 3]  # fifteen groups patch something
    assert caplog.text.count("out of memory") == 1


def test_bfloat16_is_forked_too(prompts):
    base, other = prompts
    model = HookedModel.from_pretrained_model(build("llama").to(torch.bfloat16))
    source = z_of(model, other, 1)
    assert can_fork(model, base)
    patched = patch_heads(model, base, source, GROUPS).float()
    expected = one_by_one(model, base, source, GROUPS).float()
    assert torch.nn.functional.cosine_similarity(patched, expected).min() > 0.999


def scaled_by_position(dtype: torch.dtype) -> HookedModel:
    """Llama 4, whose queries are scaled from token 20 on, by their place in the forward."""
    torch.manual_seed(0)
    tuned = {"floor_scale": 20, "attn_temperature_tuning": True, "no_rope_layers": [1, 0, 1]}
    experts = {"num_local_experts": 2, "intermediate_size_mlp": 48, "head_dim": D_HEAD}
    config = Llama4TextConfig(**GROUPED, **tuned, **experts, pad_token_id=0, initializer_range=0.3)
    return HookedModel.from_pretrained_model(Llama4ForCausalLM(config).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prompts_are_forked_as_far_as_branches_are_right(prompts, dtype, caplog):
    base, other = prompts
    model = scaled_by_position(dtype)
    assert can_fork(model, base)
    source, long = z_of(model, other, 9), base + base
    patched = patch_heads(model, long, source, EVERY_HEAD)
    torch.testing.assert_close(patched, one_by_one(model, long, source, EVERY_HEAD))
    assert not can_fork(model, long) and can_fork(model, base)
    assert "for 28 tokens or more" in caplog.text


@pytest.fixture
def longrope() -> HookedModel:
    """Rotates all positions otherwise from 14 tokens on."""
    torch.manual_seed(0)
    factors = {"short_factor": [1.0, 1.2, 1.5, 2.0], "long_factor": [1.5, 3.0, 6.0, 12.0]}
    kind = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 5.0, **factors}
    rope = {**kind, "original_max_position_embeddings": LENGTH - 1}
    config = LlamaConfig(**GROUPED, rope_parameters=rope, initializer_range=0.3)
    return HookedModel.from_pretrained_model(LlamaForCausalLM(config))


def test_sequences_that_are_rotated_otherwise_share_no_forward(longrope, prompts):
    base, other = prompts
    sequences = [base, base[3:], other[1:], other]
    for run, tokens in zip(longrope.run(sequences), sequences, strict=True):
        with torch.no_grad():
            close(run.logits, longrope.bridge(torch.tensor([tokens]))[0, -1])
    branches = [Branch(10, [1, 2, 3, 4]), Branch(10, [5])]  # of 14 and of 11 tokens
    for branch, logits in zip(branches, forked_forward(longrope, base, branches), strict=True):
        sequence = [*base[: branch.start], *branch.tokens]
        with torch.no_grad():
            close(logits, longrope.bridge(torch.tensor([sequence]))[0, branch.start :])
    assert can_fork(longrope, base) and can_fork(longrope, base[3:])


def test_errors_name_what_is_wrong(llama, prompts):
    base, _ = prompts
    source = torch.zeros(LAYERS, 1, HEADS, D_HEAD)
    with pytest.raises(InputError, match="layer 3, head 0"):
        patch_heads(llama, base, source, [[(3, 0)]])
    with pytest.raises(InputError, match="2 layers, 4 heads of width 8; model"):
        patch_heads(llama, base, source[:2], EVERY_HEAD)
    with pytest.raises(InputError, match="source covers 15 positions, the prompt has 14 tokens"):
        patch_heads(llama, base, source.expand(-1, 15, -1, -1), EVERY_HEAD)
    with pytest.raises(InputError, match="branch 1 starts at 15, the prefix has 14"):
        forked_forward(llama, base, [Branch(14, [1]), Branch(15, [1])])
    with pytest.raises(InputError, match="branch 0 has no tokens"):
        forked_forward(llama, base, [Branch(1, [])])
    with pytest.raises(InputError, match="branch 0 edits 1 positions with 2 values"):
        edit = Edit(0, 0, slice(0, 2), torch.zeros(2, D_HEAD))
        forked_forward(llama, base, [Branch(14, [1], [edit])])
    with pytest.raises(InputError, match=r"edits head \(layer 1, head 2\) twice at position 1"):
        twice = [Edit(1, 2, at, torch.zeros(2, D_HEAD)) for at in (slice(0, 2), slice(1, 3))]
        forked_forward(llama, base, [Branch(8, base[8:], twice)])
    assert forked_forward(llama, base, []) == []
