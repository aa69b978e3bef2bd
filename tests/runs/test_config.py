from typing import Any

import pytest

from workbench.errors import InputError
from workbench.runs.config import RunConfig


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("n_prompts", 1, "n_prompts: input should be greater than or equal to 2, got 1"),
        ("positions", ("end",), r"positions\[0\]: input should be 'decision' or 'span'"),
        ("positions", (), "positions: too few: needs at least 1, got 0"),
        ("positions", ("span", "span"), "positions are span, span: name each once"),
        ("false_discovery_rate", 0.0, "false_discovery_rate: input should be greater than 0"),
        ("min_restore_low", float("nan"), "min_restore_low: input should be a finite number"),
        ("template", "fancy", "'fancy' is not one of auto, plain, .*; forms are of documents"),
    ],
)
def test_settings_out_of_range(name: str, value: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        RunConfig(**{name: value})
