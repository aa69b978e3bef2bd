"""The explorer of heads in a notebook; called, as in `workbench.explore(…)`, it opens one."""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *given: Any, **named: Any) -> Any:
        """Open an explorer: `workbench.explore.widget.explore`."""
        from workbench.explore.widget import explore

        return explore(*given, **named)


sys.modules[__name__].__class__ = _Callable
