import pytest

from workbench.errors import InputError
from workbench.predicting import processes
from workbench.predicting.processes import Place, launched, parted, wait_for
from workbench.progress import Reporter

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@pytest.fixture
def environment(monkeypatch):
    def put(*values):
        for name, value in zip(NAMES, values, strict=True):
            monkeypatch.setenv(name, value)

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return put


def test_the_launcher_says_which_process_this_is(environment):
    assert launched() == Place(0, 1, 0, by_launcher=True) and launched().said == ""
    environment("5", "8", "1")
    place = launched()
    assert (place.index, place.count, place.local, place.main) == (5, 8, 1, False)
    assert place.said == ", process 6 of 8"
    environment("8", "8", "0")
    with pytest.raises(InputError, match="RANK/WORLD_SIZE 8/8: the first counts from 0 to 7"):
        launched()
    environment("x", "8", "0")
    with pytest.raises(InputError, match="must be whole numbers"):
        launched()


def test_processes_started_by_hand_say_their_part():
    assert parted("1/8") == Place(1, 8)
    for wrong in ("8/8", "1", "a/b", "-1/2", "0/0"):
        with pytest.raises(InputError, match=r"0/8|counts from"):
            parted(wrong)


def test_waiting_ends_when_all_is_there_or_nothing_comes(monkeypatch, capsys):
    monkeypatch.setattr(processes, "SECONDS_BETWEEN_LOOKS", 0.01)
    there = iter([0, 1, 1, 3])
    wait_for(lambda: next(there), 3, "parts", 10.0, Reporter())
    assert "waiting for parts (at most 10 s without anything new)" in capsys.readouterr().err
    with pytest.raises(InputError, match="1 of 3 are there; run the same command again"):
        wait_for(lambda: 1, 3, "parts", 0.05, Reporter())
