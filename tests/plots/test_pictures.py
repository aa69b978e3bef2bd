"""Pictures: a browser draws them where there is one, and nothing ever waits for it longer."""

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go
import psutil
import pytest
from typer.testing import CliRunner

from workbench.cli import app
from workbench.errors import InputError
from workbench.plots import draw, pictures
from workbench.plots.page import card, write_figure
from workbench.plots.pictures import FIGURE, notebook_pictures, page_pictures, save_png

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURES = {"a": go.Figure(layout_title_text="</script>"), "b": go.Figure()}


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The one browser on the machine notes its process and never answers."""
    noted = tmp_path / "pid"
    for name in ("chromium", "google-chrome"):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\necho $$ >> {noted}\nexec sleep 1000\n")
        script.chmod(0o700)
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "bin" / "chromium"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    yield noted
    assert not [pid for pid in noted.read_text().split() if runs(int(pid))]


def runs(pid: int) -> bool:
    try:  # one that has ended may wait for its parent to ask how
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def size(image: bytes) -> tuple[int, int]:
    assert image.startswith(b"\x89PNG")
    return int.from_bytes(image[16:20]), int.from_bytes(image[20:24])


def notebook(*figures: go.Figure) -> str:
    outputs = [{"output_type": "display_data", "data": {FIGURE: one.to_dict()}} for one in figures]
    cells = [{"cell_type": "markdown"}, {"cell_type": "code", "outputs": outputs}]
    return json.dumps({"cells": cells})


def test_a_picture_has_twice_the_pixels_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x.png"
    try:
        path = save_png(FIGURES["a"], target, width=300, height=200, limit_s=90.0)
    except InputError as error:
        assert not target.exists()
        if any(reason in str(error) for reason in ("none within", "no Chrome", "browser failed")):
            pytest.skip(str(error))
        raise
    assert path == target and size(path.read_bytes()) == (600, 400)


def test_pages_and_notebooks_get_the_pictures_of_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(command: list[str], folder: Path, limit_s: float) -> None:
        jobs = json.loads((folder / draw.JOBS).read_text())
        for number, job in enumerate(jobs):
            assert job["options"]["format"] == "png" and set(job["figure"]) >= {"data", "layout"}
            title = job["figure"]["layout"].get("title", {}).get("text", "none")
            (folder / f"{number}.png").write_bytes(title.encode())

    monkeypatch.setattr(pictures, "_run", answer)
    page = tmp_path / "page.html"
    page.write_text("".join(card(name, one, "", "")["html"] for name, one in FIGURES.items()))
    made = page_pictures(page, tmp_path / "new")
    assert [(path.name, path.read_text()) for path in made] == [
        ("a.png", "</script>"),
        ("b.png", "none"),
    ]
    alone = write_figure(tmp_path / "alone.html", FIGURES["a"])
    [path] = page_pictures(alone, tmp_path)
    assert (path.name, path.read_text()) == ("alone.png", "</script>")
    path = tmp_path / "executed.ipynb"
    path.write_text(notebook(*FIGURES.values()))
    assert notebook_pictures(path) == 2
    outputs = json.loads(path.read_text())["cells"][1]["outputs"]
    assert [b64decode(one["data"]["image/png"]) for one in outputs] == [b"</script>", b"none"]


def test_a_browser_that_hangs_is_ended_in_time(tmp_path: Path, hanging: Path) -> None:
    path = tmp_path / "executed.ipynb"
    path.write_text(before := notebook(go.Figure()))
    for limit in (3, 30, 300):  # a busy machine may need more than the first to start it
        started = time.monotonic()
        result = CliRunner().invoke(app, ["pictures", str(path), "--limit", str(limit)])
        if hanging.is_file():
            break
    assert time.monotonic() - started < limit + 60
    assert result.exit_code == 2 and path.read_text() == before
    [line] = result.stderr.splitlines()
    assert f"none within {limit} seconds" in line


def test_without_a_browser_or_kaleido_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    with pytest.raises(InputError, match="no Chrome or Chromium found; install one"):
        save_png(go.Figure(), tmp_path / "x.png")
    (tmp_path / "kaleido.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match="pip install 'kaleido>=1'"):
        save_png(go.Figure(), tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("given", ["{", "[]", '{"cells": [1]}', '{"cells": []}'])
def test_what_is_no_executed_notebook_is_refused(tmp_path: Path, given: str) -> None:
    path = tmp_path / "x.ipynb"
    path.write_text(given)
    with pytest.raises(InputError, match=r"x\.ipynb: "):
        notebook_pictures(path)
    with pytest.raises(InputError, match="holds no figure"):
        page_pictures(path, tmp_path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_ask_no_browser_for_a_picture(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert "plots.notebook()" in code and "renderers" not in code
    for name in ("kaleido", "to_image", "write_image", "save_png"):
        assert name not in code
