"""The study on a tiny model with its own chains, stopped and gone on with, and on own files."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fixtures.tiny_runs import save_reader
from typer.testing import CliRunner

from workbench.analysis.chains import generation
from workbench.analysis.chains.reading import ChainSettings
from workbench.analysis.patching.patching import THRESHOLDS
from workbench.cli import app
from workbench.errors import InputError
from workbench.studies import paper_chains, patched_sets, ranked_chains
from workbench.studies.compared import compared
from workbench.studies.cumulative import CumulativeStudy
from workbench.studies.paper import FIGURES, TABLES, PaperStudy, study_paper
from workbench.studies.paper_chains import Asked
from workbench.studies.reported import reported_along, reported_cumulative

QUICK = {"n_resamples": 5, "n_permutations": 20}


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    return str(save_reader(tokenizer, tmp_path_factory.mktemp("reader") / "model", n_layers=2))


@pytest.fixture
def correct_chains(few_labels, monkeypatch):
    """What the model writes is what the task would: a random one writes nothing that is read."""

    def write(model, cases, tokenizer, cues, **given):
        made = []
        for case in cases:
            letters = {x.role: tokenizer.decode([x.token]) for x in case.event.options}
            number = case.event.event + 1
            text = f"\n {number} in{letters['gold']}{letters['near']}"
            text += f"\n {number} is fever of some kind{letters['gold']}"
            opening = tokenizer(cues.opening, add_special_tokens=False)["input_ids"]
            chain = generation.make_chain(tokenizer, case.clean.question, text, opening=opening)
            made.append(replace(case, chains={"clean": chain}))
        return made

    monkeypatch.setattr(paper_chains, "write_chains", write)
    monkeypatch.setattr(patched_sets, "write_chains", write)


def lines_of(tmp_path, **change):
    line = {
        "id": "c0",
        "document": {"text": "note: cyst of spleen; options: cyst of spleen, cyst of liver, gout."},
        "chain": {"text": " cyst of spleen or cyst of liver. gout is not. cyst of spleen."},
        "labels": [
            {"label": "A", "text": "cyst of spleen", "role": "gold"},
            {"label": "B", "text": "cyst of liver", "role": "near"},
            {"label": "C", "text": "gout", "role": "far"},
        ],
    }
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(line | change | {"id": x}) + "\n" for x in ("c0", "c1")))
    return path


def test_a_stopped_study_goes_on_and_ends_alike(correct_chains, folder, tmp_path, monkeypatch):
    study = PaperStudy((folder,), Asked(folder, n=2), ChainSettings(n_early=4, t_star=0.3), **QUICK)
    whole = study_paper(study)
    assert tuple(whole) == TABLES
    assert (whole["scores"]["n"] == 2).all() and (whole["scores"]["n_refine"] == 2).all()
    assert whole["scores"]["refine_chain_q"].notna().all()
    assert {"focus", "confusion_text"} <= set(whole["along"]["quantity"])
    assert whole["cumulative_curves"].empty  # not asked for
    parts, made = ranked_chains.chain_parts, []

    def stop(model, reading, given):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(reading.id)
        return parts(model, reading, given)

    monkeypatch.setattr(ranked_chains, "chain_parts", stop)
    with pytest.raises(KeyboardInterrupt):
        study_paper(study, tmp_path / "out")
    monkeypatch.setattr(
        ranked_chains, "chain_parts", lambda *given: made.append("again") or parts(*given)
    )
    monkeypatch.setattr(paper_chains, "write_chains", None)  # they are there
    again = study_paper(study, tmp_path / "out")
    assert made == ["p0", "again"]
    for name in TABLES:
        pd.testing.assert_frame_equal(again[name], whole[name], check_dtype=False)
    monkeypatch.setattr(ranked_chains, "chain_parts", None)
    assert study_paper(study, tmp_path / "out")["scores"].shape == whole["scores"].shape
    with pytest.raises(InputError, match="n_early 4 there and 5 now"):
        study_paper(replace(study, chains=ChainSettings(n_early=5, t_star=0.3)), tmp_path / "out")
    with pytest.raises(InputError, match="another run"):
        study_paper(replace(study, asked=Asked(folder, n=3)), tmp_path / "out")


def test_figure_3_is_made_beside_the_others(correct_chains, folder, tmp_path, monkeypatch):
    """By the paper's score, guarded, ours, attribution, output norm and random; patterns and z."""
    for name, value in {"clean_focus": 0.0, "clean_confusion": 1.0, "moved": -1.0}.items():
        monkeypatch.setitem(THRESHOLDS, name, value)
    out = tmp_path / "out"
    flags = ["--model", folder, "--n", "2", "--n-resamples", "5", "--n-permutations", "20"]
    flags += ["--t-star", "0.3", "--n-early", "4", "--n-random", "1", "--sizes", "3"]
    flags += ["--no-rivals"]
    flags += ["--out", str(out)]
    result = CliRunner().invoke(app, ["study", "paper", *flags])
    assert result.exit_code == 0, result.output
    figures = {path.stem for path in out.glob("*.html")}
    assert figures == {*FIGURES, "figure3_pattern", "figure3_z"}
    curves = pd.read_csv(out / "cumulative_curves.csv")
    assert not {"qr_head", "retrieval_head"} & set(curves["order"])
    ranked = {"paper chain", "paper chain guarded", "score", "attribution", "output norm", "random"}
    assert ranked <= set(curves["order"]) and not any("alone" in x for x in curves["order"])
    whole = curves.query("k == k.max() and intervention == 'z'")
    assert whole["explained"].dropna().to_numpy() == pytest.approx(1, abs=1e-3)
    table = pd.read_csv(out / "compared.csv").set_index("what")
    row = table.loc["Confusion, noising, first 3 patterns"]
    ours = curves.query(
        "k == 3 and intervention == 'pattern' and order == 'paper chain' and readout == 'confusion'"
    )
    value = ours.set_index("direction").loc["noising", "value"]
    assert row["paper"] == 0.51 and row["ours"] == pytest.approx(1 - value, abs=1e-4)


