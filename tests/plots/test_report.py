"""The report must open offline, say what was found, and hold nothing it was not given."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fixtures.browser import chromium
from fixtures.headsets import head_record
from fixtures.synthetic_tables import (
    make_baseline,
    make_patching,
    make_pools,
    make_scores,
    make_trajectory,
)
from plotly.offline import get_plotlyjs

from workbench.analysis.patching.patching import event_counts
from workbench.measures import MEASURES
from workbench.organism.results import results
from workbench.plots.report import flatten, pool_finding, pool_rows, unscored_heads, write_report
from workbench.plots.style import percent, two_digits

NASTY = "<script>alert('x')</script>"


def make_headset() -> dict[str, Any]:
    effect = {"effect": 0.9, "low": 0.8, "high": 1.0, "n": 7}
    known = {
        "decision_share": 0.1,
        "scores": {"coarse": 0.9, "coarse_q": 0.004, "refine": 0.01, "refine_q": None},
        "effects": dict.fromkeys(list(MEASURES)[:4], effect),
    }
    heads = [
        head_record(4, 3, "coarse", 1.0, **known),
        head_record(5, 1, "refine", 1.0, **known),
        head_record(7, 2, "refine", 1.0, **known | {"read_out": True, "decision_share": 0.95}),
    ]
    return {"schema": "workbench.headset/1", "model": {"name": "tiny"}, "heads": heads}


def make_report(folder: Path, **changes: Any) -> str:
    manifest = {
        "versions": {"workbench": "0.1.0", "torch": "2.13"},
        "command": ["workbench", "run", "--seed", "0"],
        "seeds": {"bootstrap": 0},
        "prompts_sha256": "ab" * 32,
        "timings": {"score_s": 1.5, "patch_s": 3.25},
    }
    arguments = {
        "title": "Tiny model on made-up prompts",
        "manifest": manifest,
        "baseline": make_baseline(),
        "counts": event_counts(make_baseline()),
        "scores": make_scores(),
        "patching": make_patching(),
        "pools": make_pools(),
        "headset": make_headset(),
        "trajectory": make_trajectory(),
    }
    path = write_report(folder / "new" / "report.html", **(arguments | changes))
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of the tables above, without prompt text."""
    return make_report(tmp_path_factory.mktemp("report"))


