import pandas as pd
import pytest
import torch
from transformer_lens.patching import get_act_patch_direct_path
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from workbench.analysis.patching.paths import Path, path_effects, paths_between, sweep_paths
from workbench.analysis.readout import Roles, focus_confusion, select_options
from workbench.errors import InputError
from workbench.measures import DIFFERENCES, MEASURES
from workbench.models.branches import Branch, Edit
from workbench.models.forked import forked_forward
from workbench.models.hooked import HookedModel
from workbench.models.path_edges import receive
from workbench.models.prefix import run_prefix
from workbench.phases import RUNS

LAYERS, HEADS, D_HEAD = 3, 4, 8
SIZES = {
    "vocab_size": 64,
    "hidden_size": HEADS * D_HEAD,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "initializer_range": 0.3,
}


def build(kv_heads: int) -> HookedModel:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, num_key_value_heads=kv_heads)
    return HookedModel.from_pretrained_model(LlamaForCausalLM(config))


@pytest.fixture(scope="module")
def pair() -> tuple[list[int], list[int]]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randint(0, 64, (9,), generator=generator).tolist() for _ in range(2))


def through(model, base, other, path, suffix) -> torch.Tensor:
    """Logits at the last token with one path patched."""
    prefix, source = run_prefix(model, base, suffix), run_prefix(model, other, suffix).z
    received = receive(model, prefix, source, [path.source], [path.destination[0]], [path.route])
    z = received[path.destination[0], path.route][0]
    group = HEADS // model.info.n_kv_heads if path.route != "q" else 1
    first = path.destination[1] * group
    edits = [
        Edit(path.destination[0], head, slice(None), z[:, head])
        for head in range(first, first + group)
    ]
    start = len(base) - suffix
    [logits] = forked_forward(model, prefix, [Branch(start, base[start:], edits)], last_only=True)
    return logits[0]


@pytest.mark.parametrize(("kv_heads", "route"), [(4, "q"), (4, "k"), (4, "v"), (2, "q")])
def test_paths_equal_those_of_transformer_lens(pair, kv_heads, route):
    model, (base, other) = build(kv_heads), pair
    caches = [model.bridge.run_with_cache(torch.tensor([tokens]))[1] for tokens in (other, base)]
    expected = get_act_patch_direct_path(
        model.bridge,
        torch.tensor([base]),
        *caches,
        lambda logits: logits[0, -1, 7],
        src_layer=0,
        src_head=2,
        component=route,
        verbose=False,
    )
    unpatched = float(model.run([base])[0].logits[7])
    moved = 0.0
    for layer in (1, 2):
        for head in range(HEADS):
            path = Path((0, 2), (layer, head), route)
            got = float(through(model, base, other, path, len(base))[7])
            assert got == pytest.approx(float(expected[layer, head]), abs=1e-4)
            moved = max(moved, abs(got - unpatched))
    assert moved > 1e-2


def by_hand(model, base, other, path, suffix) -> torch.Tensor:
    """A forward with one KV head's key or value set to what the changed residual stream gives."""
    layer, kv_head = path.destination
    names = [f"blocks.{path.source[0]}.attn.hook_z", f"blocks.{layer}.hook_resid_pre"]
    here, there = model.run([base, other], names)
    change = there.activations[names[0]][-suffix:] - here.activations[names[0]][-suffix:]
    written = change[:, path.source[1]] @ model.output_weights()[path.source]
    residual = here.activations[names[1]].clone()
    residual[-suffix:] += written
    hook = f"blocks.{layer}.attn.hook_{path.route}"
    caught = {}

    def catch(value, hook):
        caught[hook.name] = value.clone()

    def enter(value, hook):
        return residual[None]

    def replace(value, hook):
        value = value.clone()
        value[:, :, kv_head] = caught[hook.name][:, :, kv_head]
        return value

    tokens = torch.tensor([base])
    with torch.no_grad():
        model.bridge.run_with_hooks(tokens, fwd_hooks=[(names[1], enter), (hook, catch)])
        return model.bridge.run_with_hooks(tokens, fwd_hooks=[(hook, replace)])[0, -1]


@pytest.mark.parametrize("route", ["k", "v"])
@pytest.mark.parametrize("suffix", [4, 9])
def test_keys_and_values_of_a_group_reach_all_its_heads(pair, route, suffix):
    model, (base, other) = build(2), pair
    path = Path((0, 1), (2, 1), route)
    got = through(model, base, other, path, suffix)
    torch.testing.assert_close(got, by_hand(model, base, other, path, suffix), atol=1e-4, rtol=0)
    assert float((got - model.run([base])[0].logits).abs().max()) > 1e-2


def test_the_table_has_every_path_and_the_measures_of_head_patching(model, prompts, base, halves):
    paths = paths_between(model, [(0, 1), (1, 3)], [(1, 0), (2, 2), (2, 3)])
    # Heads 2-2 and 2-3 share keys and values; 1-3 has no later head but those of layer 2.
    assert len(paths) == 3 + 2 + 2 + 2 + 2
    table = path_effects(model, prompts, base, paths, halves=("verify",), n_resamples=20)
    assert len(table) == len(paths) * (len(MEASURES) + len(DIFFERENCES))
    assert set(table["measure"]) >= {"coarse_restore", "refine_boost_abs"}
    row = table[
        (table["src_layer"] == 0) & (table["dst_layer"] == 2) & (table["route"] == "v")
    ].set_index("measure")
    [index] = [i for i, p in enumerate(paths) if p == Path((0, 1), (2, 1), "v")]
    frame = pd.concat(sweep_paths(model, prompts, paths))
    frame = frame[frame["target"] == index]
    frame = frame[frame["id"].isin(halves.verify) & (frame["run"] == "clean_with_near")]
    start = base[(base["variant"] == "clean") & base["id"].isin(halves.verify)]
    expected = frame["confusion"].mean() - start["confusion"].mean()
    assert row.loc["refine_boost_abs", "effect"] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("positions", ["decision", "span"])
def test_every_run_patches_the_right_variant(model, event, positions):
    path = Path((0, 3), (2, 0), "q")
    [frame] = sweep_paths(model, [event], [path], [positions])
    suffix = 1 if positions == "decision" else event.aligned_suffix
    for row in frame.itertuples():
        base, other = (list(event.variant(name)) for name in RUNS[row.run])
        logits = through(model, base, other, path, suffix)
        expected = focus_confusion(select_options(logits, event), Roles.of(event))
        assert (row.focus, row.confusion) == pytest.approx([float(x) for x in expected], abs=1e-6)


def test_what_cannot_be_patched_is_refused(model, event):
    with pytest.raises(InputError, match="no path"):
        paths_between(model, [(1, 0)], [(1, 1), (0, 2)])
    with pytest.raises(InputError, match="layer 7"):
        paths_between(model, [(0, 0)], [(7, 1)])
    with pytest.raises(InputError, match="positions"):
        list(sweep_paths(model, [event], [Path((0, 0), (1, 0), "q")], ["everywhere"]))
    gemma = HookedModel.from_pretrained_model(
        Gemma2ForCausalLM(Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=D_HEAD))
    )
    with pytest.raises(InputError, match="normalises or scales"):
        list(sweep_paths(gemma, [event], [Path((0, 0), (1, 0), "q")]))
