"""The command that shows how documents are asked about."""

from typing import Annotated

import typer

from workbench.cli.app import LABELS, command


@command(LABELS)
def forms(
    name: Annotated[
        str | None, typer.Argument(help="Form to print, to be edited.", show_default="their names")
    ] = None,
) -> None:
    """Forms in which documents are asked about: the names, or one as a file."""
    from workbench.prompts.forms.form import PACKAGED, packaged_text

    if name is not None:
        typer.echo(packaged_text(name), nl=False)
        return
    for each in PACKAGED:
        typer.echo(f"{each}: {packaged_text(each).splitlines()[0].removeprefix('# ')}")
