import pytest

from workbench.errors import InputError
from workbench.predicting import waiting
from workbench.predicting.waiting import wait_for
from workbench.processes import Alone
from workbench.progress import Reporter


def test_waiting_ends_when_all_is_there_or_nothing_comes(monkeypatch, capsys):
    monkeypatch.setattr(waiting, "SECONDS_BETWEEN_LOOKS", 0.01)
    there = iter([0, 1, 1, 3])
    wait_for(lambda: next(there), 3, "parts", 10.0, Reporter(), Alone())
    assert "waiting for parts (at most 10 s without anything new)" in capsys.readouterr().err
    with pytest.raises(InputError, match="1 of 3 are there; run the same command again"):
        wait_for(lambda: 1, 3, "parts", 0.05, Reporter(), Alone())


def test_waiting_ends_when_another_process_fails():
    class Failed(Alone):
        def check(self) -> None:
            raise InputError("process 1 of 2: no")

    with pytest.raises(InputError, match="process 1 of 2: no"):
        wait_for(lambda: 0, 1, "parts", 10.0, Reporter(), Failed())
