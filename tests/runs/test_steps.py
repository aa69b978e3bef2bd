from importlib import import_module

from workbench.runs.config import RunConfig
from workbench.runs.steps import IN_REPORT, STEPS


def test_steps_are_in_order_and_their_work_is_there() -> None:
    made: set[str] = set()
    for step in STEPS:
        assert set(step.needs) <= made and not set(step.makes) & made
        assert set(step.settings) <= set(RunConfig.__dataclass_fields__)
        module, _, function = step.work.partition(":")
        assert callable(getattr(import_module(f"workbench.runs.{module}"), function))
        made |= set(step.makes)
    assert set(IN_REPORT) <= made
