"""What a command does in each of several processes that a launcher started."""

import pytest
from typer.testing import CliRunner

import workbench as wb
from workbench.cli import app
from workbench.errors import InputError
from workbench.processes import SaidElsewhere


@pytest.fixture
def launched(monkeypatch):
    """Runs a command as one process of two, in which `wb.report` raises an error."""
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)

    def run(rank, *command, error=None):
        def report(*given, **named):
            print("noise")
            if error is not None:
                raise error

        monkeypatch.setattr(wb, "report", report)
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        waits.clear()
        result = CliRunner().invoke(app, command)
        result.waited = bool(waits)
        return result

    return run


def test_the_main_process_does_alone_what_cannot_be_shared(launched):
    main, other = (launched(rank, "report", "--out", "run") for rank in range(2))
    assert "2 processes were launched, and `report` runs in one of them" in main.stderr
    assert "report: " in main.stdout
    assert (other.exit_code, other.output) == (0, "")


@pytest.mark.parametrize("command", [["export"], ["distill", "--nothing"], ["no-command"]])
def test_what_all_refuse_is_said_by_the_main_process_first(launched, command):
    main = launched(0, *command)
    assert main.exit_code == 2 and main.stderr and not main.waited
    other = launched(1, *command)
    assert other.waited == bool(other.stderr) == (command != ["export"])


def test_a_process_that_fails_alone_says_so_and_one_that_is_stopped_does_not(launched, monkeypatch):
    from workbench.cli.app import app as commands

    monkeypatch.setattr(_callback(commands, "report"), "several", True)
    alone = launched(1, "report", "--out", "run", error=InputError("no disk"))
    assert alone.exit_code == 2 and "error: no disk" in alone.stderr
    told = launched(1, "report", "--out", "run", error=SaidElsewhere("no disk"))
    assert (told.exit_code, told.output) == (2, "")


def _callback(commands, name):
    return next(
        one.callback
        for one in commands.registered_commands
        if name in (one.name, one.callback.__name__)
    )
