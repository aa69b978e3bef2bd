import pytest

from workbench.errors import InputError
from workbench.studies.named_models import NamedModels, arm_in, part_of


def test_students_are_named_by_the_flag_or_their_folder():
    found = NamedModels.read("T", ["phases-0=some/where", "other/phases-p1-0"])
    assert list(found.all) == ["teacher", "phases-0", "phases-p1-0"]
    assert found.all["phases-0"] == "some/where"
    for students, said in (
        (["a=x", "y/a"], "two students are called 'a'"),
        (["teacher=x"], "cannot be called 'teacher'"),
        (["../a=x"], "cannot be called '../a'"),
    ):
        with pytest.raises(InputError, match=said):
            NamedModels.read("T", students)


def test_the_name_tells_the_arm():
    names = ["phases-0", "phases-p1-12", "phases-p1", "cot-seed3", "phases-p2_loop-0"]
    names += ["phases@paper-L10-s300-r0.001-f1-t8000-0", "cot-L10-s300-r0.001-f1-t8000-0"]
    arms = ["phases", "phases-p1", "phases-p1", "cot", "phases-p2_loop", "phases", "cot"]
    assert [arm_in(name) for name in names] == arms


def test_parts_are_all_the_models_once():
    names = list("abcde")
    assert part_of(names, None) == names
    assert sorted(part_of(names, "0/2") + part_of(names, "1/2")) == names
    for wrong in ("2/2", "3/2", "1", "a/b"):
        with pytest.raises(InputError, match=r"give 0/8|parts count from"):
            part_of(names, wrong)
