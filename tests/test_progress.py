"""A long event shows that it moves; a short one says nothing between."""

import io
import time

import pytest
from rich.console import Console

from workbench import progress
from workbench.progress import Reporter, duration, pulse


class _Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def _reporter(*, terminal: bool = False) -> tuple[Reporter, io.StringIO]:
    text = io.StringIO()
    return Reporter(Console(file=text, force_terminal=terminal, width=30)), text


def test_an_event_of_minutes_has_a_line_every_ten_seconds(clock: _Clock) -> None:
    reporter, text = _reporter()
    with reporter.step("patch", 2) as advance:
        for second in range(1, 121):
            clock.now = float(second)
            pulse("layers")
            if second == 60:
                advance(1, 2)
    lines = text.getvalue().splitlines()
    assert lines[0] == "patch: 2 events"
    assert lines[1] == "patch: 0 of 2 and 8 layers"
    assert "patch: 1 of 2 and 4 layers, about 56 s left" in lines
    assert len(lines) == 2 + 120 // 8


def test_short_events_are_counted_without_their_parts(clock: _Clock) -> None:
    reporter, text = _reporter()
    with reporter.step("score", 4) as advance:
        for done in range(1, 5):
            clock.now += 5
            pulse("layers")
            advance(done, 4)
    assert text.getvalue().splitlines()[1:] == [
        "score: 1 of 4 and 1 layers, about 10 s left",
        "score: 3 of 4 and 1 layers, about 0 s left",
        "score: finished in 20 s",
    ]


def test_a_step_with_a_unit_says_how_many_a_second(clock: _Clock) -> None:
    reporter, text = _reporter()
    with reporter.step("documents", 40, "documents") as advance:
        for done in (16, 32, 40):
            clock.now += 8
            advance(done, 40)
    assert text.getvalue().splitlines() == [
        "documents: 40 documents",
        "documents: 16 of 40",
        "documents: 32 of 40, 2 documents a second, about 4 s left",
        "documents: finished in 24 s",
    ]


@pytest.mark.parametrize("unit", ["", "documents"])
def test_a_first_batch_is_no_single_event(clock: _Clock, unit: str) -> None:
    reporter, text = _reporter()
    with reporter.step("search", 1280, unit) as advance:
        for done in (128, 256):
            clock.now += 16
            advance(done, 1280)
    speed = ", 8 documents a second" if unit else ""
    assert text.getvalue().splitlines()[1:3] == [
        "search: 128 of 1280",
        f"search: 256 of 1280{speed}, about 2 min 8 s left",
    ]


@pytest.mark.parametrize("unit", ["", "steps"])
def test_what_was_there_before_has_no_part_in_the_pace(clock: _Clock, unit: str) -> None:
    reporter, text = _reporter()
    with reporter.step("train", 1000, unit) as advance:
        for done in (901, 902, 903):
            clock.now += 10
            advance(done, 1000)
    speed = ", 0.1 steps a second" if unit else ""
    assert text.getvalue().splitlines()[1:4] == [
        "train: 901 of 1000",
        f"train: 902 of 1000{speed}, about 16 min 20 s left",
        f"train: 903 of 1000{speed}, about 16 min 10 s left",
    ]


@pytest.mark.parametrize("loading", [0, 3])
@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_found_one_by_one_has_no_part_in_the_pace(
    clock: _Clock, loading: int, terminal: bool
) -> None:
    text = io.StringIO()
    reporter = Reporter(Console(file=text, force_terminal=terminal, width=100))
    with reporter.step("patch", 1000) as advance:
        clock.now += loading
        for done in range(1, 901):
            advance(done, 1000)
            clock.now += 0.002
        for done in (901, 902):
            clock.now += 10
            advance(done, 1000)
        said = text.getvalue()
        if terminal:
            clock.now += 1
            time.sleep(1.0)  # of the bar's own clock, which draws it
            said = text.getvalue()
    assert ("about 16 min 19 s left" if terminal else "902 of 1000, about 16 min 20 s left") in said


def test_quick_events_have_a_pace_of_their_own(clock: _Clock) -> None:
    reporter, text = _reporter()
    with reporter.step("labels", 10_000) as advance:
        for done in range(1, 1001):
            clock.now += 0.05
            advance(done, 10_000)
    assert "labels: 963 of 10000, about 7 min 32 s left" in text.getvalue()


def test_a_slow_start_does_not_stay_in_the_pace(clock: _Clock) -> None:
    reporter, text = _reporter()
    with reporter.step("train", 20) as advance:
        for done, seconds in ((1, 100), (2, 1), (12, 10)):
            clock.now += seconds
            advance(done, 20)
    assert "train: 12 of 20, about 8 s left" in text.getvalue()


def test_what_cannot_say_that_it_moves_is_said_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.5)
    reporter, text = _reporter()
    with reporter.step("model"), progress.beating():
        time.sleep(1.2)
    assert text.getvalue().splitlines()[:2] == ["model: started", "model: 1 seconds"]


def test_work_between_steps_is_silent_until_it_is_long(clock: _Clock) -> None:
    reporter, text = _reporter()
    with reporter.between("patch"):
        pulse("layers")
        assert text.getvalue() == ""
        with reporter.step("inner", 1):
            pulse("layers")
        clock.now = 9.0
        pulse("layers", 30)
    pulse("layers")  # nobody listens, and that is no error
    assert text.getvalue().splitlines()[2:] == ["patch: 31 layers"]


def test_seconds_are_counted_once_and_anew_after_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.5)
    reporter, text = _reporter()
    at = "training"
    with reporter.between("whole"), progress.beating():
        with reporter.between(lambda: at) as shown, progress.beating():
            time.sleep(1.2)
            shown()
            at = "training, 1 of 2 steps"
            time.sleep(1.2)
        time.sleep(1.2)
    said = ["training: 1 seconds", "training, 1 of 2 steps: 1 seconds", "whole: 1 seconds"]
    assert text.getvalue().splitlines() == said


def test_a_bar_says_what_moves(clock: _Clock) -> None:
    reporter, text = _reporter(terminal=True)
    with reporter.step("patch", 2) as advance:
        clock.now = 1.0
        pulse("layers", 12)
        advance(1, 2)
    assert "patch" in text.getvalue()


def test_a_bar_says_the_speed_once_it_is_known(
    clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        progress.Progress, "update", lambda *_, **to: said.append(to["description"])
    )
    with _reporter(terminal=True)[0].step("train", 1000, "steps") as advance:
        for done in (901, 921):
            clock.now += 10.0
            advance(done, 1000)
    assert said == ["train", "train, 2 steps a second", "train"]


def test_progress_in_a_log_is_plain_lines(clock: _Clock) -> None:
    reporter, text = _reporter()
    with reporter.step("[bold]patch of a name longer than the console", 3) as advance:
        for done in (1, 2, 3):
            clock.now += 7.0
            advance(done, 3)
    assert text.getvalue().splitlines() == [
        "[bold]patch of a name longer than the console: 3 events",
        "[bold]patch of a name longer than the console: 2 of 3, about 7 s left",
        "[bold]patch of a name longer than the console: finished in 21 s",
    ]
    assert duration(200.0) == "3 min 20 s"
