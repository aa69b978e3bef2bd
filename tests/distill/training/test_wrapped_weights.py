"""Adapters and quantised weights teach and learn as the plain weights that they stand for."""

import peft
import pytest
import torch
from fixtures.losses import config_of, everything, losses_and_gradients
from fixtures.quantised import Int4, Int8, quantise, unpack


@pytest.mark.parametrize("kind", [Int4, Int8])
@pytest.mark.parametrize("over", ["residual", "options"])
def test_a_quantised_teacher_teaches_what_its_weights_say(
    kind, over, make_trainer, make_model, batch
):
    found = []
    for plain in (False, True):
        torch.manual_seed(0)
        teacher = quantise(make_model(0), kind)
        teacher = unpack(teacher) if plain else teacher
        trainer = make_trainer(everything(update_space=over), teacher=teacher)
        found.append(losses_and_gradients(trainer, batch))
    within = 1e-5 if kind is Int4 else 0.1  # it rounds what it reads, too
    assert found[0][0] == pytest.approx(found[1][0], rel=within, abs=1e-6)
    one, two = (torch.cat([x.flatten() for x in gradients.values()]) for _, gradients in found)
    assert (one - two).norm() < within * two.norm()


@pytest.mark.parametrize("wrapped", ["teacher", "student"])
def test_adapters_teach_and_learn_as_if_they_were_merged(wrapped, make_trainer, make_model, batch):
    names = ["q_proj", "o_proj", "down_proj", "lm_head"]
    found = {}
    for merged in (True, False):
        models = {"teacher": make_model(0), "student": make_model(1)}
        for model in models.values():
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
            model.config.tie_word_embeddings = False
        torch.manual_seed(0)
        lora = peft.get_peft_model(models[wrapped], peft.LoraConfig(r=2, target_modules=names))
        for name, weight in lora.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=0.1)
        models[wrapped] = lora.merge_and_unload().requires_grad_() if merged else lora
        torch.manual_seed(0)
        trainer = make_trainer(everything(update_space="options"), **models)
        found[merged] = losses_and_gradients(trainer, batch)
    assert found[False][0] == pytest.approx(found[True][0], rel=1e-4, abs=1e-6)
    if wrapped == "student":
        inner, whole = lora.get_base_model(), found[True][1]
        ups = {name: x for name, x in found[False][1].items() if "lora_B" in name}
        assert len(ups) == 2 * 3 + 1
        for name, gradient in ups.items():  # of B in W + scale B A
            module, _ = name.split(".lora_B")
            down = inner.get_parameter(name.replace("lora_B", "lora_A"))
            expected = inner.get_submodule(module).scaling["default"] * whole[f"{module}.weight"]
            assert gradient.abs().max() > 0
            torch.testing.assert_close(gradient, expected @ down.T, rtol=1e-3, atol=1e-5)


def test_an_adapter_is_trained_and_saved_as_one(make_trainer, make_model, tmp_path):
    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "o_proj"])
    student = peft.get_peft_model(make_model(1), lora)
    before = {name: x.clone() for name, x in student.named_parameters()}
    trainer = make_trainer(config_of(chain=1.0, attention=0.5, update=0.1), student)
    trainer.train()
    moved = {name for name, x in student.named_parameters() if not torch.equal(x, before[name])}
    assert moved == {name for name in before if "lora_" in name}
    trainer.save_model(str(tmp_path / "end"))
    assert {file.name for file in (tmp_path / "end").glob("*.safetensors")} == {
        "adapter_model.safetensors"
    }
