"""Pictures of figures, which a browser draws: never waited for longer than a limit.

A browser can hang, and takes the process that asked it along. So it is asked in a process of its
own, which is ended with all that it started when the time is over. Nothing else in the workbench
asks a browser for anything: figures in notebooks and reports are drawn by who looks at them.
"""

import json
import os
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import plotly.graph_objects as go

from workbench.errors import InputError
from workbench.files import make_folder, read_json, read_text, replacing, write_text
from workbench.plots import draw

LIMIT_S = 120.0
"""Seconds for all figures that are drawn together; one takes about 1, the browser's start 5."""

FIGURE = "application/vnd.plotly.v1+json"


def save_png(
    figure: go.Figure,
    path: str | Path,
    width: int = 900,
    height: int = 480,
    *,
    limit_s: float = LIMIT_S,
) -> Path:
    """Draw the figure into a PNG file of twice this many pixels, and return the path.

    Needs the package kaleido and an installed Chrome or Chromium, but no network.

    Raises:
        InputError: one of the two is not installed or fails, or the time is over.
    """
    path = Path(path)
    [image] = _draw([str(figure.to_json())], limit_s, width=width, height=height, scale=2)
    _write(path, image)
    return path


def page_pictures(page: str | Path, folder: str | Path, *, limit_s: float = LIMIT_S) -> list[Path]:
    """Draw every figure of a report or another page of ours into `folder`, a PNG file each.

    The figure of a page that has but one takes the name of the page.

    Raises:
        InputError: the page has no figure, or as `save_png`.
    """
    figures = _figures_of(read_text(page), Path(page).stem)
    if not figures:
        raise InputError(f"{page}: holds no figure of a page that the workbench wrote")
    images = _draw(list(figures.values()), limit_s, width=900, scale=2)
    paths = [Path(folder) / f"{name}.png" for name in figures]
    for path, image in zip(paths, images, strict=True):
        _write(path, image)
    return paths


def notebook_pictures(notebook: str | Path, *, limit_s: float = LIMIT_S) -> int:
    """Put a picture beside every interactive figure of an executed notebook, and count them.

    Readers that run no scripts show it. One that is there is drawn again.

    Raises:
        InputError: no notebook, one without figures, or as `save_png`.
    """
    content = read_json(notebook)
    try:
        outputs = [
            output["data"]
            for cell in content["cells"]
            for output in cell.get("outputs", ())
            if FIGURE in output.get("data", ())
        ]
    except (TypeError, KeyError, AttributeError):
        raise InputError(f"{notebook}: is no notebook") from None
    if not outputs:
        raise InputError(f"{notebook}: holds no figure; it must have been executed and saved")
    images = _draw([json.dumps(data[FIGURE]) for data in outputs], limit_s, scale=1)
    for data, image in zip(outputs, images, strict=True):
        data["image/png"] = b64encode(image).decode() + "\n"
    write_text(notebook, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return len(images)


def _figures_of(page: str, only: str) -> dict[str, str]:
    """Figures as JSON by name, from the calls with which plotly's `to_html` draws them.

    `only` names the one that stands alone on its page.
    """
    reader, figures = json.JSONDecoder(), {}
    for call in re.finditer(r'Plotly\.newPlot\(\s*"figure(?:-([^"]+))?"\s*,\s*', page):
        try:
            data, end = reader.raw_decode(page, call.end())
            start = re.compile(r"\s*,\s*").match(page, end)
            layout, _ = reader.raw_decode(page, start.end() if start else end)
        except ValueError:
            continue
        figures[call[1] or only] = json.dumps({"data": data, "layout": layout})
    return figures


def _draw(figures: Sequence[str], limit_s: float, **size: int) -> list[bytes]:
    """PNG of every figure, which is given as JSON."""
    options = {"format": "png", **size}
    jobs = [{"figure": json.loads(figure), "options": options} for figure in figures]
    # What a browser that is ended leaves behind goes with the folder.
    with TemporaryDirectory(prefix="pictures-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / draw.JOBS).write_text(json.dumps(jobs), encoding="utf-8")
        _run([sys.executable, "-P", draw.__file__, name], folder, limit_s)
        return [(folder / f"{number}.png").read_bytes() for number in range(len(jobs))]


def _run(command: list[str], folder: Path, limit_s: float) -> None:
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    try:
        said = process.communicate(timeout=limit_s)[1]
    except subprocess.TimeoutExpired:
        raise InputError(
            f"no picture: the browser gave none within {limit_s:g} seconds and was ended; give it "
            "more time, or another browser in BROWSER_PATH"
        ) from None
    finally:
        _end(process)
    reasons = {
        draw.NO_KALEIDO: "kaleido 1 is missing; pip install 'kaleido>=1'",
        draw.NO_BROWSER: "no Chrome or Chromium found; install one, or name it in BROWSER_PATH",
    }
    if process.returncode:
        last = (said.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        reason = reasons.get(process.returncode, f"the browser failed, {last[:200]}")
        raise InputError(f"no picture: {reason}")


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started; a browser has a session of its own."""
    import psutil  # comes with accelerate

    started = []
    with suppress(psutil.NoSuchProcess):
        drawing = psutil.Process(process.pid)
        drawing.suspend()  # so that it starts nothing between the count and its end
        started = [drawing, *drawing.children(recursive=True)]
    for one in started:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()
    psutil.wait_procs(started[1:], timeout=10)  # the end of a process takes its time


def _write(path: Path, image: bytes) -> None:
    make_folder(path.parent)
    with replacing(path) as beside:
        beside.write_bytes(image)
