"""The command that shows how documents are asked about."""

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.app import LABELS, check_new, command


@command(LABELS)
def forms(
    name: Annotated[
        str | None, typer.Argument(help="Form to show, to be edited.", show_default="their names")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write it to.", show_default="printed")
    ] = None,
) -> None:
    """Forms in which documents are asked about: the names, or one as a file."""
    from workbench.errors import InputError
    from workbench.files import write_text
    from workbench.prompts.forms.form import PACKAGED, packaged_text

    if name is None and out is not None:
        raise InputError(f"--out needs the name of a form; one of {', '.join(PACKAGED)}")
    if name is None:
        for each in PACKAGED:
            typer.echo(f"{each}: {packaged_text(each).splitlines()[0].removeprefix('# ')}")
    elif out is None:
        typer.echo(packaged_text(name), nl=False)
    else:
        text = packaged_text(name)
        check_new(out)
        write_text(out, text)
        typer.echo(f"form: {out}")
