"""How figures and tables show in a notebook."""

import pandas as pd
import plotly.io as pio
from transformers.utils import logging


def notebook(*, png: bool = False, digits: int = 3) -> None:
    """Keep what a notebook saves small, and its tables readable; call it once, at the top.

    Figures are saved as data alone, without the 4.5 MB of plotly.js that plotly puts in by default:
    JupyterLab, VS Code and Colab bring their own. With `png` a picture goes beside each, for
    viewers that draw nothing; that needs kaleido and a browser, which takes seconds a figure.
    transformers' bars, which a notebook would save, are switched off.
    """
    logging.disable_progress_bar()
    pio.renderers.default = "plotly_mimetype+png" if png else "plotly_mimetype"
    pd.set_option("display.precision", digits)
    pd.set_option("display.max_colwidth", 200)
