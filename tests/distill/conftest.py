import pytest
from transformers import TrainingArguments

from workbench.distill.examples.stream import Collator
from workbench.distill.training.trainer import MechanisticDistillationTrainer

PAIRS = (((0, 1), (0, 2)), ((1, 2), (1, 0)))


@pytest.fixture
def make_trainer(make_model, make_stream, headmap, tmp_path):
    def make(
        config,
        student=None,
        teacher=None,
        circuit=PAIRS,
        headmap=headmap,
        n_tokens=None,
        targets=None,
        examples=None,
        **arguments,
    ):
        given = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_steps": 2,
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            "seed": 0,
        }
        return MechanisticDistillationTrainer(
            student or make_model(seed=1),
            teacher or make_model(seed=0),
            config,
            headmap=headmap,
            circuit=circuit,
            n_tokens=n_tokens,
            targets=targets,
            args=TrainingArguments(**{**given, **arguments}),
            train_dataset=examples or make_stream(),
            data_collator=Collator(8),
        )

    return make
