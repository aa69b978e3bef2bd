"""What writes chains: transformers, or vLLM where it is installed, behind one small interface."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from workbench.errors import InputError
from workbench.models.batch_budget import PackBudget
from workbench.models.greedy import end_tokens, greedy_tokens
from workbench.models.sources import is_adapter
from workbench.predicting.model import PlainModel
from workbench.progress import beating

GeneratorName = Literal["transformers", "vllm"]
GENERATORS = get_args(GeneratorName)
ROOM_IN_A_BATCH = 8
"""A step of writing is one token a row: rows of so many times a forward's tokens go together."""
VLLM_MEMORY = 0.5
"""Part of the accelerator's memory for vLLM; the model that scores lies beside it."""


@runtime_checkable
class Generator(Protocol):
    """Continues prompts."""

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        advance: Callable[[int], None] | None = None,
    ) -> list[list[int]]:
        """The most likely tokens after each prompt, up to and without one that ends the text.

        `advance` is called with how many prompts more are done.

        Raises:
            InputError: an empty prompt, or what the generator refuses.
        """
        ...


class TransformersGenerator:
    """The model that scores writes, too; prompts of like length go together."""

    def __init__(self, model: PlainModel, batch_tokens: int | None = None) -> None:
        self._model = model
        self._ends = end_tokens(model.hf, model.tokenizer)
        self._budget = PackBudget(model.device)
        self._budget.tokens = ROOM_IN_A_BATCH * (batch_tokens or self._budget.tokens)

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        advance: Callable[[int], None] | None = None,
    ) -> list[list[int]]:
        """See `Generator.write`."""
        written: dict[int, list[int]] = {}

        def run(pack: Sequence[int]) -> None:
            found = greedy_tokens(
                self._model.hf,
                [prompts[number] for number in pack],
                max_new_tokens=max_new_tokens,
                end=self._ends,
                batch_size=len(pack),
            )
            written.update(zip(pack, found, strict=True))
            if advance:
                advance(len(pack))

        rest = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
        while rest:
            size = len(prompts[rest[0]]) + max_new_tokens
            most = max(1, self._budget.tokens // size)
            some, rest = rest[:most], rest[most:]
            self._budget.run(some, size, run)
        return [written[number] for number in range(len(prompts))]


class VllmGenerator:
    """vLLM, which must be installed, reads the model's folder itself.

    Raises:
        InputError: it is not installed or cannot start, a model that is no folder, or several
            processes of a launcher.
    """

    def __init__(self, model: PlainModel, longest: int, *, launched: bool = False) -> None:
        if launched:
            raise InputError(
                "--generator vllm starts processes of its own, and not under a launcher: start one "
                "command an accelerator, with CUDA_VISIBLE_DEVICES and --part 0/2, 1/2 and so on"
            )
        if not model.folder.is_dir() or is_adapter(model.folder):
            raise InputError(
                f"--generator vllm reads whole models in Hugging Face form, and {model.name} is an "
                "adapter or a GGUF file; leave --generator out"
            )
        try:
            vllm: Any = import_module("vllm")
        except ImportError:
            raise InputError(
                "--generator vllm needs the package vllm, which is not installed; install it, or "
                "leave --generator out"
            ) from None
        self._sampling = vllm.SamplingParams
        self._ends = end_tokens(model.hf, model.tokenizer)
        try:
            self._engine = vllm.LLM(
                model=str(model.folder),
                dtype=str(model.dtype).removeprefix("torch."),
                max_model_len=longest,
                gpu_memory_utilization=VLLM_MEMORY,
                trust_remote_code=False,
                generation_config="vllm",  # not the settings that lie in the folder
            )
        except Exception as error:  # of its own kinds
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"vLLM cannot run {model.name}: {why}") from error

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        advance: Callable[[int], None] | None = None,
    ) -> list[list[int]]:
        """See `Generator.write`."""
        if not all(prompts):
            raise InputError("a prompt to continue has no tokens")
        sampling = self._sampling(
            temperature=0.0, max_tokens=max_new_tokens, stop_token_ids=self._ends, detokenize=False
        )
        given = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        with beating():
            found = self._engine.generate(given, sampling, use_tqdm=False)
        written = [list(one.outputs[0].token_ids) for one in found]
        if advance:
            advance(len(prompts))
        return [_until(row, self._ends) for row in written]


def open_generator(
    name: GeneratorName,
    model: PlainModel,
    longest: int,
    *,
    batch_tokens: int | None = None,
    launched: bool = False,
) -> Generator:
    """The generator of a name.

    Args:
        name: of the generator.
        model: writes.
        longest: tokens of a prompt and its continuation.
        batch_tokens: of a forward; found by trying where not given.
        launched: whether a launcher started several processes.

    Raises:
        InputError: as `VllmGenerator`, or the tokenizer names no end token.
    """
    if name == "vllm":
        return VllmGenerator(model, longest, launched=launched)
    return TransformersGenerator(model, batch_tokens)


def _until(row: list[int], ends: Sequence[int]) -> list[int]:
    return row[: next((at for at, token in enumerate(row) if token in ends), len(row))]
