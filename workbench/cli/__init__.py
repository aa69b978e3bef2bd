"""The command line: each command reads its flags and calls the function of the same name."""

import sys
from io import TextIOWrapper

from workbench.cli import (  # noqa: F401  (they register their commands)
    adapt,
    answers,
    bench,
    cumulative,
    daily,
    distill,
    evaluate,
    forms,
    labels,
    organism,
    paper,
    predict,
    predictions,
    retrieval,
    simulability,
    steps,
    students,
    studies,
    targets,
    traces,
)
from workbench.cli.app import app


def main() -> None:
    """Entry point of the `workbench` script; what the terminal cannot show becomes "?"."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()
