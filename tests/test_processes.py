import pytest

from workbench.errors import InputError
from workbench.processes import Alone, Processes, in_order, parted, started_alone
from workbench.progress import Reporter


def test_a_process_that_nobody_launched_is_alone():
    here = Processes.here({"RANK": "0", "WORLD_SIZE": "1"})
    assert here == Processes.here({}) == Processes()
    assert here.is_main
    assert list(here.mine(3)) == [0, 1, 2]
    assert here.device() is None
    assert here.device("auto") == "auto"


def test_processes_started_by_hand_say_their_part():
    assert parted("1/8") == Processes(1, 8)
    for wrong in ("8/8", "1", "a/b", "-1/2", "0/0"):
        with pytest.raises(InputError, match=r"give 0/8|parts count from"):
            parted(wrong)


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE")])
def test_launchers_say_which_process_this_is(names):
    here = Processes.here(dict(zip(names, ("1", "3"), strict=True)))
    assert (here.rank, here.world, here.is_main) == (1, 3, False)
    assert list(here.mine(7)) == [1, 4]
    assert here.reporter(Reporter()).console.quiet


def test_every_process_has_its_own_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    second = Processes(3, 4, local_rank=1, local_world=2)
    assert second.device() == second.device("cuda") == "cuda:1"
    assert second.device("cpu") == "cpu"
    with pytest.raises(InputError, match="all GPUs of a machine, and 2 were launched"):
        second.device("auto")
    assert Processes(1, 2, 0, 1).device("auto") == "auto"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert second.device() == "cpu"


@pytest.mark.parametrize(
    "environment", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "one", "WORLD_SIZE": "2"}]
)
def test_numbers_that_do_not_fit_are_refused(environment):
    with pytest.raises(InputError, match="RANK is"):
        Processes.here(environment)


def test_a_launcher_that_starts_one_of_several_is_found_out():
    assert started_alone({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"})
    assert not started_alone({"ACCELERATE_USE_CPU": "True"})
    assert not started_alone({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "h", "RANK": "0"})


def test_one_process_does_all_in_order():
    seen = []
    doubled = in_order(
        lambda items: (2 * item for item in items), [3, 1], lambda *at: seen.append(at)
    )
    assert doubled == [6, 2]
    assert seen == [(1, 2), (2, 2)]
    assert Alone().told(lambda: 5) == 5
