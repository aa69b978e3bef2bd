from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.runs.folder import RunFolder
from workbench.runs.taken_up import settings_there


@pytest.fixture
def out(tmp_path: Path) -> Path:
    prompts = {"task": "t", "sha256": "", "made_with": {"n_prompts": 120, "template": "plain"}}
    folder = RunFolder.create(tmp_path / "run", {"seed": 3, "prompts": prompts})
    settings = {"heads": "2-1", "n_nominated": 5, "positions": ["span"], "n_resamples": 9}
    folder.begin("patch", settings)
    folder.begin("paths", {"sources": "2-1", "destinations": "3-1", "n_resamples": 7})
    return folder.path


def test_what_is_not_given_is_as_in_the_run(out: Path, tmp_path: Path) -> None:
    there = settings_there(out, {"n_resamples"}, prompts=False)
    assert there["seed"] == 3 and there["n_prompts"] == 120 and there["heads"] == "2-1"
    assert there["positions"] == ("span",) and "n_resamples" not in there
    assert settings_there(tmp_path / "none", set(), prompts=False) == {}


def test_what_asks_for_something_else_does_not_take_the_other_half_along(out: Path) -> None:
    assert "heads" not in settings_there(out, {"n_nominated"}, prompts=False)
    assert "destinations" not in settings_there(out, {"sources"}, prompts=False)


def test_limits_are_those_of_the_pools_and_the_rest_those_of_the_command(out: Path) -> None:
    folder = RunFolder.open(out)
    limits = {"min_restore_low": 0.05, "n_paired": 10, "n_resamples": 9}
    folder.begin("sets", limits)
    folder.begin("pool", {"min_restore_low": 0.2, "n_paired": 0, "n_resamples": 8})
    for command, n_resamples in {"evidence": 9, "pool": 9, "paths": 7}.items():
        there = settings_there(out, set(), prompts=False, command=command)
        assert (there["min_restore_low"], there["n_paired"]) == (0.2, 0)
        assert there["n_resamples"] == n_resamples


def test_prompts_are_not_made_for_a_run_that_was_given_them(tmp_path: Path) -> None:
    prompts = {"task": "t", "sha256": "", "made_with": None}
    folder = RunFolder.create(tmp_path / "run", {"seed": 0, "prompts": prompts})
    with pytest.raises(InputError, match="--n makes prompts, and those of this run were given"):
        settings_there(folder.path, {"n_prompts"}, prompts=False)
    assert settings_there(folder.path, set(), prompts=True) == {"seed": 0}
    for out in (folder.path, tmp_path / "new"):
        with pytest.raises(InputError, match="--n-options makes prompts, --prompts gives them"):
            settings_there(out, {"n_options", "seed"}, prompts=True)
