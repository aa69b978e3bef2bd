import subprocess
import sys

from workbench.files import alone


def test_one_process_holds_a_lock(tmp_path):
    lock = tmp_path / "new" / ".lock"
    take = (
        "import sys; from pathlib import Path; from workbench.files import alone\n"
        "with alone(Path(sys.argv[1]), 'busy'): pass"
    )
    command = [sys.executable, "-c", take, str(lock)]
    with alone(lock, "busy"):
        there = subprocess.run(command, capture_output=True, text=True, check=False)
        assert there.returncode and "InputError: busy" in there.stderr
    assert subprocess.run(command, check=False).returncode == 0
