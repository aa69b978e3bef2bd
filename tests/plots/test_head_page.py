"""A head's page: the right numbers, text only where it was given, and nothing unescaped."""

import json
import re
from dataclasses import dataclass, field, replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fixtures.browser import chromium
from fixtures.headsets import head_record
from fixtures.synthetic_tables import make_baseline, make_patching, make_pools, make_scores

from workbench.plots.head_page import attention_block, head_page
from workbench.plots.report import write_report

WORDS = ["note", ":", " zoster", "\n", " <b>Fever</b>", " A", " answer:"]
REGIONS = ("first token", "rest", "evidence", "rest", "gold", "near", "decision")


@dataclass(frozen=True)
class Made:
    """A look by hand: two queries over seven tokens."""

    layer: int = 4
    head: int = 3
    id: str = "p7"
    event: int = 1
    queries: tuple = (("decision", 6), ("gold D01", 4))
    weights: np.ndarray = field(
        default_factory=lambda: np.array(
            [[0.5, 0.0, 0.25, 0.0, 0.2, 0.05, 0.0], [0.1, 0.0, 0.9, 0.0, 0.0, 0.0, 0.0]]
        )
    )
    regions: tuple = REGIONS
    summary: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame({"evidence": [0.25], "gold": [0.2]}, ["decision"])
    )
    options: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(
            {
                "label": ["D02", "D01"],
                "role": ["near", "gold"],
                "reads_evidence": [0.1, 0.9],
                "logit": [-0.25, 1.5],
            }
        )
    )
    notes: tuple = ("shares its keys and values with 4-2",)


@pytest.fixture
def page():
    effect = {"effect": 0.9, "low": 0.8, "high": 1.0, "n": 7}
    entry = head_record(4, 3, "coarse", 1.0, effects={"coarse_restore": effect})
    paths = pd.DataFrame(
        {
            "src_layer": [1, 4, 4, 4],
            "src_head": [0, 3, 3, 3],
            "dst_heads": ["4-3", "6-1", "7-7", "6-1"],
            "route": ["q", "v", "v", "v"],
            "measure": "coarse_restore_margin",
            "effect": [0.3, 0.2, 0.2, 0.2],
            "low": [0.2, 0.1, -0.1, 0.1],
            "high": 0.4,
            "ends": ["pooled", "pooled", "pooled", "4-3 > pooled"],
        }
    )
    events = pd.DataFrame({"id": ["p9"], "event": [2], "coarse_restore": [0.75]})
    return head_page(Made(), words=WORDS, entry=entry, paths=paths, events=events)


def test_a_path_that_was_asked_for_by_name_too_is_there_once(page):
    assert page.count("4-3 → 6-1") == 1


def test_numbers_of_the_head_are_there(page):
    assert "head 4-3" in page
    assert "coarse" in page
    assert "prompt p7, event 1" in page
    assert "0.90 [0.80, 1.00]" in page
    assert "1-0 → 4-3" in page
    assert "4-3 → 6-1" in page
    assert "7-7" not in page  # its interval holds 0
    assert "p9" in page
    assert "0.75" in page
    assert page.index("D01</td>") < page.index("D02</td>")  # gold first
    assert "shares its keys and values with 4-2" in page


def test_text_shows_the_attention_of_the_decision_without_scripts(page):
    spans = re.findall(r'<span style="([^"]*)" title="([^"]*)">([^<]*)</span>', page)
    assert unescape("".join(word for _, _, word in spans)) == "".join(WORDS)
    evidence = next(one for one in spans if "zoster" in one[2])
    assert evidence[1] == "0.250 on token 2, evidence"
    assert "ff" in evidence[0].split("border")[0]  # the largest behind the first token: full colour
    assert "<b>Fever" not in page


def test_other_queries_are_held_for_the_choice(page):
    rows = json.loads(unescape(re.search(r'data-rows="([^"]*)"', page)[1]))
    assert rows[1][2] == 900
    assert "gold D01 (token 4)" in page
    block = attention_block(WORDS, Made().queries, Made().weights, REGIONS, "gold D01")
    assert "0.900 on token 2" in block


def test_no_text_without_words():
    page = head_page(Made())
    assert "zoster" not in page
    assert "Fever" not in page
    assert "data-rows" not in page
    assert "0.25" in page


