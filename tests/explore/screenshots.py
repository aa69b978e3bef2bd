"""Pictures of the explorer for the documentation, from a finished run of the bundled model.

From the root of the repository: PYTHONPATH=tests python tests/explore/screenshots.py RUN FOLDER
writes explore_head.png and explore_edit.png into the folder.
"""

import sys
import tempfile
from pathlib import Path

from fixtures.browser import chromium
from fixtures.lab import run_cells, running_lab, write_notebook


def take(run: Path, into: Path) -> None:
    """Pick a head; then change its left into right, and switch a head off."""
    cells = ["import workbench as wb", f"wb.explore({str(run.resolve())!r})"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_notebook(folder / "explore.ipynb", cells)
        with running_lab(folder) as address, chromium(1400, 1300, offline=False) as page:
            run_cells(page, address.format("explore.ipynb"), len(cells))
            text = page.locator(".wbx-text span")
            text.first.wait_for(timeout=180_000)
            page.locator('.wbx-map [data-head="3-0"]').click()
            page.locator('.wbx-page [data-head="3-0"]').wait_for()
            _picture(page, into / "explore_head.png")
            area = page.locator(".wbx textarea")
            area.fill(area.input_value().replace(" lt ", " rt ", 1))
            page.wait_for_timeout(4000)
            page.locator('[data-how="zero"]').click()
            _picture(page, into / "explore_edit.png")


def _picture(page, path: Path) -> None:
    page.mouse.move(1390, 1290)  # off the map
    page.wait_for_timeout(2500)
    box = page.locator(".wbx").bounding_box()
    height = min(box["height"], 1010)
    page.screenshot(path=path, clip={**box, "height": height})


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
