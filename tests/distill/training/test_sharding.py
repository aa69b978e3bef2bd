import pytest

from workbench.distill.training import sharding
from workbench.distill.training.sharding import fuse_attention


@pytest.mark.parametrize(("small", "found"), [(10, "sdpa"), (10**9, "eager")])
def test_large_models_keep_no_attention_maps(small, found, make_model, monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", small)
    model = make_model()
    model.set_attn_implementation("eager")
    fuse_attention(model)
    assert model.config._attn_implementation == found


def test_capped_attention_stays_as_it_is(make_model, monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 10)
    model = make_model()
    model.set_attn_implementation("eager")
    model.config.attn_logit_softcapping = 50.0
    fuse_attention(model)
    assert model.config._attn_implementation == "eager"
