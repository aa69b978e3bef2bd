"""The explorer in a notebook: an anywidget that draws what `State` computes.

What a notebook saves of it is the picked head, prompt and map, and the code that draws; numbers,
pages and prompt text go as custom messages, and are gone when the kernel is.
"""

from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from workbench.explore.opened import opened
from workbench.explore.state import State
from workbench.models.extras import extra_package
from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import DecisionEvent, PromptSet
from workbench.runs.pipeline import FoundHeads
from workbench.runs.session import OpenRun

SCRIPTS = ("line.js", "heatmap.js", "panels.js", "explorer.js")
"""One module together, the one that exports last."""


def explore(
    source: OpenRun | FoundHeads | HookedModel | str | Path,
    prompts: PromptSet | DecisionEvent | str | Path | None = None,
    *,
    model: HookedModel | str | Path | None = None,
) -> Any:
    """Look at heads in a notebook: a heat map, and the page of the head that is picked there.

    The widget's `head` ("4-3"), `prompt` (its place, from 0) and `map` say what is shown, and can
    be set; `event` is the decision event as its text stands, `answer` the model's answer to it.

    Args:
        source: an open run or a run folder, what `find_heads` returned, or a model (a model
            folder, a name) without any run.
        prompts: those of the run unless given; a set, a file or one event.
        model: that of a run folder, which is looked for by the name in its manifest unless given;
            that of found heads.

    Raises:
        InputError: the packages of the extra `notebooks` are missing, there is no such run or
            model, or prompts or model are needed and were not given.
    """
    widget_class = _widget_class()
    return widget_class(opened(source, prompts, model))


@cache
def _widget_class() -> Any:
    """The class, made when it is first needed: its base is of an extra."""
    anywidget = extra_package("anywidget", "wb.explore", "notebooks")
    traitlets = extra_package("traitlets", "wb.explore", "notebooks")
    here = Path(__file__).parent

    class Explorer(anywidget.AnyWidget):
        """The explorer; see `explore`."""

        _esm = "\n".join((here / name).read_text(encoding="utf-8") for name in SCRIPTS)
        _css = (here / "explorer.css").read_text(encoding="utf-8")
        head = traitlets.Unicode().tag(sync=True)
        prompt = traitlets.Int(0).tag(sync=True)
        map = traitlets.Unicode().tag(sync=True)

        def __init__(self, state: State) -> None:
            self._state = state
            super().__init__(head=state.first_head, map=state.first_map)
            self.on_msg(self._asked)

        @property
        def event(self) -> DecisionEvent:
            """The decision event that is shown, its text as it was typed."""
            return self._state.shown_event

        @property
        def answer(self) -> Any:
            """The model's answer to it, with the switched heads."""
            return self._state.shown_answer

        @traitlets.validate("head")
        def _check_head(self, proposal: Mapping[str, Any]) -> str:
            return self._state.checked_head(proposal["value"])

        @traitlets.validate("prompt")
        def _check_prompt(self, proposal: Mapping[str, Any]) -> int:
            return self._state.checked_prompt(proposal["value"])

        @traitlets.validate("map")
        def _check_map(self, proposal: Mapping[str, Any]) -> str:
            return self._state.checked_map(proposal["value"])

        def _asked(self, _: Any, request: Mapping[str, Any], buffers: Any) -> None:
            try:
                reply = self._state.reply(request)
            except Exception as error:  # the widget must not wait for ever; the log has it whole
                self.send({"id": request.get("id"), "error": f"{type(error).__name__}: {error}"})
                raise
            self.send({"id": request["id"], **reply})

        def _repr_mimebundle_(self, **kwargs: Any) -> Any:
            """The widget, and what viewers show that have none: no prompt text."""
            made = super()._repr_mimebundle_(**kwargs)
            data, metadata = made if isinstance(made, tuple) else (made, {})
            text = self._state.said
            plain = {"text/plain": text, "text/html": f"<p>{escape(text)}</p>"}
            return {**data, **plain}, metadata

    return Explorer
