"""Sequences of different lengths run in batches as each would alone, or are refused."""

import pytest
import torch
from models.test_forked import build

from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.models.parity import run_plain


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2"])
def model(request) -> HookedModel:
    return HookedModel.from_pretrained_model(build(request.param, std=0.2))


@pytest.fixture(scope="module")
def sequences() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = (5, 11, 1, 8, 3)
    return [torch.randint(0, 48, (n,), generator=generator).tolist() for n in lengths]


NAMES = (
    "hook_embed",
    "blocks.0.attn.hook_z",
    "blocks.1.attn.hook_pattern",
    "blocks.1.attn.hook_attn_scores",
    "blocks.2.hook_resid_post",
    "hook_unembed",
)


def test_batched_runs_equal_single_ones(model, sequences):
    batched = model.run(sequences, NAMES, batch_size=3)
    for sequence, run in zip(sequences, batched, strict=True):
        [single] = model.run([sequence], NAMES)
        torch.testing.assert_close(run.logits, single.logits, rtol=0, atol=1e-5)
        for name in NAMES:
            if name.endswith("hook_attn_scores"):  # masked entries hold the lowest number
                continue
            torch.testing.assert_close(
                run.activations[name], single.activations[name], rtol=0, atol=1e-5
            )
        assert run.activations["blocks.1.attn.hook_attn_scores"].shape[1:] == 2 * (len(sequence),)


def test_only_named_activations_are_kept_and_no_hook_stays(model, sequences):
    [run] = model.run(sequences[:1], ["blocks.1.attn.hook_z"])
    assert set(run.activations) == {"blocks.1.attn.hook_z"}
    assert not run.logits.requires_grad
    assert not any(point.fwd_hooks for point in model.bridge.hook_dict.values())
    assert model.run(sequences[:1])[0].activations == {}


def test_unknown_hook_names_a_near_match(model):
    with pytest.raises(InputError, match=r"did you mean 'blocks\.1\.attn\.hook_z'"):
        model.run([[1, 2]], ["blocks.1.attn.hook_zz"])


def test_a_hook_that_never_fires_is_an_error():
    model = HookedModel.from_pretrained_model(build("llama", std=0.2))
    with pytest.raises(InputError, match=r"hook_hidden_states' exists but does not fire"):
        model.run([[1, 2]], ["blocks.0.attn.hook_hidden_states"])


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ([], "sequence 1 is empty"),
        ([1] * 65, "sequence 1 has 65 tokens, the model takes 64"),
        ([1, 48], r"sequence 1 has token ids 1\.\.48, the vocabulary is 0\.\.47"),
        ([-1], r"token ids -1\.\.-1"),
    ],
)
def test_bad_sequences(model, sequence, message):
    with pytest.raises(InputError, match=message):
        model.run([[1], sequence])


def test_sequences_that_depend_on_their_batch_run_alone(caplog):
    model = HookedModel.from_pretrained_model(build("llama", std=0.2))
    sequences = [[*range(1, 21)], [*range(21, 40)]]
    alone = [model.run([one])[0].logits for one in sequences]
    embedding = model.bridge.original_model.get_input_embeddings()  # as experts of limited capacity
    embedding.register_forward_hook(lambda module, args, output: output + output - output.mean(0))
    for run, logits in zip(model.run(sequences), alone, strict=True):
        torch.testing.assert_close(run.logits, logits)
    assert "does not support the run of sequences side by side" in caplog.text


def test_a_prompt_on_which_half_precision_overflows_is_refused():
    plain = build("llama", std=0.2).half()
    with torch.no_grad():
        for layer in plain.model.layers:
            layer.mlp.down_proj.weight.mul_(300)
    spared = sorted({*range(48)} - {*run_plain(plain, "tiny").tokens})
    with torch.no_grad():
        plain.model.embed_tokens.weight[spared[-1]] = 65504
    model = HookedModel.from_pretrained_model(plain)
    model.run([spared[:4]])
    with pytest.raises(InputError, match=r"sequence 1: .* logits in float16 that are no numbers"):
        model.run([spared[:4], [*spared[:4], spared[-1]]])
