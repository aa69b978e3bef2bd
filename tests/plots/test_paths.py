from itertools import combinations

import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.plots import path_graph
from workbench.plots.paths import LABEL, STRONGEST
from workbench.plots.style import CONTROL, POOL_COLOUR, READ_OUT


def path(source, target, route, effect, low, high, measure="coarse_restore"):
    return {
        **dict(zip(("src_layer", "src_head"), source, strict=True)),
        **{"dst_layer": int(target[0]), "dst_heads": target},
        **{"route": route, "measure": measure, "positions": "span", "half": "verify"},
        **{"effect": effect, "low": low, "high": high},
    }


def whole(layer, head, effect, half="all"):
    row = {"layer": layer, "head": head, "half": half, "effect": effect, "low": 0.0, "high": 1.0}
    return {**row, "measure": "coarse_restore", "positions": "span"}


PATHS = pd.DataFrame(
    [
        path((0, 1), "2-2 2-3", "k", 0.4, 0.2, 0.5),
        path((0, 1), "2-3", "q", -0.2, -0.3, -0.1),
        path((0, 1), "2-0", "q", 0.3, -0.1, 0.5),  # may be nothing
        path((0, 1), "3-0", "q", 0.001, 0.0005, 0.002),  # too thin to see
        path((0, 1), "3-1", "q", 0.9, 0.8, 1.0, "refine_reduce"),
    ]
)
PATCHING = pd.DataFrame(
    [whole(0, 1, 0.1), whole(0, 1, 0.9, "verify"), whole(2, 2, 0.6), whole(1, 1, 0.7)]
)
POOLS = {(0, 1): "coarse", (2, 2): "refine read-out"}


def nodes(figure):
    """The markers of the strongest paths, by name."""
    dots = next(trace for trace in figure.data if trace.mode == "markers+text")
    told = zip(dots.hovertext, dots.marker.color, dots.x, strict=True)
    return dict(zip(dots.text, told, strict=True))


def lines(figure, visible=True) -> dict[str, tuple[float, str]]:
    """Width and dash of each line, by what pointing at it says."""
    return {
        trace.hovertext: (trace.line.width, trace.line.dash)
        for trace in figure.data
        if trace.mode == "lines" and trace.visible is visible and trace.hovertext
    }


def test_lines_are_the_paths_that_exclude_nothing_and_their_heads_on_the_answer():
    drawn = lines(path_graph(PATHS, PATCHING, POOLS))
    assert set(drawn) == {
        "0-1 → key of 2-2 2-3: 0.40 [0.20, 0.50]",
        "0-1 → query of 2-3: −0.20 [−0.30, −0.10]",
        "0-1, whole head: 0.90 [0, 1.00]",  # of the verifying half
        "2-2, whole head: 0.60 [0, 1.00]",
    }
    negative = drawn["0-1 → query of 2-3: −0.20 [−0.30, −0.10]"]
    positive = drawn["0-1 → key of 2-2 2-3: 0.40 [0.20, 0.50]"]
    assert (negative[1], positive[1]) == ("dot", "solid")
    assert negative[0] < positive[0] < drawn["0-1, whole head: 0.90 [0, 1.00]"][0]


def test_layers_run_to_the_right_and_nodes_have_the_colour_of_their_pool_and_list_their_paths():
    drawn = nodes(path_graph(PATHS, PATCHING, POOLS))
    assert {name: colour for name, (_, colour, _) in drawn.items()} == {
        "0-1": POOL_COLOUR["coarse"],
        "2-2 2-3": READ_OUT,
        "2-3": CONTROL,
        "answer": CONTROL,
    }
    assert drawn["0-1"][2] < drawn["2-3"][2] == drawn["2-2 2-3"][2] < drawn["answer"][2]
    assert "query of 2-3: −0.20" in drawn["2-3"][0]
    assert "key of" not in drawn["2-3"][0]


def test_routes_and_effects_stand_on_the_lines():
    figure = path_graph(PATHS, PATCHING, POOLS)
    assert [note.text for note in figure.layout.annotations] == ["key 0.40", "query −0.20"]
    small = PATHS.assign(**{name: PATHS[name] / 1000 for name in ("effect", "low", "high")})
    figure = path_graph(small, PATCHING, POOLS)
    assert [note.text for note in figure.layout.annotations] == ["key 0.0004", "query −0.0002"]


def test_labels_lie_beside_one_another():
    many = pd.DataFrame(
        [
            path((0, head), f"2-{to}", route, 0.4, 0.3, 0.5)
            for head, to, route in [(0, 0, "k"), (0, 0, "v"), (0, 1, "k"), (1, 0, "k"), (1, 1, "q")]
        ]
    )
    figure = path_graph(many, PATCHING.iloc[:0], {})
    placed = [(note.x, note.y) for note in figure.layout.annotations]
    width, height = LABEL
    assert len(placed) == 5
    for (a, b), (c, d) in combinations(placed, 2):
        assert abs(a - c) >= width or abs(b - d) >= 0.9 * height


def test_a_button_brings_the_paths_beside_the_strongest():
    many = pd.DataFrame(
        [path((0, head), f"2-{head}", "q", 0.1 + head / 10, 0.05, 2.0) for head in range(12)]
    )
    figure = path_graph(many, PATCHING.iloc[:0], {})
    assert len(lines(figure)) == STRONGEST
    assert len(lines(figure, visible=False)) == 12
    first, every = figure.layout.updatemenus[0].buttons
    assert (first.label, every.label) == (f"strongest {STRONGEST}", "all 12 paths")
    assert sum(every.args[0]["visible"]) == 13  # and the nodes
    assert not path_graph(PATHS, PATCHING, POOLS).layout.updatemenus


def test_no_certain_path_gives_a_figure_that_says_so():
    figure = path_graph(PATHS.iloc[2:3], PATCHING, POOLS)
    assert "excludes 0" in figure.layout.annotations[0].text


def test_bad_tables_and_measures_are_refused():
    with pytest.raises(InputError, match="'nonsense' is not one of"):
        path_graph(PATHS, PATCHING, POOLS, "nonsense")
    with pytest.raises(InputError, match="column 'route' is missing"):
        path_graph(PATHS.drop(columns="route"), PATCHING, POOLS)