def test_figure_3_is_left_out_where_no_event_is_a_valid_pair(correct_chains, folder, capsys):
    """A model that does not do the task still has the other figures."""
    together = CumulativeStudy(sizes=(1,), alone=False, n_random=1)
    study = PaperStudy((folder,), Asked(folder, n=2), cumulative=together, **QUICK)
    made = study_paper(study)
    assert made["cumulative_curves"].empty and made["scores"]["n"].gt(0).all()
    assert "no figure 3: cumulative" in capsys.readouterr().err
    notes = made["compared"].set_index("what")["note"]
    assert notes["patterns of the first heads together"] == "not measured"


def test_chains_of_ones_own_from_the_command_line(folder, tmp_path):
    own, out = lines_of(tmp_path), tmp_path / "out"
    flags = ["--model", folder, "--chains", str(own), "--out", str(out), "--student", folder]
    flags += ["--n-resamples", "5", "--n-permutations", "20", "--t-star", "0.3", "--n-early", "2"]
    result = CliRunner().invoke(app, ["study", "paper", *flags])
    assert result.exit_code == 0, result.output
    assert {path.stem for path in out.glob("*.html")} == set(FIGURES)
    covered = pd.read_csv(out / "coverage.csv").set_index("what")["share"]
    assert covered["exact"] == 0 and covered["shortlist"] == covered["far families"] == 1
    scores = pd.read_csv(out / "scores.csv")
    assert scores["refine_chain"].notna().all() and scores["coarse_chain_p"].between(0, 1).all()
    along = pd.read_csv(out / "along.csv")
    assert along["model"].nunique() == 2 and set(along["quantity"]) == {
        "focus_text", "focus_text_far", "focus_text_contrast",
        "confusion_text", "confusion_text_gold", "confusion_text_contrast",
    }  # fmt: skip
    assert "spleen" not in result.output  # no text of a document
    assert "no figure 3: chains of one's own" in result.output
    assert (out / "attention.csv").stat().st_mode & 0o077 == 0


