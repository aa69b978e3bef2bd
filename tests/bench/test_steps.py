import json
import threading

import pytest
from rich.console import Console

from workbench.bench import steps
from workbench.processes import Processes
from workbench.progress import Reporter
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


@pytest.mark.parametrize("fails", [False, True])
def test_processes_leave_nothing_beside_the_results(fails, tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.presence.BEAT", 0.05)
    out, seen = tmp_path / "steps.json", []

    def one(rank):
        here = Processes(rank, 2, rank, 2)
        try:
            with steps.met(out, here, Reporter(Console(quiet=True))) as together:
                together.told(lambda: None)
                seen.append([path.name for path in tmp_path.iterdir()])
                if fails and not rank:
                    raise MemoryError
        except Exception as error:
            seen.append(error)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [".steps.json"] in seen, "where they met"
    assert fails == any(isinstance(one, MemoryError) for one in seen)
    assert not [*tmp_path.iterdir()]
