"""What users import loads nothing of the maintainers' rooms."""

import subprocess
import sys

import pytest

MAINTAINERS = ("bench", "studies", "organism.train", "organism.examples", "organism.scramble")


@pytest.mark.parametrize("module", ["workbench", "workbench.runs.pipeline", "workbench.cli"])
def test_no_tool_for_maintainers_is_loaded(module):
    code = f"import sys, {module}; print(*(m for m in sys.modules if m.startswith('workbench.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = [name.removeprefix("workbench.") for name in done.stdout.split()]
    assert not [name for name in loaded if name.startswith(MAINTAINERS)]
