"""The explorer in a real JupyterLab, looked at and clicked by a real browser."""

import importlib.util

import pytest
from fixtures.browser import chromium
from fixtures.lab import run_cell, run_cells, running_lab, write_notebook

MISSING = [name for name in ("jupyterlab", "anywidget") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed")

CELLS = [
    "import workbench as wb\n"
    "model = wb.HookedModel.load(wb.bundled_model_path(), device='cpu')\n"
    "explorer = wb.explore(model, wb.make_prompts(n_prompts=2))",
    "explorer",
    "print('picked', explorer.head, 'in', explorer.event.text())",
]


BARS = "[...document.querySelectorAll('.wbx-options .wbx-row')]"


def test_click_type_switch_and_arrow_keys(tmp_path):
    write_notebook(tmp_path / "explore.ipynb", CELLS)
    with chromium(offline=False) as page, running_lab(tmp_path) as address:
        page.set_default_timeout(60_000)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        run_cells(page, address.format("explore.ipynb"), 2)
        text, title = page.locator(".wbx-text"), page.locator(".wbx-title b")
        text.locator("span").first.wait_for(timeout=180_000)  # imports, on a busy machine

        def attended(label: str) -> str:
            return "".join(text.locator(f"span[title*='{label}']").all_inner_texts())

        page.locator('.wbx-map [data-head="3-0"]').click()
        title.filter(has_text="Head 3-0").wait_for()
        page.locator('.wbx-page [data-head="3-0"]').wait_for()
        shown = text.inner_text()
        assert shown.startswith("note:") and "\nanswer:" in shown
        evidence = attended("evidence").strip()
        assert evidence in shown.splitlines()[0]
        assert text.locator("span[title^='attention 0.']").count() > 5

        rows = page.locator(".wbx-options .wbx-row")
        before = [row.get_attribute("data-after") for row in rows.all()]
        area = page.locator(".wbx textarea")
        area.fill(area.input_value().replace(evidence, "fracture", 1))
        page.wait_for_function(
            f"before => {BARS}.some((bar, at) => bar.dataset.after !== before[at])", arg=before
        )
        assert attended("evidence").strip() == "fracture"

        area.fill("nothing of it")
        page.locator(".wbx-complaint").filter(has_text="the edit").wait_for()
        assert attended("evidence").strip() == "fracture"
        page.get_by_role("button", name="back to the prompt").click()
        page.wait_for_function(
            f"before => {BARS}.every((bar, at) => bar.dataset.after === before[at])", arg=before
        )
        page.locator('[data-how="zero"]').click()
        page.locator(".wbx-chip").filter(has_text="3-0: zero").wait_for()
        page.wait_for_function(
            f"before => {BARS}.some((bar, at) => bar.dataset.after !== before[at])", arg=before
        )

        page.locator('.wbx-map [data-head="3-0"]').click()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowRight")
        title.filter(has_text="Head 4-1").wait_for()
        page.locator('.wbx-page [data-head="4-1"]').wait_for()
        run_cell(page, 2)
        page.locator(".jp-OutputArea-output").filter(has_text="picked 4-1 in note:").wait_for()
        assert not errors
