import json

import pytest

from workbench.bench import steps
from workbench.prompts.prompt import PromptSet


@pytest.fixture
def short(monkeypatch, prompts):
    """Few prompts of few tokens, in place of the bundled task's."""
    monkeypatch.setattr(
        steps, "make_prompts", lambda n_prompts: PromptSet(prompts.task, prompts.events[:n_prompts])
    )


def test_scores_and_patches_are_timed(short, tmp_path):
    out = tmp_path / "steps.json"
    result = steps.bench_steps("tiny-4k", out, n_prompts=2, n_heads=2, dtype="float32")
    assert json.loads(out.read_text()) == result
    assert result["processes"] == 1 and result["heads_patched"] == 2
    assert all(result[name]["seconds"] > 0 for name in ("score", "patch"))