class Page(HTMLParser):
    """What a browser would load, and the text that it would show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action"):
                self.loads.append(value or "")
            if name == "id":
                self.ids.add(value or "")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            # Only what a browser collapses: str.split would take no-break spaces too.
            self.text += re.sub(r"[ \n]+", " ", data)


def test_nothing_is_loaded_and_every_link_leads_somewhere(report: str) -> None:
    page = Page(report)
    assert page.loads
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.loads)
    html = report.replace(get_plotlyjs(), "")
    assert "url(" not in html and "@import" not in html
    assert "default-src 'none'" in html


def test_plotly_is_in_the_file_once_and_every_figure_uses_it(report: str) -> None:
    assert report.count(get_plotlyjs()) == 1
    figures = [script for script in Page(report).scripts if "Plotly.newPlot" in script]
    # plotly.js itself, then four overview figures, six effects at two places, each in
    # probability and as a margin, four scores.
    assert len([script for script in figures if len(script) < 1_000_000]) == 4 + 6 * 2 * 2 + 4


def test_the_same_run_gives_the_same_file(tmp_path: Path, report: str) -> None:
    assert make_report(tmp_path) == report


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    headset = make_headset() | {"model": {"name": NASTY}}
    pools, trajectory = make_pools(), make_trajectory()
    pools["heads"] = NASTY
    trajectory["kind"] = NASTY
    html = make_report(
        tmp_path,
        title=NASTY,
        headset=headset,
        pools=pools,
        trajectory=trajectory,
        manifest={NASTY: {"label": NASTY}},
        prompts=[{"id": NASTY, "clean": {"text": NASTY}, "label": NASTY}],
    )
    assert NASTY not in html
    assert Page(html).text.count(NASTY) >= 7


def test_prompt_text_is_there_only_when_given_and_ids_of_events_never(
    tmp_path: Path, report: str
) -> None:
    assert "Prompts" not in Page(report).text
    prompts = [
        {"id": "p0", "event": 0, "clean": {"text": "pt w/ fever", "input_ids": [9731]}},
        {"id": "p1", "near": "cough"},
    ]
    baseline = make_baseline()
    baseline["id"] = "patient-" + baseline["id"]
    html = make_report(tmp_path, prompts=prompts, baseline=baseline)
    text = Page(html).text
    assert "pt w/ fever" in text
    assert "cough" in text
    assert "9731" not in text
    assert "patient-" not in html


def test_summary_gives_heads_effect_controls_and_counts(report: str) -> None:
    text = Page(report).text
    row = make_pools().query(
        "pool == 'coarse' and positions == 'span' and measure == 'coarse_restore' and set == 'pool'"
    )
    share, low, high = (percent(row[name].iloc[0]) for name in ("effect", "low", "high"))
    assert "Coarse pool: 1 head" in text
    assert "4-3" in text
    assert f"restores {share} of the Focus lost" in text
    assert f"[{low}, {high}]" in text
    assert "over 5 draws" in text
    assert "Far counterfactual: 15 of 16 events are valid pairs." in text


def test_empty_pools_and_tables_are_said_in_words(tmp_path: Path) -> None:
    html = make_report(
        tmp_path, headset={}, pools=pd.DataFrame(), patching=pd.DataFrame(), trajectory=None
    )
    text = Page(html).text
    assert "The coarse pool is empty: no head qualified." in text
    assert "The refine pool is empty: no head qualified." in text
    assert "No head was patched." in text
    assert "No pool was patched as a whole." in text


def test_why_a_pool_is_empty_stands_with_it(tmp_path: Path) -> None:
    why = {"coarse": ["4-3 comes near: 0.02 missing", "what may help: <more>"]}
    html = make_report(tmp_path, headset={}, pools=pd.DataFrame(), why_empty=why)
    assert "<li>4-3 comes near: 0.02 missing</li><li>what may help: &lt;more&gt;</li>" in html


def test_heads_that_no_score_named_are_listed(tmp_path: Path, report: str) -> None:
    assert "since no score of theirs beats its null" not in report
    headset = make_headset()
    headset["method"] = {"thresholds": {"false_discovery_rate": 0.05}}
    for head in headset["heads"]:
        head["scores"] = {"coarse_q": 0.01, "refine_q": None}
    assert unscored_heads(headset) == []
    headset["heads"][0]["scores"] = {"coarse_q": 0.5, "refine_q": 0.9}
    assert unscored_heads(headset) == ["4-3"]
    html = make_report(tmp_path, headset=headset)
    assert "since no score of theirs beats its null" in html


def pools_with(kind: str, **values: float) -> Any:
    pools = make_pools()
    for column, value in values.items():
        pools.loc[pools["set"] == kind, column] = value
    return pools


@pytest.mark.parametrize(
    ("pools", "warning"),
    [
        (pools_with("pool", low=-0.1), "includes 0"),
        (pools_with("random", effect=0.9), "best random draw"),
        (pools_with("norm", high=0.9), "heads with the largest output"),
        (make_pools().query("set == 'pool'"), "Without controls"),
        (make_pools(), None),
    ],
)
def test_weak_findings_alone_carry_a_warning(pools: Any, warning: str | None) -> None:
    warnings = pool_finding("coarse", make_headset(), pools)["warnings"]
    assert any(warning in line for line in warnings) if warning else not warnings


def test_pool_that_was_never_patched_jointly_is_not_given_a_number() -> None:
    finding = pool_finding("coarse", make_headset(), make_pools().iloc[:0])
    assert "was not measured" in finding["text"]
    assert finding["headline"] == "–"


def test_events_are_split_by_the_reason_they_did_not_count() -> None:
    far, near = event_counts(make_baseline())
    assert (far["counted"], far["failed"], far["unmoved"]) == (15, 1, 0)
    assert (near["counted"], near["failed"], near["unmoved"]) == (14, 1, 1)


def test_pool_table_joins_random_draws_and_gives_their_range() -> None:
    pools = make_pools()
    rows = pool_rows(pools)
    assert len(rows) == 2 * 2 * 3
    row = next(row for row in rows if row["set"].startswith("random"))
    draws = pools.query("pool == 'coarse' and positions == 'decision' and set == 'random'")
    effects = draws.query("measure == 'coarse_restore'")["effect"]
    assert row["effects"]["coarse_restore"]["effect"] == pytest.approx(effects.mean())
    assert row["effects"]["coarse_restore"]["low"] == effects.min()


def test_flatten_names_nested_values() -> None:
    tree = {"a": {"b": 1, "c": None}, "command": ["run", "--seed", 0], "d": [{"e": 2}]}
    expected = [("a.b", "1"), ("a.c", "–"), ("command", "run --seed 0"), ("d.0.e", "2")]
    assert flatten(tree) == expected


def test_numbers_have_true_minus_signs_and_no_minus_zero() -> None:
    assert percent(-0.034) == "−3\N{NO-BREAK SPACE}%"
    assert percent(-0.001) == "0\N{NO-BREAK SPACE}%"
    assert two_digits(-0.001) == "0.00"
    assert two_digits(float("nan")) == "–"


OVERLAPS = """() => {
  const found = [];
  for (const plot of document.querySelectorAll(".js-plotly-plot")) {
    const words = plot.querySelectorAll(
      ".gtitle, .gtitle-subtitle, .annotation-text, .xtitle, .ytitle, .legendtext");
    const boxes = [...words].map((one) => [one.textContent, one.getBoundingClientRect()]);
    const edge = plot.getBoundingClientRect();
    boxes.forEach(([name, a], at) => {
      if (a.width && (a.right > edge.right + 2 || a.left < edge.left - 2))
        found.push(name + " is cut off");
      for (const [other, b] of boxes.slice(at + 1)) {
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (across > 3 && down > 3) found.push(name + " lies on " + other);
      }
    });
  }
  return [document.querySelectorAll(".gtitle").length, found];
}"""


ALL_DRAWN = """() => [...document.querySelectorAll(".plotly-graph-div")].every(
  (plot) => plot.querySelector(".main-svg") && plot._fullLayout.width <= plot.clientWidth + 1)"""


def test_titles_keep_off_one_another_at_the_widths_that_readers_have(tmp_path: Path) -> None:
    names = ("areas", "curves", "stability", "sample_size", "chain", "chain_effects")
    make_report(tmp_path, evidence={name: results(name) for name in names})
    for width in (800, 1200):
        with chromium(width, height=900) as page:
            page.goto((tmp_path / "new" / "report.html").as_uri())
            page.wait_for_function(ALL_DRAWN)
            seen, found = page.evaluate(OVERLAPS)
            assert seen > 10 and found == []


def test_a_finding_tells_the_effect_in_log_odds_too() -> None:
    pools = make_pools()
    chief = pools["measure"] == "coarse_restore_margin"
    pools.loc[chief & (pools["set"] == "pool"), ["effect", "low", "high"]] = [0.16, 0.1, 0.23]
    text = pool_finding("coarse", make_headset(), pools)["text"]
    share = ", by which heads are pooled: 16\N{NO-BREAK SPACE}% [10\N{NO-BREAK SPACE}%"
    assert f"In log-odds{share}" in text
