"""Labels, tasks and tokenizers that are slow to make, shared by the whole run."""

import gc
from typing import Any

import pytest
import torch
import typechecks  # noqa: F401 (before anything of the package)
from fixtures.small_icd10cm import small_icd10cm
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from workbench.labels import LabelSpace
from workbench.organism.examples import train_tokenizer
from workbench.prompts.coding import CodingTask, split_categories
from workbench.prompts.word_encoder import END

pytest_plugins = [
    "fixtures.tiny_model",
    "fixtures.distillation",
    "fixtures.chats",
    "fixtures.mimic4",
]

# Tensors this small run faster on one thread, far faster when the cores are busy.
torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile` all notebooks are one worker's, as the tests of a file are.

    Of two notebooks that started together, one failed.
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "notebooks" if file.endswith(".ipynb") else file

    return ByFile(config, log)


def pytest_collection_finish() -> None:
    """No collection goes through all that was imported again: training calls several."""
    gc.freeze()


@pytest.fixture(scope="session")
def space() -> LabelSpace:
    """A sixtieth of ICD-10-CM."""
    return small_icd10cm()


@pytest.fixture
def few_labels(space: LabelSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of a model folder are drawn from these labels."""
    monkeypatch.setattr("workbench.prompts.trained.load_icd10cm", lambda: space)


@pytest.fixture(scope="session")
def categories(space: LabelSpace) -> tuple[list[str], list[str]]:
    """Seen and unseen three-character categories."""
    return split_categories(space)


@pytest.fixture(scope="session")
def seen_task(space: LabelSpace, categories: tuple[list[str], list[str]]) -> CodingTask:
    return CodingTask(space, categories[0])


@pytest.fixture(scope="session")
def raw_tokenizer(seen_task: CodingTask) -> Tokenizer:
    """The kind of tokenizer that the bundled model has, smaller."""
    return train_tokenizer(seen_task, vocab_size=800, seed=0, n_prompts=60)


@pytest.fixture(scope="session")
def tokenizer(raw_tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=raw_tokenizer, eos_token=END, pad_token=END, padding_side="left"
    )


@pytest.fixture(scope="session")
def chat_tokenizer(raw_tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """As instruction models have it: adds <s>, offsets without spaces, and a chat template."""
    other = Tokenizer.from_str(raw_tokenizer.to_str())
    other.add_special_tokens(["<s>", "</s>", "<user>", "<reply>"])
    other.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single="<s> $A </s>",
                special_tokens=[(name, other.token_to_id(name)) for name in ("<s>", "</s>")],
            ),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=other,
        bos_token="<s>",
        eos_token="</s>",
        chat_template="<s>{% for m in messages %}<user>{{ m.content }}{% endfor %}<reply>",
    )
