"""Students that begin as other models, and what their folders hold."""

import json
from dataclasses import replace

import peft
import pytest
import torch
from fixtures.distillation import POOLS, QUIET, SMALL
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.distill.config import CopiedLayers, DistillationConfig, LoraConfig, LossConfig
from workbench.distill.evaluation.students import Student
from workbench.distill.training import folder as folders
from workbench.distill.training import run
from workbench.distill.training.run import distill
from workbench.errors import InputError
from workbench.models import loading
from workbench.models.hooked import HookedModel
from workbench.prompts.make import trained_here
from workbench.prompts.trained import training_of

LOSS = LossConfig(attention=0.5, update=0.1, interaction=0.1, logit=0.1)
CONFIG = replace(SMALL, loss=LOSS, steps=2, learning_rate=5e-2)
CHAINS = LossConfig(attention=0.0)
LORA = LoraConfig(rank=2)


@pytest.fixture
def sister(make_model, tokenizer, tmp_path):
    path = tmp_path / "sister"
    make_model(seed=3).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def distilled(teacher, small_task, trace_file, monkeypatch):
    """`distill` on traces; also the logits of the model that was trained, before it is written."""

    def call(out, config=CONFIG, pools=POOLS):
        seen, write = [], folders.write_student

        def watched(out, trainer, *args, **kwargs):
            seen.append(logits(trainer.model))
            write(out, trainer, *args, **kwargs)

        monkeypatch.setattr(run, "write_student", watched)
        settings = {"task": small_task, "traces": trace_file, "workers": 0, "reporter": QUIET}
        record = distill(out, teacher, pools, config, checkpoint_every=2, **settings)
        return record, seen[0]

    return call


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(input_ids=torch.arange(1, 40)[None], use_cache=False).logits


def test_copied_layers_are_read_back_by_all(distilled, teacher, tmp_path, tokenizer):
    (teacher / "README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\n# Teacher\n")
    out = tmp_path / "student"
    record, trained = distilled(out, replace(CONFIG, student=CopiedLayers((1,))), POOLS)
    for model in (
        loading.read_model(loading.model_folder(out), dtype=torch.float32),
        AutoModelForCausalLM.from_pretrained(out, attn_implementation="eager"),
    ):
        assert torch.equal(logits(model), trained) and model.config.use_cache
    [hooked] = HookedModel.load(out, device="cpu").run([list(range(1, 40))])
    torch.testing.assert_close(hooked.logits, trained[0, -1])
    assert AutoTokenizer.from_pretrained(out).get_vocab() == tokenizer.get_vocab()
    assert record["layers"] == [1] and record["n_trained"] == record["n_parameters"]
    assert str(tmp_path) not in (out / "config.json").read_text()
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: transformers\n---\n")
    digest = loading.weights_sha256(teacher)
    for said in (
        "# A student of teacher\n",
        "Layers 1 of `teacher`",
        f"| teacher | teacher | apache-2.0 | `{digest}` |",
        "| refine | 1-2 | 0-2 | 0.500 |",
        "| interaction | 0.1 |",
        f"24 examples, of 24; SHA-256 `{record['traces']['sha256']}`",
    ):
        assert said in card, card
    assert str(tmp_path) not in card and "Answer" not in card
    assert Student.read("one", out).headmap is not None


