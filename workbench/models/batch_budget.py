"""How many rows go into one forward: as many as fit, found by trying."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from workbench.errors import InputError

logger = logging.getLogger(__name__)

Row = TypeVar("Row")

START_TOKENS = {"cpu": 1024}
"""Tokens of a first pack by kind of device: on a CPU, more overflow its caches."""

START_TOKENS_ELSEWHERE = 16384
"""On an accelerator, more tokens keep it no busier."""


class PackBudget:
    """Tokens that one forward may hold; halved whenever the device runs out of memory.

    What was found holds for the rest of the session. The finder of accelerate
    (`find_executable_batch_size`) starts over after running out; a sweep keeps what it has, so only
    its test for "out of memory" and its cache clearing are used.
    """

    def __init__(self, device: torch.device) -> None:
        self.tokens = START_TOKENS.get(device.type, START_TOKENS_ELSEWHERE)
        self._said = False

    def run(
        self, rows: Sequence[Row], tokens_per_row: int, forward: Callable[[Sequence[Row]], None]
    ) -> None:
        """Call `forward` on consecutive packs of rows, at least one row each.

        Raises:
            InputError: not even one row fits into memory.
        """
        done = 0
        while done < len(rows):
            pack = rows[done : done + max(1, self.tokens // max(1, tokens_per_row))]
            try:
                forward(pack)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                reason = str(error)
            else:
                done += len(pack)
                continue
            # Outside the handler, since the exception's traceback holds the tensors that filled it.
            self._halve(pack, tokens_per_row, reason)

    def _halve(self, pack: Sequence[Row], tokens_per_row: int, reason: str) -> None:
        clear_device_cache(garbage_collection=True)
        if len(pack) == 1:
            raise InputError(
                f"out of memory with one row of {tokens_per_row} tokens: use shorter prompts, "
                f"another dtype or a larger device ({reason.splitlines()[0]})"
            )
        self.tokens = max(1, len(pack) * tokens_per_row // 2)
        log = logger.debug if self._said else logger.warning
        log("out of memory: going on with at most %d tokens a forward", self.tokens)
        self._said = True
