import json
import re

import numpy as np
import pytest

from workbench.explore.state import State
from workbench.models.pattern_rows import attention_rows
from workbench.prompts.edits import with_text


def test_maps_have_each_value_at_its_head(state, reader):
    start = state.reply({"do": "start"})
    assert (start["layers"], start["heads"]) == (reader.info.n_layers, reader.info.n_heads)
    assert {"score coarse", "span coarse_restore"} <= {one["key"] for one in start["maps"]}
    found = state.reply({"do": "map", "map": "span coarse_restore", "prompt": 0})
    there = {at: x for at, x in enumerate(found["values"]) if x is not None}
    assert there == {1: 0.25, reader.info.n_heads + 2: -1.5}
    assert found["limit"] == 1
    scores = state.reply({"do": "map", "map": "score coarse", "prompt": 0})
    assert scores["values"][reader.info.n_heads + 3] == 1.3 and scores["limit"] == 1.3
    assert scores["low"][3] == -0.7 and scores["more"]["events"][3] == 12


def test_without_a_run_maps_are_those_of_the_prompt(reader, notes):
    state = State(reader, notes)
    event = notes.events[1]
    asked = {"do": "map", "map": "prompt decision>evidence", "prompt": 1}
    found = np.array(state.reply(asked)["values"]).reshape(state.shape)
    rows = attention_rows(reader, event.clean, [len(event.clean) - 1])
    expected = [layer[:, 0, slice(*event.evidence)].sum(-1).tolist() for layer in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    best = np.abs(state.map({"map": state.first_map, "prompt": 0})["values"]).argmax()
    assert state.first_head == "{}-{}".format(*divmod(int(best), reader.info.n_heads))


def test_attention_is_that_of_the_head_from_the_picked_token(ask, reader, notes):
    event = notes.events[0]
    for query in (None, 7):
        shown = ask("event", "head", query=query)
        place = len(event.clean) - 1 if query is None else query
        rows = attention_rows(reader, event.clean, [place])
        np.testing.assert_allclose(shown["head"]["weights"], rows[1][2, 0], atol=1e-3)
        assert shown["head"]["query"] == place
        assert place in [at for _, at in shown["head"]["queries"]]
    assert "".join(shown["event"]["tokens"]) == event.text() == shown["event"]["own"]
    marks = {tuple(mark[:2]): mark[2] for mark in shown["event"]["marks"]}
    assert marks[event.evidence] == "evidence"
    assert all(marks[option.span] == option.role for option in event.options)


def test_another_text_has_another_answer_and_the_old_one_beside_it(ask, state, reader, notes):
    event = notes.events[0]
    own = ask("event", "answer")
    word = event.text().split()[3]
    text = event.text().replace(word, "zoster", 1)
    other = ask("event", "answer", "head", text=text)
    assert "".join(other["event"]["tokens"]) == text and other["event"]["own"] == event.text()
    before = [one["before"] for one in own["answer"]["options"]]
    assert [one["before"] for one in other["answer"]["options"]] == before
    assert [one["after"] for one in other["answer"]["options"]] != before
    assert state.shown_event == with_text(event, text)
    focus = {one["name"]: one["after"] for one in other["answer"]["readouts"]}
    assert focus["Focus"] == pytest.approx(state.shown_answer.focus)


def test_a_text_that_cannot_be_is_one_line_and_what_was_shown_stays(ask, state, notes):
    ask("event")
    event = notes.events[0]
    evidence = event.pieces().chars(event.evidence)
    refused = ask("event", "answer", text=event.text()[: evidence[0]])
    assert list(refused) == ["error"] and "\n" not in refused["error"]
    assert state.shown_event == event
    long = event.text().replace("note:", "note:" + " fall" * 3000, 1)
    for part in ("event", "answer", "head"):
        assert "tokens, the model takes 2048" in ask(part, text=long)["error"]
    assert state.shown_event == event


@pytest.mark.parametrize("how", ["zero", "mean", "far", "near"])
def test_a_switched_head_moves_the_bars_and_is_listed(ask, state, how):
    own = [one["before"] for one in ask("answer")["answer"]["options"]]
    switched = ask("answer", changes={"1-2": how})["answer"]
    assert [one["before"] for one in switched["options"]] == own
    assert [one["after"] for one in switched["options"]] != own
    assert [one["after"] for one in ask("answer")["answer"]["options"]] == own


def test_events_where_a_head_matters_lead_to_their_prompts(ask, notes):
    page = ask("head")["head"]["page"]
    order = re.findall(r'data-prompt="(\d)"', page)
    assert order == [str(at) for at in reversed(range(len(notes)))]
    assert "data-prompt" not in ask("head", head="0-0")["head"]["page"]
    assert "0.25" in ask("head", head="0-1")["head"]["page"]  # its effect, from the table


def test_bad_heads_prompts_and_maps_are_refused(ask, state):
    assert "is not in model" in ask("head", head="9-0")["error"]
    assert "is not a head" in ask("head", head="0-0,1-1")["error"]
    assert state.checked_head(" 01-2 ") == "1-2"
    assert "counted from 0" in ask("event", prompt=99)["error"]
    assert "is none of" in state.reply({"do": "map", "map": "nothing", "prompt": 0})["error"]


def test_replies_are_plain_json(ask, state):
    whole = [state.reply({"do": "start"}), ask("event", "answer", "head")]
    whole += [
        state.reply({"do": "map", "map": one["key"], "prompt": 0}) for one in whole[0]["maps"]
    ]
    assert len(json.dumps(whole, allow_nan=False)) > 1000
