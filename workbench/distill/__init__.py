"""Students of a teacher's heads; called, as in `workbench.distill(…)`, it trains one."""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *given: Any, **named: Any) -> dict[str, Any]:
        """Train a student: `workbench.distill.training.run.distill`."""
        from workbench.distill.training.run import distill

        return distill(*given, **named)

    def examples_from_chats(self, *given: Any, **named: Any) -> list[dict[str, Any]]:
        """One's own examples: `workbench.distill.examples.chats.examples_from_chats`."""
        from workbench.distill.examples.chats import examples_from_chats

        return examples_from_chats(*given, **named)

    def simulability(self, *given: Any, **named: Any) -> Any:
        """LAS of chains: `workbench.distill.evaluation.simulability.simulability`."""
        from workbench.distill.evaluation.simulability import simulability

        return simulability(*given, **named)


sys.modules[__name__].__class__ = _Callable
