"""A head's page: the right numbers, text only where it was given, and nothing unescaped."""

import json
import re
from dataclasses import dataclass, field, replace
from html import unescape

import numpy as np
import pandas as pd
import pytest
from fixtures.headsets import head_record
from fixtures.synthetic_tables import make_patching, make_scores

from workbench.plots.head_page import attention_block, head_page

WORDS = ["note", ":", " flu", "\n", " <b>Fever</b>", " A", " answer:"]
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
            "src_layer": [1, 4, 4],
            "src_head": [0, 3, 3],
            "dst_heads": ["4-3", "6-1", "7-7"],
            "route": ["q", "v", "v"],
            "measure": "coarse_restore_margin",
            "effect": [0.3, 0.2, 0.2],
            "low": [0.2, 0.1, -0.1],
            "high": 0.4,
        }
    )
    events = pd.DataFrame({"id": ["p9"], "event": [2], "coarse_restore": [0.75]})
    return head_page(Made(), words=WORDS, entry=entry, paths=paths, events=events)


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
    evidence = next(one for one in spans if "flu" in one[2])
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
    assert "flu" not in page
    assert "Fever" not in page
    assert "data-rows" not in page
    assert "0.25" in page


def test_tables_of_other_heads_are_left_out():
    own = head_page(Made(), effects=make_patching(), scores=make_scores())
    assert "Effects when it is patched alone" in own
    none = head_page(replace(Made(), layer=90), effects=make_patching(), scores=make_scores())
    assert "Effects when it is patched alone" not in none
    assert "Scores" not in none
