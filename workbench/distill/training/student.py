"""The model that is to learn, and checks that it reads the teacher's tokens."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workbench.distill.config import StudentShape
from workbench.errors import InputError
from workbench.models import loading
from workbench.prompts.word_encoder import END, WordEncoder


def make_student(
    wanted: StudentShape | str, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None
) -> PreTrainedModel:
    """A new Llama with the teacher's vocabulary, or the model of a folder that has it too.

    In float32, with random weights drawn from torch's generator where it is new.

    Raises:
        InputError: a folder that cannot be read, or of another vocabulary.
    """
    if isinstance(wanted, StudentShape):
        theirs = teacher.config.get_text_config()
        special = {
            name: getattr(theirs, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
        }
        return wanted.build(theirs.vocab_size, theirs.max_position_embeddings, **special)
    folder = loading.model_folder(wanted)
    loading.read_config(folder)
    loading.weight_files(folder)
    student = loading.read_model(folder, dtype=torch.float32)
    check_vocabulary(teacher, student)
    check_tokenizers(tokenizer, loading.read_tokenizer(folder))
    return student


def check_vocabulary(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Refuse two models that do not read the same token ids.

    Raises:
        InputError: embeddings of different sizes.
    """
    theirs, ours = (x.config.get_text_config().vocab_size for x in (teacher, student))
    if theirs != ours:
        raise InputError(
            f"the teacher's vocabulary has {theirs} tokens, the student's {ours}; both must have "
            "the same tokenizer"
        )


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