def test_tables_of_other_heads_are_left_out():
    own = head_page(Made(), effects=make_patching(), scores=make_scores())
    assert "Effects when it is patched alone" in own
    none = head_page(replace(Made(), layer=90), effects=make_patching(), scores=make_scores())
    assert "Effects when it is patched alone" not in none
    assert "Scores" not in none


WHERE = """([layer, head]) => {
  const plot = document.getElementById("figure-coarse_restore-span");
  plot.scrollIntoView({block: "center"});
  const box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;
  return [
    box.left + xaxis._offset + xaxis.d2p(head), box.top + yaxis._offset + yaxis.d2p(layer)
  ];
}"""
"""The middle of a heat map's cell on the screen."""


def looks_of(layer: int, head: int) -> dict[str, pd.DataFrame]:
    """Tables of the step `looks` for one head."""
    own = {"layer": layer, "head": head}
    seen = pd.DataFrame(
        {
            **own,
            "what": ["attention", "attention", "logit"],
            "source": ["gold", "gold", "decision"],
            "target": ["evidence", "rest", "gold"],
            "mean": [0.37, 0.63, 1.25],
            "q25": 0.3,
            "q75": 0.7,
            "n": 12,
            "half": "verify",
        }
    )
    top = {"id": ["patient-3"], "event": [0], "line": [4], "chosen": ["coarse_restore"]}
    top = pd.DataFrame({**own, **top, "coarse_restore": [0.88]})
    rows = {"id": "patient-3", "event": 0, "query": "decision", "position": [2], "weight": [0.4]}
    return {"looks": seen, "look_events": top, "look_rows": pd.DataFrame({**own, **rows})}


def make_report(path: Path, **more) -> Path:
    effect = {"effect": 0.9, "low": 0.8, "high": 1.0, "n": 7}
    head = head_record(4, 3, "coarse", 1.0, effects={"coarse_restore": effect})
    return write_report(
        path,
        title="Made-up run",
        manifest={},
        baseline=make_baseline(),
        counts=[{"variant": "far", "events": 9, "counted": 9, "failed": 0, "unmoved": 0}],
        scores=make_scores(),
        patching=make_patching(),
        pools=make_pools(),
        headset={"model": {"name": "tiny"}, "heads": [head]},
        **more,
    )


def test_report_holds_text_of_top_events_when_it_is_given(tmp_path):
    words = {("patient-3", 0): list(zip(WORDS, REGIONS, strict=True))}
    plain = make_report(tmp_path / "plain.html", looks=looks_of(4, 3)).read_text()
    plain = plain[plain.index("<body>") :]  # plotly.js stands before it
    assert "zoster" not in plain
    assert "patient-3" not in plain
    assert "line of prompts.jsonl" in plain
    full = make_report(tmp_path / "full.html", looks=looks_of(4, 3), texts=words).read_text()
    assert 'title="0.400">' in full
    assert "Where it looks: prompt patient-3, event 0, from the decision" in full
    spans = re.findall(r"data-text>(.*?)</div>", full, re.DOTALL)
    assert unescape(re.sub("<[^>]*>", "", spans[0])) == "".join(WORDS)


def test_a_click_on_a_heat_map_opens_the_page_of_the_head(tmp_path):
    path = make_report(tmp_path / "report.html", looks=looks_of(4, 3))
    with chromium(width=1200, height=900) as page:
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("#figure-coarse_restore-span .nsewdrag", state="attached")
        own, note = page.locator("#page-4-3"), page.locator("#head-note")
        assert not own.is_visible()
        click(page, 1, 1)
        assert note.inner_text().startswith("Head 1-1 has no page")
        assert not page.url.endswith("#head-1-1")
        click(page, 4, 3)
        assert page.url.endswith("#head-4-3")
        assert own.is_visible()
        assert not note.is_visible()
        for said in ("0.37", "1.25", "0.88", "12 events", "0.90"):
            assert said in own.inner_text()
        page.get_by_text("back to the heat maps").click()
        assert page.url.endswith("#effects")
        page.goto("about:blank")
        page.goto(f"{path.as_uri()}#head-4-3")
        assert own.is_visible()
        assert not wrong


def click(page, layer: int, head: int) -> None:
    x, y = page.evaluate(WHERE, [layer, head])
    page.mouse.move(x, y)
    page.wait_for_timeout(150)  # plotly counts a click on what is hovered over
    page.mouse.click(x, y)
    page.wait_for_timeout(400)