@pytest.mark.parametrize("saved", ["merged", "adapter"])
def test_an_adapter_is_saved_as_asked_and_read_back(saved, distilled, sister, teacher, tmp_path):
    out = tmp_path / "student"
    lora = replace(LORA, saved=saved)
    loss = LOSS if saved == "merged" else CHAINS
    config = replace(CONFIG, student=str(sister), lora=lora, loss=loss)
    record, trained = distilled(out, config)
    names = {path.name for path in out.glob("*.safetensors")}
    assert names == {"model.safetensors" if saved == "merged" else "adapter_model.safetensors"}
    ours = loading.read_model(loading.model_folder(out), dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(out, attn_implementation="eager")
    for model in (ours, plain):
        torch.testing.assert_close(logits(model), trained, rtol=1e-4, atol=1e-5)
    before = loading.read_model(sister, dtype=torch.float32)
    assert (logits(ours) - logits(before)).abs().max() > 1e-2, "it learned something"
    assert 0 < record["n_trained"] < record["n_parameters"]
    digest = loading.weights_sha256(sister)
    assert record["student"] == digest and record["sources"]["student"]["name"] == "sister"
    card = (out / "README.md").read_text()
    assert ("is merged into these weights" in card) == (saved == "merged")
    assert ("holds a LoRA adapter (rank 2" in card) == (saved == "adapter")
    assert (
        "license: other" in card and f"| student | sister | not known here | `{digest}` |" in card
    )
    one = Student.read("one", out)
    assert one.weights_sha256 == loading.weights_sha256(out)
    if saved == "adapter":
        assert loading.provenance(out).adapter.trained_on == digest


def test_an_adapter_of_mixed_precision_is_merged(distilled, sister, tmp_path):
    config = replace(CONFIG, student=str(sister), lora=LORA, loss=CHAINS, bf16=True)
    _, trained = distilled(tmp_path / "student", config)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert (logits(merged) - trained).abs().mean() < 0.03 * trained.std()  # bfloat16's rounding


def test_a_stopped_adapter_ends_as_if_it_had_not_been(distilled, sister, tmp_path, monkeypatch):
    student = CopiedLayers(2, from_=str(sister))
    config = replace(CONFIG, student=student, lora=LORA, steps=3, loss=CHAINS)
    whole, expected = distilled(tmp_path / "whole", config)
    compute, steps = run.MechanisticDistillationTrainer.compute_loss, []

    def stopping(self, *args, **kwargs):
        steps.append(self.state.global_step)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return compute(self, *args, **kwargs)

    monkeypatch.setattr(run.MechanisticDistillationTrainer, "compute_loss", stopping)
    with pytest.raises(KeyboardInterrupt):
        distilled(tmp_path / "parts", config)
    parts, found = distilled(tmp_path / "parts", config)
    assert steps == [0, 1, 2, 2]
    assert parts["loss"] == whole["loss"] and torch.equal(found, expected)


def test_a_base_that_changed_is_refused(distilled, sister, make_model, tmp_path, monkeypatch):
    config = replace(CONFIG, student=str(sister), lora=LORA, loss=CHAINS)

    def failing(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(folders, "write_student", failing)
        with pytest.raises(KeyboardInterrupt):
            distilled(tmp_path / "student", config, None)
    make_model(seed=4).save_pretrained(sister)
    with pytest.raises(InputError, match=r"other settings \(student\)"):
        distilled(tmp_path / "student", config, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": LORA}, "those of a new student are random"),
        (
            {"lora": LoraConfig(saved="adapter"), "student": CopiedLayers(2)},
            "copied layers are in no folder",
        ),
        (
            {"lora": LORA, "student": "a", "loss": LossConfig(attention=0.0, hidden=0.1)},
            "projections, which an adapter's checkpoints do not hold",
        ),
    ],
)
def test_adapters_that_would_train_wrong_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        DistillationConfig(**changes)


def test_what_a_student_cannot_begin_with_is_refused(distilled, teacher, make_model, tmp_path):
    adapter = tmp_path / "adapter"
    lora = peft.get_peft_model(make_model(), peft.LoraConfig(r=2, task_type="CAUSAL_LM"))
    lora.peft_config["default"].base_model_name_or_path = str(teacher)
    lora.save_pretrained(adapter)
    of_adapter = replace(CONFIG, student=str(adapter), lora=LoraConfig(saved="adapter"))
    with pytest.raises(InputError, match="is an adapter itself, which another one cannot have"):
        distilled(tmp_path / "student", of_adapter)
    with pytest.raises(InputError, match="3 cannot be copied from a model of 2 layers"):
        distilled(tmp_path / "student", replace(CONFIG, student=CopiedLayers(3)))
    short = tmp_path / "short"
    make_model(context=100).save_pretrained(short)
    AutoTokenizer.from_pretrained(teacher).save_pretrained(short)
    message = "lets examples have 511 tokens, the student reads 100 at most; give --context 101"
    with pytest.raises(InputError, match=message):
        distilled(tmp_path / "student", replace(CONFIG, student=str(short)))
    assert not (tmp_path / "student").exists()


def test_a_student_knows_its_teachers_task(distilled, teacher, tmp_path):
    config = replace(CONFIG, loss=CHAINS, steps=1)
    record, _ = distilled(tmp_path / "one", config, None)
    assert record["trained_as"] is None and training_of(tmp_path / "one") is None
    assert not trained_here(tmp_path / "one")
    trained = json.loads((loading.bundled_model_path() / "training.json").read_text())
    (teacher / "training.json").write_text(json.dumps(trained))
    distilled(tmp_path / "two", config, None)
    found = training_of(tmp_path / "two")
    assert found == training_of(teacher) == training_of(loading.bundled_model_path())
    assert found["task"] and trained_here(tmp_path / "two")
