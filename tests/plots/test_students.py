import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from workbench.distill.arms import ARMS as ARMS_OF_A_STUDY
from workbench.errors import InputError
from workbench.plots import students
from workbench.plots.students_page import (
    TABLES,
    arm_rows,
    read_tables,
    term_rows,
    write_students_page,
)

ARMS = {"cot": 0.05, "mechanistic": 0.85, "random": 0.6}


def per_student(panels) -> pd.DataFrame:
    rows = [("teacher", "teacher", 0, *what[:2], 0.96, 0.95, 0.97) for what in panels]
    for arm, value in ARMS.items():
        for seed in range(3):
            for setting, measure, _ in panels:
                low, high = value - 0.02, value + 0.02
                rows.append((f"{arm}-{seed}", arm, seed, setting, measure, value, low, high))
    return pd.DataFrame(rows, columns=students.MEASURED)


def over_seeds() -> pd.DataFrame:
    rows = []
    sides = {"metrics": students.ACCURACY, "trajectories": students.DISTANCES}
    for of, panels in {**sides, "causal": students.EFFECTS}.items():
        for setting, measure, _ in panels:
            for arm, value in ARMS.items():
                rows.append((of, arm, "", setting, measure, value, value - 0.1, value + 0.1, 3))
                if arm != "cot":
                    gain = value - ARMS["cot"]
                    rows.append((of, arm, "cot", setting, measure, gain, gain - 0.1, gain, 3))
    return pd.DataFrame(rows, columns=students.OVER_SEEDS)


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    steps = [(f"{arm}-{k}", arm, k, step) for arm in ARMS for k in range(2) for step in (0, 200)]
    readouts = pd.DataFrame(steps, columns=["student", "arm", "seed", "step"])
    readouts["accuracy"] = np.where(readouts["step"] > 0, readouts["seed"] * 0.5, 0.0)
    return {
        "metrics": per_student(students.ACCURACY),
        "trajectories": per_student(students.DISTANCES),
        "causal": per_student(students.EFFECTS),
        "readouts": readouts,
        "speed": pd.DataFrame({"student": ["cot-0"], "level": [0.87]}),
        "seeds": over_seeds(),
    }


def test_the_thick_curve_is_the_mean_of_an_arm(tables):
    figure = students.training_curves(tables["readouts"], tables["speed"])
    thick = {trace.name: list(trace.y) for trace in figure.data if trace.name}
    assert thick["mechanistic (2)"] == [0.0, 0.25]
    assert [shape.y0 for shape in figure.layout.shapes] == [0.87]


def test_arms_stand_beside_each_other_with_their_students_and_intervals(tables):
    figure = students.student_accuracy(tables["metrics"], tables["seeds"])
    direct = [trace for trace in figure.data if trace.xaxis == "x"]
    points = {trace.text[0]: trace for trace in direct if trace.text is not None}
    assert list(points) == ["cot-0", "mechanistic-0", "random-0"]
    assert list(points["mechanistic-0"].x.round()) == [1, 1, 1]
    means = {trace.name: trace for trace in direct if trace.name}
    assert means["random"].y[0] == 0.6
    assert means["random"].error_y.array[0] == pytest.approx(0.1)
    assert means["cot"].marker.color == students.MAIN_COLOURS["cot"]
    assert {shape.y0 for shape in figure.layout.shapes} == {0.96}


def longer(table: pd.DataFrame) -> pd.DataFrame:
    """With students of `random` that were trained for 5,000 steps."""
    return pd.concat([table, table[table["arm"] == "random"].replace("random", "random@5000")])


def test_an_arm_at_other_steps_keeps_its_colour_and_has_open_marks(tables, tmp_path):
    tables |= {name: longer(tables[name]) for name in ("metrics", "seeds", "readouts")}
    figure = students.student_accuracy(tables["metrics"], tables["seeds"])
    marks = {trace.name: trace.marker for trace in figure.data if trace.name}
    assert marks["random@5000"].color == marks["random"].color
    assert [marks[arm].symbol for arm in ("random", "random@5000")] == ["diamond", "diamond-open"]
    curves = students.training_curves(tables["readouts"]).data
    dashes = {trace.name: trace.line.dash for trace in curves if trace.name}
    assert dashes["random (2)"] == "solid" and dashes["random@5000 (2)"] == "dot"
    shown = students.student_differences(tables["seeds"]).data[0]
    assert dict(zip(shown.y, shown.marker.symbol, strict=True))["random@5000"] == "circle-open"
    assert "After an @" in write_students_page(tmp_path / "students.html", tables).read_text()


