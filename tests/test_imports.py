"""What users import loads nothing of the maintainers' rooms."""

import subprocess
import sys

MAINTAINERS = ("bench", "studies", "organism.train", "organism.examples", "organism.scramble")


def test_no_tool_for_maintainers_is_loaded():
    # One process for all: it loads what any of them loads alone.
    code = "import sys, workbench, workbench.runs.pipeline, workbench.cli"
    code += "; print(*(m for m in sys.modules if m.startswith('workbench.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = [name.removeprefix("workbench.") for name in done.stdout.split()]
    assert "runs.pipeline" in loaded and "cli" in loaded
    assert not [name for name in loaded if name.startswith(MAINTAINERS)]
