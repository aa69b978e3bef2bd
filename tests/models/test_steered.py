import pytest
import torch
from models.test_forked import build

from workbench.models.attention import NAME
from workbench.models.hooked import HookedModel
from workbench.models.steered import Call, Job, share_weights


def storages(module) -> set[int]:
    tensors = [*module.parameters(), *module.buffers()]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_a_view_holds_no_weight_of_its_own(name):
    original = build(name)
    before = storages(original)
    copy = share_weights(original)
    assert storages(copy) == before
    assert copy.config is not original.config
    assert {id(p) for p in copy.parameters()} == {id(p) for p in original.parameters()}


def test_the_bridge_keeps_its_step_by_step_attention():
    model = HookedModel.from_pretrained_model(build("llama"))
    assert model.info.attention_implementation == "eager"
    assert model.view.model.config._attn_implementation == NAME
    [run] = model.run([[1, 2, 3]], ["blocks.0.attn.hook_pattern"])
    pattern = run.activations["blocks.0.attn.hook_pattern"]
    torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern.sum(-1)))


def test_a_view_needs_a_job_that_knows_attention():
    model = HookedModel.from_pretrained_model(build("llama"))
    tokens = torch.tensor([[1, 2]])
    with pytest.raises(RuntimeError, match="runs only with a job"):
        model.view.model(input_ids=tokens)
    with pytest.raises(TypeError, match="says nothing about attention"):
        model.view.run(Job(), tokens, torch.arange(2)[None], [1])
    with pytest.raises(RuntimeError, match="runs only with a job"):  # the failed one is gone
        model.view.model(input_ids=tokens)


def test_a_call_is_cut_along_its_positions_only():
    table, ids, other = torch.rand(1, 5, 8), torch.arange(5), torch.rand(1, 3, 5)
    rule = max
    call = Call(((table, table),), {"ids": ids[None], "flat": ids, "other": other, "mask": rule})
    last = call.at(slice(-1, None), 5)
    assert torch.equal(last.args[0][1], table[:, -1:])
    assert last.kwargs["ids"].tolist() == [[4]] and last.kwargs["flat"].tolist() == [4]
    assert torch.equal(last.kwargs["other"], other) and last.kwargs["mask"] is rule


def test_no_kernel_is_compiled_for_every_shape():
    class Look(Job):
        columns = None
        seen = True

        def block(self, layer, run, hidden, call):
            self.seen = torch.backends.cuda.cudnn_sdp_enabled()
            return hidden

    model = HookedModel.from_pretrained_model(build("llama"))
    before, job = torch.backends.cuda.cudnn_sdp_enabled(), Look()
    model.view.run(job, torch.tensor([[1, 2]]), torch.arange(2)[None], [1])
    assert job.seen is False
    assert torch.backends.cuda.cudnn_sdp_enabled() is before