def test_chains_without_a_shortlist_have_early_scores_alone(folder, tmp_path):
    own = lines_of(tmp_path, chain={"text": " nothing of that kind."})
    study = PaperStudy((folder,), Asked(folder, own=own), **QUICK)
    made = study_paper(study)
    assert made["scores"]["coarse_chain"].notna().all()
    assert made["scores"]["refine_chain"].isna().all() and made["stages"].empty
    notes = made["compared"].set_index("what")["note"]
    assert notes["highest refine_chain"] == "no chain has the queries"
    for draw in FIGURES.values():
        draw(made)


def test_missing_chains_are_written_by_the_model(folder, tmp_path, monkeypatch):
    path = lines_of(tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["chain"]
    path.write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setattr(paper_chains, "ROOM", 6)
    study = PaperStudy((folder,), Asked(folder, own=path), **QUICK)
    assert study_paper(study)["coverage"]["n"].iloc[-1] > 0
    monkeypatch.setattr(paper_chains, "write_on", lambda model, asked, *x, **y: [[] for _ in asked])
    with pytest.raises(InputError, match="chain 'c0' \\(and 1 more\\): the model writes nothing"):
        study_paper(study)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--prompts", "p.jsonl", "--chains", "c.jsonl"], "either --prompts or --chains"),
        (["--stage-ends", "10,x"], "give numbers"),
        (["--stage-ends", "10,5"], "must rise"),
        (["--t-star", "2"], "t_star"),
        (["--sizes", "3,99"], "size 99 is outside the model"),
        (["--places", "end"], "places"),
        (["--chains", "none.jsonl"], "cannot be read"),
        (["--embedding", "own:99", "--n", "2"], "layer 99 is not one of the model's"),
    ],
)
def test_bad_input_is_one_line(flags, reason, folder, tmp_path, monkeypatch, correct_chains):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        app, ["study", "paper", "--model", folder, *flags, "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 2 and reason in result.stderr
    assert len(result.stderr.strip().splitlines()[-1]) < 300


def test_what_the_paper_reports_is_that_of_the_page():
    table = reported_along().set_index(["model", "quantity", "t"])["value"]
    assert table["teacher, MIMIC-IV", "focus_text", 0.25] == 0.90
    assert table["student, SemCoT", "confusion_text", 1.0] == 0.64
    curves = reported_cumulative().set_index(["readout", "direction", "k"])["value"]
    assert curves["focus", "denoising", 100] == 0.76 and curves["confusion", "noising", 0] == 0.22


def test_directions_are_compared_not_values():
    heads = pd.DataFrame({"layer": np.arange(8), "head": 0})
    for name, sign in (("coarse_chain", -1), ("refine_chain", 1)):
        for end in ("", "_guarded"):
            columns = {
                f"{name}{end}{x}": sign * heads["layer"] for x in ("", "_low", "_high", "_q")
            }
            heads = heads.assign(**columns)
    ts, along = np.linspace(0, 1, 21).round(2), []
    for quantity, values in (("focus", ts * 0.01), ("confusion", 1 - ts), ("focus_text", ts**0.5)):
        rows = pd.DataFrame({"t": ts, "value": values, "low": values, "high": values})
        along.append(rows.assign(model="m", quantity=quantity))
    table = compared(
        heads, pd.concat(along), pd.DataFrame(columns=["quantity"]), pd.DataFrame(), teacher="m"
    )
    found = table.set_index("what")
    assert found.loc["coarse heads lie below refining ones", "agrees"]
    assert found.loc["focus_text at t = 0.25", "ours"] == pytest.approx(0.5)
    assert pd.isna(found.loc["focus rises along the chain", "agrees"])  # by 0.01
    assert found.loc["confusion falls along the chain", "agrees"]
    assert found.loc["confusion_text falls along the chain", "note"] == "not measured"
