import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoTokenizer, LlamaForCausalLM, TrainingArguments

from workbench.errors import InputError
from workbench.organism import train as organism
from workbench.organism.examples import IGNORED
from workbench.organism.mix import ExampleMix
from workbench.organism.train import OrganismConfig, train_organism, weighted_cross_entropy
from workbench.progress import Reporter
from workbench.prompts.coding import TaskConfig
from workbench.prompts.word_encoder import END

CONFIG = OrganismConfig(
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    d_model=32,
    d_mlp=48,
    vocab_size=800,
    context=256,
    steps=4,
    batch_size=2,
    warmup_steps=1,
    task=TaskConfig(n_mentions=(1, 2), n_families=(2, 2), family_size=(2, 2)),
    mix=ExampleMix(direct=0.5),
)


@pytest.fixture
def train(space, raw_tokenizer, monkeypatch):
    """`train_organism` with the session's labels and tokenizer, and the loss of every step."""
    monkeypatch.setattr(organism, "load_icd10cm", lambda: space)
    monkeypatch.setattr(organism, "train_tokenizer", lambda *_, **__: raw_tokenizer)
    monkeypatch.setattr(
        organism,
        "TrainingArguments",
        lambda **given: TrainingArguments(**{**given, "logging_steps": 1, "disable_tqdm": True}),
    )

    def run(out: Path, config: OrganismConfig = CONFIG, **options):
        settings = {"n_eval": 2, "workers": 0, "checkpoint_every": 2, "compile_model": False}
        return train_organism(
            out, config, reporter=Reporter(Console(quiet=True)), **{**settings, **options}
        )

    return run


@pytest.fixture
def no_evaluation(monkeypatch):
    monkeypatch.setattr(organism, "evaluate_organism", lambda *_, **__: {})


def record_of(folder: Path) -> dict:
    return json.loads((folder / "training.json").read_text())


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return LlamaForCausalLM.from_pretrained(folder).state_dict()


def test_loss_is_the_mean_by_weight_over_predicted_tokens():
    probabilities = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]])
    labels, weights = torch.tensor([[2, 0, 1]]), torch.tensor([[99.0, 0.25, 1.0]])
    loss = weighted_cross_entropy(probabilities.log(), labels, weights)
    # Position 0 predicts label 0 and position 1 label 1; the first token's weight is never used.
    assert loss.item() == pytest.approx(-(0.25 * math.log(0.5) + math.log(0.8)) / 1.25)


def test_padding_does_not_change_the_loss():
    logits, labels, weights = torch.randn(1, 6, 7), torch.arange(6)[None], torch.rand(1, 6)
    short = weighted_cross_entropy(logits[:, :4], labels[:, :4], weights[:, :4])
    labels[:, 4:], weights[:, 4:] = IGNORED, 0
    assert weighted_cross_entropy(logits, labels, weights).item() == pytest.approx(short.item())


def test_folder_has_model_tokenizer_and_record(train, tmp_path, raw_tokenizer):
    accuracy = train(tmp_path)
    model = LlamaForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    assert (model.config.num_hidden_layers, model.config.num_key_value_heads) == (2, 2)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "note: 1 . left fx ;\noptions:"
    assert tokenizer(text)["input_ids"] == raw_tokenizer.encode(text).ids
    assert tokenizer.eos_token == tokenizer.pad_token == END
    assert model.config.eos_token_id == tokenizer.eos_token_id
    record = record_of(tmp_path)
    names = ["seen direct", "seen chain", "unseen direct", "unseen chain"]
    assert list(record["accuracy"]) == list(accuracy) == names
    assert {result["n"] for result in record["accuracy"].values()} == {2}
    assert [row["step"] for row in record["loss"]] == [1, 2, 3, 4]
    assert record["config"]["task"]["n_mentions"] == [1, 2]
    assert record["n_parameters"] == model.num_parameters()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.usefixtures("no_evaluation")
def test_interrupted_training_ends_as_uninterrupted_training_does(train, tmp_path, monkeypatch):
    train(tmp_path / "whole")

    compute_loss, steps = organism.WeightedTrainer.compute_loss, []

    def interrupted(self, *args, **kwargs):
        steps.append(self.state.global_step)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return compute_loss(self, *args, **kwargs)

    monkeypatch.setattr(organism.WeightedTrainer, "compute_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts")
    train(tmp_path / "parts")
    assert steps == [0, 1, 2, 3, 2, 3]  # the checkpoint of step 2 is where it went on

    whole, parts = (record_of(tmp_path / name)["loss"] for name in ("whole", "parts"))
    assert whole == parts
    first, second = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("no_evaluation")
def test_batches_keep_the_order_of_the_samples(train, tmp_path, monkeypatch):
    seen = []

    class Stream(organism.TrainingStream):
        def __getitem__(self, index):
            seen.append(index)
            return super().__getitem__(index)

    monkeypatch.setattr(organism, "TrainingStream", Stream)
    train(tmp_path)
    assert seen[:8] == list(range(8))


def test_other_settings_do_not_go_on_from_a_checkpoint(train, tmp_path, no_evaluation, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(organism, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    with pytest.raises(InputError, match="other settings"):
        train(tmp_path, replace(CONFIG, batch_size=3))


def test_a_finished_model_is_not_replaced(train, tmp_path, no_evaluation, monkeypatch):
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(InputError, match="holds a trained model"):
        train(tmp_path)
    assert (tmp_path / "training.json").read_text() == "{}"


def test_impossible_settings_are_refused():
    with pytest.raises(InputError, match="steps: input should be greater"):
        replace(CONFIG, steps=0)
    with pytest.raises(InputError, match="ramp: input should be less than or equal to 1"):
        ExampleMix(ramp=2.0)
    with pytest.raises(InputError, match="exceed 1"):
        ExampleMix(direct=0.7, partial=0.4)
