"""Draws figures with a browser: `pictures` runs this file in a process that it can end.

Takes a folder, reads the figures there as JSON and writes a PNG for each. Exits with `NO_KALEIDO`
or `NO_BROWSER` where one of these is not installed.
"""

import asyncio
import json
import sys
from pathlib import Path

JOBS = "figures.json"
NO_KALEIDO, NO_BROWSER = 3, 4


async def draw(folder: Path) -> None:
    """Draw every figure of the folder's `JOBS` into `0.png`, `1.png` and so on."""
    from kaleido import Kaleido

    jobs = json.loads((folder / JOBS).read_text(encoding="utf-8"))
    # Without this the page asks the network for MathJax, which no figure uses.
    async with Kaleido(mathjax=False) as browser:
        for number, job in enumerate(jobs):
            image = await browser.calc_fig(job["figure"], opts=job["options"])
            (folder / f"{number}.png").write_bytes(image)


if __name__ == "__main__":
    try:
        from kaleido.errors import ChromeNotFoundError
    except ImportError:
        sys.exit(NO_KALEIDO)
    try:
        asyncio.run(draw(Path(sys.argv[1])))
    except ChromeNotFoundError:
        sys.exit(NO_BROWSER)
