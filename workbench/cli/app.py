"""The application that commands register with, and what all of them need.

What the user got wrong is one line on standard error and exit code 2; Ctrl-C is exit code 130; any
other exception is a bug and keeps its traceback. Heavy imports wait for the command that needs
them, so that `--help` is quick.
"""

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from workbench import __version__
from workbench.errors import InputError


class _Commands(TyperGroup):
    """Turns exceptions that are meant for the user into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            complain(f"error: {error}")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            complain("stopped; run the same command again to go on where it stopped")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Find, prove and export the attention heads with which a language model picks labels.",
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def prepare() -> None:
    """Torch on all cores unless the environment says otherwise, and no bars but our own."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)


def complain(message: str) -> None:
    """One line on standard error, as it is: brackets in a file name are no markup."""
    from rich.console import Console
    from rich.text import Text

    line = " ".join(message.split())
    Console(stderr=True).print(Text(line), soft_wrap=True)
