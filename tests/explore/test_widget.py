import json
import sys
from types import SimpleNamespace

import pytest

import workbench as wb
from workbench.errors import InputError
from workbench.explore import opened
from workbench.explore import widget as widget_module
from workbench.explore.widget import explore


@pytest.fixture
def widget(reader, notes):
    pytest.importorskip("anywidget")
    return explore(reader, notes)


def test_what_a_notebook_saves_is_small_and_holds_no_text(widget, notes):
    saved = json.dumps(widget.get_state())
    shown = json.dumps(widget._repr_mimebundle_()[0])
    assert len(saved) < 60_000 and len(shown) < 1_000
    word = notes.events[0].text().split()[3]
    labels = [option.label for option in notes.events[0].options]
    assert not any(text in shown for text in (word, *labels))
    assert not any(label in saved for label in labels)
    assert "Run the cell" in json.loads(shown)["text/html"]


def test_requests_are_answered_with_their_id(widget, monkeypatch):
    sent = []
    monkeypatch.setattr(widget, "send", lambda content, buffers=None: sent.append(content))
    widget._handle_custom_msg({"id": "a-0", "do": "start"}, [])
    assert sent[-1]["id"] == "a-0" and sent[-1]["heads"] == 4
    widget._handle_custom_msg({"id": "a-1", "do": "map", "map": "nothing", "prompt": 0}, [])
    assert "is none of" in sent[-1]["error"]
    widget._handle_custom_msg({"id": "a-2", "do": "what"}, [])  # the log has the rest
    assert sent[-1]["id"] == "a-2" and "KeyError" in sent[-1]["error"]


def test_head_prompt_and_map_can_be_set_from_python(widget):
    widget.head, widget.prompt = "1-3", 2
    with pytest.raises(InputError, match="is not in model"):
        widget.head = "7-0"
    with pytest.raises(InputError, match="counted from 0"):
        widget.prompt = 3
    assert (widget.head, widget.prompt) == ("1-3", 2)


def test_the_model_of_a_run_is_that_which_its_manifest_names(monkeypatch, tmp_path, reader):
    manifest, asked = {"model": {"name": wb.bundled_model_path().name, "dtype": "float16"}}, []
    monkeypatch.setattr(opened.RunFolder, "open", lambda folder: SimpleNamespace(manifest=manifest))
    monkeypatch.setattr(
        opened.HookedModel, "load", lambda source, **how: asked.append((source, how)) or reader
    )
    assert opened.model_of_run(tmp_path) is reader
    manifest["model"]["name"] = "smollm2"
    opened.model_of_run(tmp_path)
    assert [source for source, _ in asked] == [wb.bundled_model_path(), "smollm2"]
    assert {how["dtype"] for _, how in asked} == {"float16"}

    def load(source, **_):
        raise InputError("no such model")

    monkeypatch.setattr(opened.HookedModel, "load", load)
    with pytest.raises(InputError, match=r"'smollm2' is needed, give model= \(no such"):
        opened.model_of_run(tmp_path)


def test_a_run_of_another_seed_opens(tmp_path, reader, notes):
    out = tmp_path / "run"
    wb.open_run(out, model=reader, prompts=notes, config=wb.RunConfig(seed=3))
    assert len(opened.opened(out, None, reader).prompts) == len(notes)


def test_what_is_missing_is_said_in_one_line(reader, notes, monkeypatch):
    with pytest.raises(InputError, match="give prompts"):
        explore(reader)
    with pytest.raises(InputError, match="goes with a run"):
        explore(reader, notes, model=reader)
    with pytest.raises(InputError, match="there is no run in nowhere; if it is a model"):
        explore("nowhere")
    monkeypatch.setitem(sys.modules, "anywidget", None)
    widget_module._widget_class.cache_clear()
    with pytest.raises(InputError, match=r"wb\.explore needs the anywidget package: .*notebooks"):
        wb.explore(reader, notes)
