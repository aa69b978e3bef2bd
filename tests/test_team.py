import re
import threading
import time
from dataclasses import dataclass
from functools import partial

import pandas as pd
import pytest
import torch
from rich.console import Console

from workbench.errors import InputError
from workbench.messages import encode
from workbench.presence import FOLDER
from workbench.processes import Alone, Processes, SaidElsewhere, ShareDone
from workbench.progress import Reporter
from workbench.team import Team


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("workbench.presence.BEAT", 0.05)
    monkeypatch.setattr("workbench.presence.LOOK", 0.02)
    monkeypatch.setattr("workbench.presence.LINGER", 1.0)
    monkeypatch.setattr("workbench.presence.SECONDS_BETWEEN_LINES", 0.2)


@pytest.fixture
def together(tmp_path):
    """Runs a function in processes that are threads here; returns what each returned or raised."""

    def run(do, world=2, patience=30.0):
        ends = [None] * world
        said = Console(file=(tmp_path / "said.txt").open("w"), width=200)

        def one(rank):
            try:
                team = Team.meet(
                    tmp_path / "run",
                    here=Processes(rank, world, rank, world),
                    reporter=Reporter(said),
                    patience=patience,
                )
                with team.failing():
                    team.everyone()
                    ends[rank] = do(team, rank)
            except Exception as error:
                ends[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        said.file.close()
        return ends, (tmp_path / "said.txt").read_text()

    return run


def squares(items, rank=0, wrong=(), pause=0.0):
    for item in items:
        time.sleep(pause)
        if item in wrong:
            raise InputError(f"item {item} is bad")
        yield rank, item**2


def test_one_process_needs_no_folder(tmp_path):
    team = Team.meet(tmp_path / "run", here=Processes())
    assert type(team) is Alone
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("n", [0, 1, 7])
def test_items_are_dealt_and_results_are_in_order_everywhere(together, tmp_path, n):
    def do(team, rank):
        found = team.spread(partial(squares, rank=rank), range(n), everywhere=True)
        team.close()
        return found

    ends, _ = together(do, world=3)
    assert ends == [[(at % 3, at**2) for at in range(n)]] * 3
    assert not (tmp_path / "run" / FOLDER).exists()


def test_the_others_leave_a_step_that_the_main_process_ends(together):
    def do(team, rank):
        found = []
        for _ in range(2):
            team.begin_step()
            try:
                found.append(team.spread(squares, range(3)))
            except ShareDone:
                found.append("left")
        found.append(team.told(lambda: f"by {rank}"))
        team.close()
        return found

    ends, _ = together(do)
    whole = [(0, 0), (0, 1), (0, 4)]
    assert ends == [[whole, whole, "by 0"], ["left", "left", "by 0"]]


@pytest.mark.parametrize("wrong", [{1}, {2}, {3, 4}])
def test_an_error_is_that_of_the_first_item_in_all_processes(together, wrong):
    def do(team, rank):
        with pytest.raises(InputError, match=f"item {min(wrong)} is bad"):
            team.spread(partial(squares, wrong=wrong), range(6), everywhere=True)
        team.close()
        return "went on"

    ends, _ = together(do)
    assert ends == ["went on", "went on"]


def test_who_waits_says_for_whom(together):
    def do(team, rank):
        team.spread(partial(squares, pause=0.3 * rank), range(8), everywhere=True)
        team.close()

    _, said = together(do)
    assert re.search(r"^waiting for process 1 \([0-3] of 4 events\)$", said, re.MULTILINE)


def test_what_fails_in_one_process_ends_all_with_its_line_once(together, tmp_path):
    def do(team, rank):
        if rank == 1:
            raise ValueError("its disk is full")
        team.spread(partial(squares, pause=0.2), range(40), everywhere=True)

    ends, _ = together(do)
    assert str(ends[0]) == "process 1 of 2: its disk is full"
    assert type(ends[0]) is InputError
    assert type(ends[1]) is SaidElsewhere
    assert not (tmp_path / "run" / FOLDER).exists()


def test_what_fails_in_the_main_process_ends_all(together):
    def do(team, rank):
        if rank == 0:
            raise InputError("no such head")
        team.told(lambda: None)

    ends, _ = together(do)
    assert str(ends[0]) == "no such head"
    assert type(ends[1]) is SaidElsewhere


def test_a_process_without_a_beat_is_taken_for_dead(together):
    def do(team, rank):
        if rank == 1:
            team._over.set()  # as if it had been killed
            return
        team.spread(squares, range(4))

    ends, _ = together(do, patience=0.4)
    assert "process 1 of 2 has not been heard of" in str(ends[0])


def test_one_that_does_not_come_is_not_waited_for_forever(tmp_path):
    quiet = Reporter(Console(quiet=True))
    here = Processes(0, 2, 0, 2)
    team = Team.meet(tmp_path / "run", here=here, reporter=quiet, patience=0.2)
    with pytest.raises(InputError, match="process 1 of 2 did not begin within"):
        team.everyone()
    team._end()
    with pytest.raises(InputError, match="the main process did not come"):
        Team.meet(tmp_path / "run", here=Processes(1, 2, 1, 2), patience=0.2)


def test_what_an_earlier_launch_left_is_no_part_of_this_one(together, tmp_path):
    left = tmp_path / "run" / FOLDER
    (left / "abc").mkdir(parents=True)
    (left / "session.json").write_text('{"session": "abc", "world": 2, "admitted": []}')
    (left / "abc" / "0-1-1").write_bytes(b"no message")

    def do(team, rank):
        found = team.spread(squares, range(4), everywhere=True)
        team.close()
        return found

    ends, _ = together(do)
    assert ends == [[(0, at**2) for at in range(4)]] * 2


def test_processes_that_see_different_events_are_refused(together):
    def do(team, rank):
        team.spread(squares, range(4 + rank), everywhere=True)

    ends, _ = together(do)
    assert "has 5 events where another has 4" in str(ends[0])


@dataclass(frozen=True)
class Found:
    number: int
    table: pd.DataFrame


def test_data_frames_tensors_and_records_are_results(together):
    def work(items):
        for item in items:
            table = pd.DataFrame({"item": [item]})
            yield Found(item, table), {(0, item): torch.full((2,), item)}

    def do(team, rank):
        found = team.spread(work, range(3), everywhere=True, records=(Found,))
        told = team.told(lambda: Found(7, found[0][0].table), (Found,))
        team.close()
        return found, told

    ends, _ = together(do)
    for found, told in ends:
        assert [type(one) for one, _ in found] == [Found] * 3
        assert [one.table["item"].tolist() for one, _ in found] == [[0], [1], [2]]
        assert [by[0, at].tolist() for at, (_, by) in enumerate(found)] == [[0, 0], [1, 1], [2, 2]]
        assert type(told) is Found and told.number == 7


def test_a_result_of_an_unknown_kind_is_refused_where_it_was_made(together):
    def do(team, rank):
        team.spread(lambda items: ({item} for item in items), range(4))

    ends, _ = together(do)
    assert str(ends[0]).startswith("process 1 of 2: processes cannot send each other a builtins.se")
    assert type(ends[0]) is InputError


@pytest.mark.parametrize("content", [b"", b"no message", encode({"found": []}), "half"])
def test_what_no_process_wrote_is_refused_in_one_line(together, content):
    def do(team, rank):
        put = team._put

        def other(name, whole):
            put(name, whole[: len(whole) // 2] if content == "half" else content)

        team._put = other
        team.spread(squares, range(4))

    ends, _ = together(do)
    line = r".*/0-1-1: is (no message, or only a part of one|another message than).*"
    assert type(ends[0]) is InputError and re.fullmatch(line, str(ends[0]))
