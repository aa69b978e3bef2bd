"""The model that is to learn, and checks that it reads the teacher's tokens."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workbench.distill.config import CopiedLayers, DistillationConfig, LoraConfig, StudentShape
from workbench.distill.training.copied import copy_layers, read_copied
from workbench.errors import InputError, first_line
from workbench.models import loading
from workbench.models.extras import extra_package
from workbench.prompts.word_encoder import END, WordEncoder


def make_student(
    wanted: StudentShape | CopiedLayers | str,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    taught: Path | None = None,
) -> PreTrainedModel:
    """A new Llama with the teacher's vocabulary, copied layers, or a model of that vocabulary.

    In float32, with random weights drawn from torch's generator where it is new.

    Args:
        wanted: a shape, layers, or a folder or hub id.
        teacher: the loaded teacher.
        tokenizer: the teacher's.
        taught: the teacher's folder, where copied layers are read as precisely as they are stored;
            else they are as precise as the loaded teacher.

    Raises:
        InputError: a folder that cannot be read, or of another vocabulary; layers that are not
            there or cannot be copied.
    """
    if isinstance(wanted, StudentShape):
        theirs = teacher.config.get_text_config()
        special = {
            name: getattr(theirs, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
        }
        return wanted.build(theirs.vocab_size, theirs.max_position_embeddings, **special)
    if isinstance(wanted, CopiedLayers) and wanted.from_ is None:
        if taught is not None:
            return read_copied(wanted, taught)
        return copy_layers(teacher, wanted.of(teacher.config.get_text_config().num_hidden_layers))
    source = wanted.from_ if isinstance(wanted, CopiedLayers) else wanted
    assert source is not None
    folder = loading.model_folder(source)
    if isinstance(wanted, CopiedLayers):
        student = read_copied(wanted, folder)
    else:
        student = loading.read_model(folder, dtype=torch.float32)
    theirs = loading.read_tokenizer(folder)
    if tokenizer is None or theirs is None:
        sizes = [x.config.get_text_config().vocab_size for x in (teacher, student)]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"student {folder}: there are no two tokenizers to compare, and the teacher reads "
                f"{sizes[0]:,} tokens, the student {sizes[1]:,}; put the tokenizer into the folder"
            )
    check_tokenizers(tokenizer, theirs)
    return student


def with_adapter(student: PreTrainedModel, lora: LoraConfig) -> Any:
    """The student with an adapter drawn from torch's generator, which alone is trained.

    Raises:
        InputError: peft is not installed, or knows none of the student's linear layers.
    """
    peft = extra_package("peft", "a student's adapter")
    alpha: Any = lora.alpha
    how = peft.LoraConfig(
        r=lora.rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    try:
        learner: Any = peft.get_peft_model(student, how)
    except ValueError as error:
        raise InputError(f"lora: {type(student).__name__}: {first_line(error)}") from None
    # Else every checkpoint asks the hub whether the base has other embeddings.
    learner.save_pretrained = partial(learner.save_pretrained, save_embedding_layers=False)
    return learner


def check_folders(config: DistillationConfig, teacher: Path) -> None:
    """Refuse what the files of teacher and student tell without their weights.

    Raises:
        InputError: examples that are longer than what a model was made to read, says how many
            tokens that is; layers that are not there; another tokenizer than the teacher's.
    """
    wanted, folders = config.student, {"teacher": teacher}
    source = wanted.from_ if isinstance(wanted, CopiedLayers) else wanted
    if isinstance(source, str):
        folders["student"] = loading.model_folder(source)
    for side, folder in folders.items():
        read = loading.hf_config(folder).get_text_config()
        most = getattr(read, "max_position_embeddings", None)
        if most is not None and config.context - 1 > most:
            raise InputError(
                f"context {config.context:,} lets examples have {config.context - 1:,} tokens, the "
                f"{side} reads {most:,} at most; give --context {most + 1} or less"
            )
    last = list(folders.values())[-1]
    if isinstance(wanted, CopiedLayers):
        wanted.of(loading.hf_config(last).get_text_config().num_hidden_layers)
    if last is not teacher:
        check_tokenizers(loading.read_tokenizer(teacher), loading.read_tokenizer(last))


def check_vocabulary(
    teacher: PreTrainedModel, student: PreTrainedModel, tokenizer: Any = None
) -> int:
    """How many token ids both models read: logits are compared over these.

    Models of one family pad their embeddings to different sizes, so the sizes say nothing of the
    tokenizers, which `check_tokenizers` compares.

    Args:
        teacher: the frozen model.
        student: the model that is trained.
        tokenizer: of both; rows of embeddings beyond its ids belong to no token.

    Raises:
        InputError: a model without an embedding for a token of the tokenizer, added ones aside, or
            that begins or ends texts with a token that the other does not have.
    """
    configs = [x.config.get_text_config() for x in (teacher, student)]
    both = min(config.vocab_size for config in configs)
    for config, side in zip(configs, ("teacher", "student"), strict=True):
        for name in ("bos_token_id", "eos_token_id"):
            given = getattr(config, name, None)
            given = given if isinstance(given, list) else [given]
            strange = [token for token in given if token is not None and token >= both]
            if strange:
                sizes = " and ".join(f"{config.vocab_size:,}" for config in configs)
                raise InputError(
                    f"{name} {strange[0]} of the {side} is not in both vocabularies, of {sizes} "
                    "tokens; teacher and student must have the same tokenizer"
                )
    if tokenizer is None:
        return both
    ids: dict[str, int] = tokenizer.get_vocab()
    added = set(tokenizer.get_added_vocab())
    missing = sum(ids[token] >= both for token in ids.keys() - added)
    if missing:
        raise InputError(
            f"{missing:,} tokens of the tokenizer have no embedding in a model of {both:,}; "
            "teacher and student must have the same tokenizer"
        )
    return min(both, 1 + max(ids.values()))


def check_tokenizers(
    teacher: PreTrainedTokenizerBase | None, student: PreTrainedTokenizerBase | None
) -> None:
    """Refuse two tokenizers that give a text other token ids; a student without one takes any.

    Raises:
        InputError: their vocabularies differ, naming in how many entries.
    """
    if teacher is None or student is None:
        return
    theirs, ours = teacher.get_vocab(), student.get_vocab()
    different = len(theirs.items() ^ ours.items())
    if different:
        raise InputError(
            f"the tokenizers of teacher and student differ in {different} entries; both must be "
            "the same"
        )


SAMPLE = "note: cyst, left knee; E11.65\n A Type 2 diabetes\nreason:\n 1 in A B\nanswer: A"
"""Text of the kind that students are trained on, to try a tokenizer on."""


def word_encoder(tokenizer: Any, folder: Path) -> WordEncoder:
    """The encoder of a model's tokenizer: of the bundled kind, or another byte-level one.

    A text ends with the bundled model's end token, or with the tokenizer's own where it has none.
    Tokenizers that would join a mark and a line break to one token get two, which the teacher reads
    in the student's examples and its own traces alike.

    Raises:
        InputError: no fast tokenizer, none with an end token, or one that words cannot be given to
            one by one.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(f"model folder {folder} has no tokenizer of the fast kind")
    end = backend.token_to_id(END)
    end = tokenizer.eos_token_id if end is None else end
    if end is None:
        raise InputError(f"the tokenizer in {folder} names no end token, so texts would never end")
    encode = WordEncoder(backend, end)
    if backend.decode(encode(SAMPLE)) != SAMPLE:
        raise InputError(
            f"the tokenizer in {folder} does not give a text back from its words one by one; "
            "students need one that keeps spaces in words, as byte-level ones do"
        )
    return encode
