"""The command line: each command reads its flags and calls the function of the same name."""

from workbench.cli import (  # noqa: F401  (they register their commands)
    distill,
    evaluate,
    evidence,
    labels,
    labels_bench,
    steps,
    tools,
)
from workbench.cli.app import app


def main() -> None:
    """Entry point of the `workbench` script."""
    app()
