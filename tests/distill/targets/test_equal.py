"""A student of targets on disk becomes what a student of the teacher itself becomes."""

from dataclasses import replace

import pytest
import torch
from fixtures.distillation import QUIET, placed

from workbench.distill.config import TERMS, LossConfig
from workbench.distill.targets.make import Making, make_targets
from workbench.distill.targets.packing import Packing
from workbench.distill.targets.store import Targets
from workbench.errors import InputError

EXACT = Packing(exact=True)
ALL = {**dict.fromkeys(TERMS, 0.1), "chain": 1.0}


@pytest.fixture(scope="session")
def examples(make_stream):
    stream = make_stream()
    return [placed(stream[i]) for i in range(12)]


@pytest.fixture
def made(make_trainer, examples, tmp_path):
    """Targets for the examples, in a folder of this name, and the record of making them."""

    def make(config, packing=EXACT, name="targets", **options):
        trainer = make_trainer(config, examples=examples)
        making = Making(tmp_path / name, packing, **{"block": 5, **options})
        who = {"teacher": "0" * 64, "pools": [], "heads": "pools", "pairing": {}}
        record = make_targets(trainer, examples, making, **who, reporter=QUIET)
        return Targets(tmp_path / name), record

    return make


@pytest.fixture
def both(make_trainer, make_model, examples):
    """A trainer with the teacher, and one with targets; the students are the same."""

    def make(config, targets, **arguments):
        found = []
        for teacher, given in ((make_model(seed=0), None), (targets.teacher(), targets)):
            student = make_model(seed=1)  # before the learnt projections are drawn
            trainer = make_trainer(
                config,
                student=student,
                teacher=teacher,
                targets=given,
                examples=examples,
                **arguments,
            )
            found.append(trainer)
        return found

    return make


def losses_of(trainer, numbers):
    batch = trainer.collated([trainer.train_dataset[i] for i in numbers])
    losses, _ = trainer.losses(trainer.model, batch)
    return {name: loss.mean.detach() for name, loss in losses.items()}


@pytest.mark.parametrize("update_space", ["residual", "options"])
def test_every_term_is_the_same_from_exact_targets(update_space, both, made):
    config = replace(LossConfig(**ALL), update_space=update_space)
    online, cached = both(config, made(config)[0])
    assert all(weight.is_meta for weight in cached.teacher.parameters())
    for numbers in ((0, 1, 2), (11, 4)):  # batches that were not together when targets were made
        one, other = losses_of(online, numbers), losses_of(cached, numbers)
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_a_student_of_some_terms_trains_as_beside_the_teacher(both, made):
    targets, _ = made(LossConfig(**ALL))
    some = ("chain", "logit", "attention", "update", "interaction", "p2_loop")
    config = LossConfig(**{name: ALL[name] * (name in some) for name in ALL})
    ends = []
    for trainer in both(config, targets, save_strategy="no", optim="sgd"):
        trainer.train()
        log = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        ends.append((log, trainer.model.state_dict()))
    (one, weights), (other, others) = ends
    assert len(one) == 4 and other == pytest.approx(one, rel=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, atol=1e-6, rtol=1e-5, msg=name)


def test_truncated_targets_are_near_and_say_what_they_leave_out(both, made):
    config = LossConfig(**ALL)
    exact, truncated = made(config), made(config, Packing(top=12, width=8), "truncated")
    assert 3 * truncated[1]["bytes"] < exact[1]["bytes"]
    assert exact[1]["lost"] == {}
    shares = {name.split(" ")[0]: share for name, share in truncated[1]["lost"].items()}
    assert shares.keys() == {"pooled", "layer", "logits"}
    assert all(0 < share < 0.99 for share in shares.values())
    online, cached = both(config, truncated[0])
    one, other = losses_of(online, (0, 1, 2)), losses_of(cached, (0, 1, 2))
    for name in ("chain", "interaction", "p1_interaction", "hidden"):  # nothing is cut of these
        torch.testing.assert_close(other[name], one[name], atol=1e-6, rtol=1e-5, msg=name)
    # As one, tokens that are left out tell less than apart.
    assert other.pop("logit") < one.pop("logit")
    for name, value in one.items():
        assert float(other[name]) == pytest.approx(float(value), abs=0.35), name


def test_sizes_said_beforehand_are_those_of_the_files(made, tmp_path):
    _, record = made(LossConfig(**ALL), Packing(top=8), "some", block=12)
    files = sum(path.stat().st_size for path in (tmp_path / "some").glob("block-*"))
    assert record["bytes"] == pytest.approx(files, rel=0.05)
    assert record["bytes_of_70b"] > record["bytes"]  # what heads write is wider, to 1,024 numbers
    assert record["examples"] == 12 and record["blocks"] == [1, 1]


def test_what_is_missing_is_made_and_nothing_else(made, tmp_path):
    config = LossConfig(chain=1.0, attention=1.0)
    with pytest.raises(InputError, match=r"block 1 of 3 is missing.*goes on"):
        made(config, part=(0, 2))
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "targets").glob("block-*")}
    assert len(first) == 2
    made(config, part=(1, 2))
    assert all(path.stat().st_mtime_ns == at for path, at in first.items())
    for changed, named in (
        ({"packing": Packing(exact=True, top=9)}, "packing.top"),
        ({"block": 6}, "block"),
        ({"config": replace(config, rows="all")}, "loss.rows"),
    ):
        given = {"config": config, **changed}
        with pytest.raises(InputError, match=rf"other settings \(.*{named}"):
            made(**given)


def test_what_targets_are_not_for_is_refused(both, made, examples, tmp_path):
    config = LossConfig(chain=1.0, attention=1.0)
    targets, _ = made(config)
    for other, message in (
        (replace(config, logit=1.0), "holds targets for attention, none for logit"),
        (replace(config, rows="all"), "made with rows options, not all"),
    ):
        with pytest.raises(InputError, match=message):
            both(other, targets)
    _, cached = both(replace(config, pools=("coarse",)), targets)
    losses_of(cached, (0,))  # of fewer heads, all of which are there
    with pytest.raises(InputError, match="no targets for one of the examples"):
        cached.collated([{**examples[0], "decisions": [1]}])
    with pytest.raises(InputError, match="targets are of pools heads, not of random"):
        targets.pools(None, "random")
    with pytest.raises(InputError, match="another head set"):
        targets.pools({"coarse": [(0, 3)]})
    block = tmp_path / "targets" / "block-00000.safetensors"
    block.write_bytes(block.read_bytes()[:100])
    with pytest.raises(InputError, match=r"block-00000.safetensors: is damaged.*delete it"):
        Targets(tmp_path / "targets")
    with pytest.raises(InputError, match="ask nothing of the teacher"):
        made(LossConfig(attention=0.0), name="nothing")
