from dataclasses import replace

import pytest
import torch

from workbench.errors import InputError
from workbench.models.llama import LlamaShape


def test_model_has_its_sizes_and_the_generator_decides_its_weights():
    shape = LlamaShape(n_layers=2, n_heads=4, n_kv_heads=2, d_model=32, d_mlp=48)
    torch.manual_seed(3)
    model = shape.build(20, 64, dtype=torch.bfloat16, eos_token_id=7)
    torch.manual_seed(3)
    again = shape.build(20, 64, dtype=torch.bfloat16)
    assert model.config.eos_token_id == 7 and again.config.eos_token_id is None
    assert model.lm_head.weight is model.model.embed_tokens.weight
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert one.dtype == torch.bfloat16 and torch.equal(one, two)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"n_layers": 0}, "n_layers: .* 1, got 0"), ({"n_kv_heads": 3}, "multiple of n_kv_heads 3")],
)
def test_sizes_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(LlamaShape(2, 4, 2, 32, 48), **changes)
