"""What the explorer shows, computed: requests of the widget are answered with plain data.

A request is {"do": "start"}, {"do": "map", "map": key, …} or {"do": "view", "parts": […], …}; the
last two say which `prompt` is meant, by its place, and its `text` where another was typed.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from workbench.analysis.looks.look import Looks, query_tokens
from workbench.errors import InputError
from workbench.explore import maps, pages, prompt_maps
from workbench.explore.answers import SWITCHES, answer_part, answered
from workbench.heads import Head, as_head, head_name
from workbench.headsets.headset import HeadSet
from workbench.markup import ROLE_COLOUR
from workbench.models.hooked import HookedModel
from workbench.plots.head_page import ATTENTION
from workbench.prompts.edits import with_text
from workbench.prompts.prompt import DecisionEvent, PromptSet

COLOURS = ROLE_COLOUR | {"attention": ATTENTION, "readout": "#5b6470", "step": ATTENTION}
"""Of roles, of what is looked at, of Focus and Confusion, and of the ends of chain steps."""
_T = TypeVar("_T")


class State:
    """A model and prompts, the tables of a run where there is one, and what was computed last."""

    def __init__(
        self,
        model: HookedModel,
        prompts: PromptSet,
        tables: Mapping[str, pd.DataFrame] = {},
        headset: HeadSet | None = None,
    ) -> None:
        if model.tokenizer is not None:
            prompts = prompts.with_tokenizer(model)
        self.model, self.prompts, self.tables = model, prompts, tables
        self.shape = (model.info.n_layers, model.info.n_heads)
        self.headset = {} if headset is None else headset.model_dump(mode="json")
        self.places = {(one.id, one.event): at for at, one in enumerate(prompts)}
        self.table_maps = maps.TableMaps(tables, self.shape)
        self._looks: Recent[Looks] = Recent(2)
        self._events: Recent[DecisionEvent] = Recent(2)
        self._answers: Recent[Any] = Recent(4)
        self._tops: dict[Head, pd.DataFrame | None] = {}
        self.shown_event = prompts.events[0]
        self._changes: dict[str, str] = {}

    @property
    def shown_answer(self) -> Any:
        """The answer to the event that is shown, with its heads switched."""
        return answered(self.model, self.shown_event, self._changes)

    @property
    def said(self) -> str:
        """One line on what is explored, without any prompt text."""
        info = self.model.info
        by_pool: dict[str, list[str]] = {}
        for name, mark in maps.pools(self.headset).items():
            by_pool.setdefault(mark["pool"], []).append(name)
        pools = "".join(f"; {pool}: {', '.join(names)}" for pool, names in by_pool.items())
        return (
            f"Explorer of {info.name}: {info.n_layers} layers of {info.n_heads} heads, "
            f"{len(self.prompts)} decision events{pools}. Run the cell to look around."
        )

    @property
    def choices(self) -> list[maps.Choice]:
        """Every map that can be picked."""
        return [*self.table_maps.choices, *prompt_maps.CHOICES]

    @property
    def first_map(self) -> str:
        """What restores Focus over the span where that was measured, else the first of all."""
        keys = [choice.key for choice in self.choices]
        return "span coarse_restore" if "span coarse_restore" in keys else keys[0]

    @property
    def first_head(self) -> str:
        """The one with the largest value on the first map."""
        found = self.map({"map": self.first_map, "prompt": 0})["values"]
        values = [abs(value or 0.0) for value in found]
        return head_name(*divmod(values.index(max(values)), self.shape[1]))

    def checked_head(self, name: str) -> str:
        """The head's name, as tables write it.

        Raises:
            InputError: it is none of the model's.
        """
        head = as_head(name)
        self.model.check_head(*head)
        return head_name(*head)

    def checked_prompt(self, at: int) -> int:
        """The place of an event.

        Raises:
            InputError: there are fewer.
        """
        if not 0 <= at < len(self.prompts):
            raise InputError(
                f"prompt {at}: there are {len(self.prompts)} decision events, counted from 0"
            )
        return at

    def checked_map(self, key: str) -> str:
        """The key of a map.

        Raises:
            InputError: there is none such; the message lists them.
        """
        keys = [choice.key for choice in self.choices]
        if key not in keys:
            raise InputError(f"map {key!r} is none of {', '.join(map(repr, keys))}")
        return key

    def reply(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request; {"error": line} where the input is bad."""
        try:
            return {"start": self.start, "map": self.map, "view": self.view}[request["do"]](request)
        except InputError as error:
            return {"error": str(error)}

    def start(self, _: Mapping[str, Any] = {}) -> dict[str, Any]:
        """What does not change while one explores."""
        return {
            "layers": self.shape[0],
            "heads": self.shape[1],
            "head": self.first_head,
            "palette": maps.palette(),
            "colours": COLOURS,
            "pools": maps.pools(self.headset),
            "maps": [asdict(choice) for choice in self.choices],
            "prompts": pages.titles(self.prompts, self.tables.get("baseline")),
            "switches": SWITCHES,
            "own_text": self.model.tokenizer is not None,
        }

    def map(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One value per head: of the tables, or of the prompt as its text stands."""
        key = self.checked_map(request["map"])
        if key.startswith("prompt "):
            looks = self._look(request["prompt"], request.get("text"))
            return asdict(prompt_maps.prompt_map(looks, key)) | {"of_prompt": True}
        return asdict(self.table_maps.map(key)) | {"of_prompt": False}

    def view(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Parts of what is shown: "event", "answer" and "head"."""
        at, text, changes = request["prompt"], request["text"], request["changes"]
        event = self._event(at, text)
        makers: dict[str, Callable[[], Any]] = {
            "event": lambda: self._event_part(at, event),
            "answer": lambda: answer_part(
                self._answer(at, None, {}), self._answer(at, text, changes), event
            ),
            "head": lambda: self._head_part(at, text, request["head"], request["query"]),
        }
        made = {part: makers[part]() for part in request["parts"]}
        self.shown_event, self._changes = event, dict(changes)
        return made

    def _event_part(self, at: int, event: DecisionEvent) -> dict[str, Any]:
        marks = [[*event.evidence, "evidence", "evidence"]]
        if event.fine_evidence:
            marks.append([*event.fine_evidence, "evidence", "fine evidence"])
        marks += [[*one.span, one.role, f"{one.role}: {one.label}"] for one in event.options]
        steps = [query for query in query_tokens(event, self.model.tokenizer) if "step" in query[0]]
        marks += [[place, place + 1, "step", f"end of {name}"] for name, place in steps]
        own_text = self.model.tokenizer is not None
        return {
            "tokens": event.str_tokens() if own_text else [f"⟨{token}⟩" for token in event.clean],
            "marks": marks,
            "own": self.prompts.events[at].text() if own_text else "",
        }

    def _head_part(self, at: int, text: str | None, name: str, query: int | None) -> dict[str, Any]:
        head = as_head(self.checked_head(name))
        looks = self._look(at, text)
        last = len(looks.event.clean) - 1
        query = last if query is None or query > last else query
        named = {place for _, place in looks.queries}
        queries = [*looks.queries]
        if query not in named:
            queries.append((f"token {query}", query))
        return {
            "query": query,
            "queries": queries,
            "weights": np.round(looks.row(head, query).astype(float), 4).tolist(),
            "page": pages.page(looks, head, self.tables, self.headset, self._top(head)),
        }

    def _top(self, head: Head) -> pd.DataFrame | None:
        """Where the head matters most, by the tables alone: the same whatever is shown."""
        if head not in self._tops:
            self._tops[head] = pages.top_events(self.tables, head, self.places)
        return self._tops[head]

    def _event(self, at: int, text: str | None) -> DecisionEvent:
        own = self.prompts.events[self.checked_prompt(at)]
        if text is None:
            return own
        return self._events.get((at, text), lambda: self._edited(own, text))

    def _edited(self, own: DecisionEvent, text: str) -> DecisionEvent:
        event, most = with_text(own, text), self.model.context_length
        if most is not None and len(event.clean) > most:
            raise InputError(f"the text has {len(event.clean)} tokens, the model takes {most}")
        return event

    def _look(self, at: int, text: str | None) -> Looks:
        return self._looks.get((at, text), lambda: Looks.of(self.model, self._event(at, text)))

    def _answer(self, at: int, text: str | None, changes: Mapping[str, str]) -> Any:
        key = (at, text, tuple(sorted(changes.items())))
        event = self._event(at, text)
        return self._answers.get(key, lambda: answered(self.model, event, changes))


class Recent(OrderedDict[Any, _T]):
    """The newest few things that were made, by key."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def get(self, key: Any, make: Callable[[], _T]) -> _T:  # type: ignore[override]
        """The thing of this key, made where it is not there."""
        if key not in self:
            self[key] = make()
        self.move_to_end(key)
        while len(self) > self.most:
            self.popitem(last=False)
        return self[key]
