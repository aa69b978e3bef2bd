import pytest

import workbench as wb


def test_every_public_name_can_be_had() -> None:
    assert dir(wb) == wb.__all__
    assert all(getattr(wb, name) is not None for name in wb.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wb.nothing


def test_the_package_of_students_can_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.distill.training.run.distill", lambda *a, **b: {"given": (a, b)})
    assert wb.distill(1, config=2) == {"given": ((1,), {"config": 2})}
