"""Runs of a few prompts, which have intervals here, so that their steps have something to do."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def few_prompts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in ("statistics", "patching.effects"):
            patch.setattr(f"workbench.analysis.{module}.MIN_PROMPTS", 5)
        yield