def test_arms_of_a_whole_study_have_colours_of_their_own():
    arms = [*ARMS_OF_A_STUDY, "cot@5760", "hidden@4560"]
    colours = students.arm_colours(arms)
    assert len(set(colours.values())) == len(ARMS_OF_A_STUDY)
    assert colours["cot@5760"] == colours["cot"]


def test_differences_are_drawn_for_each_arm_they_are_taken_from(tables):
    figure = students.student_differences(tables["seeds"])
    assert [trace.xaxis for trace in figure.data] == ["x", "x2"]  # only cot; direct and chain
    assert [(line.xref, line.yref) for line in figure.layout.shapes] == [
        ("x", "y domain"),
        ("x2", "y2 domain"),
    ]
    assert list(figure.data[0].y) == ["mechanistic", "random"]
    np.testing.assert_allclose(figure.data[0].x, [0.8, 0.55])
    lacks = ("metrics", "cot", "mechanistic", "direct", "exact", -0.8, -0.9, -0.7, 3)
    both = pd.concat([pd.DataFrame([lacks], columns=students.OVER_SEEDS), tables["seeds"]])
    headings = [note.text for note in students.student_differences(both).layout.annotations]
    assert [text.split(",")[0] for text in headings[::2]] == ["minus cot", "minus mechanistic"]


def test_the_table_of_arms_holds_the_gain_over_chains_alone(tables):
    rows = arm_rows(tables["seeds"]).set_index("arm")
    assert rows.loc["mechanistic", ["direct_value", "n_seeds"]].tolist() == [0.85, 3]
    assert rows.loc["mechanistic", "gain_low"] == pytest.approx(0.7)
    assert np.isnan(rows.loc["cot", "gain_value"])
    assert rows["gain_seeds"].tolist() == [0 if arm == "cot" else 3 for arm in rows.index]


def test_the_page_says_on_how_many_seeds_a_gain_rests(tables, tmp_path):
    seeds = tables["seeds"]
    alone = seeds["against"].isna() | (seeds["against"] == "")
    seeds.loc[alone & (seeds["arm"] == "random"), "n_seeds"] = 8
    page = write_students_page(tmp_path / "students.html", tables).read_text()
    assert page.count("<small>3 seeds</small>") == 1
    assert "0.850 <small>[" in page


def test_a_term_adds_what_the_arm_without_it_lacks(tables):
    seeds = tables["seeds"]
    assert term_rows(seeds).empty
    lacks = [-0.11, -0.16, -0.06, 3]
    others = ("update", "update(3-5,4-2)", "attention@9")
    rows = [
        ("metrics", arm, "mechanistic", setting, "exact", *lacks)
        for arm in ("cot", *(f"mechanistic-{term}" for term in others))
        for setting in ("direct", "chain")
    ]
    more = pd.DataFrame(rows, columns=students.OVER_SEEDS)
    found = term_rows(pd.concat([seeds, more])).set_index("term")
    assert list(found.index) == ["update"]
    assert found.loc["update", ["direct_value", "direct_low", "direct_high"]].tolist() == [
        *(0.11, 0.06, 0.16)
    ]


def test_a_page_is_made_from_tables_on_disk(tables, tmp_path):
    for name, table in tables.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    page = write_students_page(tmp_path / "students.html", read_tables(tmp_path)).read_text()
    assert page.count('class="card"') == 5
    assert "mechanistic" in page and "default-src 'none'" in page
    (tmp_path / f"{TABLES[-1]}.csv").unlink()
    with pytest.raises(InputError, match=r"seeds\.csv: is no table of an evaluation"):
        read_tables(tmp_path)


def test_empty_tables_say_so(tables):
    drawn = {"readouts": students.training_curves, "seeds": students.student_differences}
    for table, draw in drawn.items():
        figure = draw(tables[table].iloc[:0])
        assert not figure.data and len(figure.layout.annotations) == 1
    with pytest.raises(InputError, match="'step' is missing"):
        students.training_curves(tables["readouts"].drop(columns="step"))


def test_an_arm_is_no_link(tables, tmp_path):
    arm = '<a href="https://example.org">cot</a>'
    named = {name: table.replace("cot", arm) for name, table in tables.items()}
    page = write_students_page(tmp_path / "page.html", named).read_text()
    page = page.replace(get_plotlyjs(), "")
    assert "u003ca href" not in page and "<a href=" not in page
    assert "Content-Security-Policy" in page
