"""Paths between heads as a step of a run: by name, on the held-out half, or none."""

from dataclasses import replace

import pandas as pd
import pytest
from fixtures.begun_runs import FAST, Begin, Stopped, loud, page_of

import workbench as wb
from workbench.errors import InputError
from workbench.runs.parts import Parts


def test_paths_between_named_heads_are_measured_on_the_held_out_half(begin: Begin) -> None:
    ends = replace(FAST, heads="all", sources="0-1", destinations="1-0,1-3")
    stream, reporter = loud()
    opened = begin(ends, reporter=reporter)
    table = wb.paths(opened)
    for first in ("score", "patch", "pool"):
        assert f"{first} is not finished and is done first" in stream.getvalue()
    assert set(table["ends"]) == {"0-1 > 1-0 1-3"}
    assert set(zip(table["dst_heads"], table["route"], strict=True)) == {
        ("1-0", "q"), ("1-0 1-1", "k"), ("1-0 1-1", "v"),
        ("1-3", "q"), ("1-2 1-3", "k"), ("1-2 1-3", "v"),
    }  # fmt: skip
    shared = "by key and value 1-0 means 1-0 1-1, 1-3 means 1-2 1-3"
    assert stream.getvalue().count(shared) == 1
    assert (table["n"] == len(opened.held_out)).all() and set(table["half"]) == {"verify"}
    assert "Paths between heads" in page_of(opened)


def test_paths_that_were_stopped_go_on_beside_those_of_other_ends(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = begin(replace(FAST, heads="all", sources="0-1", destinations="1-0"))
    wb.pool(opened)
    real = Parts.__setitem__

    def stop(self: Parts, number: int | str, table: pd.DataFrame) -> None:
        real(self, number, table)
        raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Parts, "__setitem__", stop)
        wb.paths(opened)
    assert list(opened.folder.parts("paths")) == [0]
    other = begin(replace(opened.config, destinations="1-3"))
    into = wb.paths(other).groupby("ends")["dst_heads"].agg(set).to_dict()
    assert into == {"0-1 > 1-0": {"1-0", "1-0 1-1"}, "0-1 > 1-3": {"1-3", "1-2 1-3"}}


def test_without_pooled_heads_there_are_no_paths_and_it_is_said(begin: Begin) -> None:
    stream, reporter = loud()
    strict = replace(FAST, min_restore_low=5.0, n_paired=0)
    opened = begin(strict, reporter=reporter)
    wb.score(opened)
    wb.patch(opened)
    assert not wb.pool(opened).heads
    assert wb.paths(opened).empty
    said = stream.getvalue()
    assert "paths: none between pooled heads (no head is pooled, so" in said
    assert "every destination lies" not in said
    assert "Paths between heads" not in page_of(opened)
    with pytest.raises(InputError, match=r"no head is pooled.* name both ends"):
        wb.paths(begin(replace(strict, sources="0-1")))
    backwards = replace(strict, sources="1-0", destinations="0-1")
    with pytest.raises(InputError, match="every destination lies at or below every source"):
        wb.paths(begin(backwards))
    # What was refused is forgotten; ends that give a path are measured, and the page shows them.
    named = replace(strict, sources="0-1", destinations="1-2")
    assert set(wb.paths(begin(named))["ends"]) == {"0-1 > 1-2"}
    page = page_of(opened)
    assert "Paths between heads" in page and "Only paths asked for by name: 0-1 &gt; 1-2" in page
