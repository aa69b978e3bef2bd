"""The command line: each command reads its flags and calls the function of the same name."""

from workbench.cli import bench, daily, distill, evaluate, labels, organism, steps, studies  # noqa: F401  (they register their commands)
from workbench.cli.app import app


def main() -> None:
    """Entry point of the `workbench` script."""
    app()
