import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.plots import path_sankey
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


def links(figure) -> dict[tuple[str, str], tuple[float, str]]:
    link, label = figure.data[0].link, figure.data[0].node.label
    return {
        (label[a], label[b]): (value, text)
        for a, b, value, text in zip(
            link.source, link.target, link.value, link.customdata, strict=True
        )
    }


def test_bands_are_the_paths_that_exclude_nothing_and_their_heads_on_the_answer():
    drawn = links(path_sankey(PATHS, PATCHING, POOLS))
    assert set(drawn) == {
        ("0-1", "2-2 2-3"),
        ("0-1", "2-3"),
        ("0-1", "answer"),
        ("2-2 2-3", "answer"),
    }
    assert drawn["0-1", "2-3"][0] == pytest.approx(0.2)  # a width; the sign is in the text
    assert drawn["0-1", "2-3"][1] == "0-1 → query of 2-3: −0.20 [−0.30, −0.10]"
    assert drawn["0-1", "answer"][0] == pytest.approx(0.9)  # of the verifying half


def test_nodes_have_the_colour_of_their_pool():
    node = path_sankey(PATHS, PATCHING, POOLS).data[0].node
    colours = dict(zip(node.label, node.color, strict=True))
    assert colours == {
        "0-1": POOL_COLOUR["coarse"],
        "2-2 2-3": READ_OUT,
        "2-3": CONTROL,
        "answer": CONTROL,
    }


def test_no_certain_path_gives_a_figure_that_says_so():
    figure = path_sankey(PATHS.iloc[2:3], PATCHING, POOLS)
    assert "excludes 0" in figure.layout.annotations[0].text


def test_bad_tables_and_measures_are_refused():
    with pytest.raises(InputError, match="'nonsense' is not one of"):
        path_sankey(PATHS, PATCHING, POOLS, "nonsense")
    with pytest.raises(InputError, match="column 'route' is missing"):
        path_sankey(PATHS.drop(columns="route"), PATCHING, POOLS)
