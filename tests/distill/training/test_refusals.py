"""What cannot be trained is refused before the first step."""

from dataclasses import replace

import pytest
from fixtures.losses import NOTHING, config_of
from transformers import Trainer

from workbench.distill.config import LossConfig
from workbench.errors import InputError


def test_what_does_not_fit_is_refused(make_trainer, make_model, headmap):
    full = config_of(chain=1.0, attention=0.5)
    with pytest.raises(InputError, match="eos_token_id 799 of the teacher is not in both"):
        make_trainer(full, make_model(vocab_size=700), make_model(eos_token_id=799))
    with pytest.raises(InputError, match="the head map is for a student"):
        make_trainer(full, make_model(n_layers=3))
    with pytest.raises(InputError, match="need a head map"):
        make_trainer(full, headmap=None)
    with pytest.raises(InputError, match="pairs matched by ablation"):
        make_trainer(config_of(circuit=1.0), circuit=())
    with pytest.raises(InputError, match=r"layers: \(0, 2\)"):
        make_trainer(replace(config_of(hidden=1.0), layers=((0, 2),)))
    only = headmap.model_copy(update={"pairs": headmap.in_pool("coarse")})
    with pytest.raises(InputError, match="no heads of the refine pool"):
        make_trainer(config_of(interaction=1.0), headmap=only)


@pytest.mark.parametrize("weight", ["interaction", "hidden"])
def test_sharded_weights_are_refused_where_they_must_be_whole(weight, make_trainer, monkeypatch):
    prepare = Trainer.create_accelerator_and_postprocess

    def sharded(self):  # as `accelerate launch` has it: the arguments know nothing of it
        prepare(self)
        self.is_fsdp_enabled = True

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", sharded)
    with pytest.raises(InputError, match="need whole weights outside of the forward"):
        make_trainer(config_of(chain=1.0, **{weight: 1.0}))
    assert make_trainer(config_of(chain=1.0, attention=1.0, update=1.0)).is_sharded


def test_bad_weights_are_refused():
    with pytest.raises(InputError, match=r"logit: input should be .* equal to 0, got -1"):
        LossConfig(logit=-1.0)
    with pytest.raises(InputError, match="all loss weights are 0"):
        LossConfig(**NOTHING)
