"""Hooks of `mkdocs build`: pages made from the code, and links into the repository.

One page a command is made from the command line's own flags, and one page a room of the package
from its docstrings, so neither can fall behind the code. Pages may show figures of data/figures
and name files of the repository by relative links, as they are read on the disk: here a figure is
copied into the site, and a link to any other file becomes its path.
"""

import ast
import re
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "labels": "Label spaces",
    "models": "Models and the branch engine",
    "prompts": "Prompts and tasks",
    "phases": "The two phases",
    "analysis": "Scores, patching, curves, chains",
    "headsets": "Head sets",
    "organism": "The bundled model",
    "plots": "Figures and the report",
    "runs": "Runs",
    "predicting": "Predictions of whole splits",
    "distill": "Students",
    "bench": "Benchmarks",
    "studies": "Studies",
    "heads": "Heads",
    "files": "Files",
    "errors": "Errors",
    "progress": "Progress",
}
"""Rooms of the package in reading order, with their titles."""
OUTSIDE = re.compile(r"(!?)\[([^\]]*)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the generated pages to the navigation."""
    config.nav = [
        *(config.nav or []),
        {
            "Commands": [
                "commands/index.md",
                *(f"commands/{_slug(row[0])}.md" for row in _commands()),
            ]
        },
        {"Python": ["api/index.md", *(f"api/{room}.md" for room in _rooms())]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add figures and generated pages to what is built."""
    for figure in sorted((ROOT / "data" / "figures").iterdir()):
        files.append(File.generated(config, f"figures/{figure.name}", abs_src_path=str(figure)))
    pages = {"commands/index.md": _command_index(), "api/index.md": _public_names()}
    pages |= {f"commands/{_slug(n)}.md": _command_page(n, c) for n, c, _ in _commands()}
    pages |= {f"api/{room}.md": _room_page(room) for room in _rooms()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that leave the pages: to a figure's copy, or the file's path in the repository.

    Raises:
        FileNotFoundError: the repository holds no such file.
    """
    if page.file.abs_src_path is None or page.file.generated_by:
        return markdown
    here = Path(page.file.abs_src_path).parent
    pages = Path(config.docs_dir).resolve()

    def rewrite(match: re.Match[str]) -> str:
        shown, text, link = match.groups()
        target = (here / link).resolve()
        if target.is_relative_to(pages):
            return match[0]
        if not target.exists():
            raise FileNotFoundError(f"{page.file.src_uri}: link to {link}, which is not there")
        if target.is_relative_to(ROOT / "data" / "figures"):
            up = "../" * page.file.src_uri.count("/")
            return f"{shown}[{text}]({up}figures/{target.name})"
        path = f"`{target.relative_to(ROOT)}`"
        return path if path.strip("`") in text else f"{text} ({path})"

    return OUTSIDE.sub(rewrite, markdown)


# --- commands ------------------------------------------------------------------------------------


@cache
def _commands() -> list[tuple[str, Any, str]]:
    """(full name, command, room) of every command that can be called, in the order of help."""
    from typer.main import get_command

    from workbench.cli import app

    def below(name: str, command: Any, room: str) -> list[tuple[str, Any, str]]:
        if not hasattr(command, "commands"):
            return [] if command.hidden else [(name, command, room)]
        # A command may be made anew when it is asked for: its room is that of the listed one.
        rooms = {part: str(one.rich_help_panel) for part, one in command.commands.items()}
        return [
            row
            for part, room in rooms.items()
            for row in below(f"{name} {part}".strip(), command.commands[part], room)
        ]

    return below("", get_command(app), "")


def _slug(name: str) -> str:
    return name.replace(" ", "-")


def _command_index() -> str:
    parts = [
        "# Commands",
        "Made from the code. A stopped command goes on when it is given again. What a user got "
        "wrong is one line on standard error and exit code 2.",
    ]
    for room, commands in groupby(_commands(), key=lambda row: row[2]):
        rows = [
            f"| [workbench {name}]({_slug(name)}.md) | {_first_line(command.help)} |"
            for name, command, _ in commands
        ]
        parts += [f"## {room}", "\n".join(["| command | what it does |", "|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


def _command_page(name: str, command: Any) -> str:
    import typer

    context = typer.Context(command, info_name=f"workbench {name}")
    usage = " ".join([f"workbench {name}", *command.collect_usage_pieces(context)])
    records = [flag.get_help_record(context) for flag in command.get_params(context)]
    rows = [f"| `{names}` | {_cell(says)} |" for names, says in filter(None, records)]
    table = "| flag | what it says |\n|---|---|\n" + "\n".join(rows)
    return f"# workbench {name}\n\n{_prose(command.help)}\n\n```text\n{usage}\n```\n\n{table}\n"


def _first_line(text: str | None) -> str:
    return _cell((text or "").strip().split("\n\n")[0])


def _prose(text: str | None) -> str:
    """Paragraphs of a help text, with line breaks inside them gone."""
    paragraphs = (text or "").replace("\b", "").strip().split("\n\n")
    return "\n\n".join(_escaped(" ".join(part.split())) for part in paragraphs)


def _cell(text: str) -> str:
    """One line, with nothing in it that ends a cell of a table."""
    return _escaped(" ".join(text.split())).replace("|", "&#124;")


def _escaped(text: str) -> str:
    """Signs that Markdown would take for its own, outside of code."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*\[_<])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


# --- Python --------------------------------------------------------------------------------------


def _rooms() -> list[str]:
    there = {path.stem for path in (ROOT / "workbench").iterdir() if path.stem.isidentifier()}
    there -= {"__init__", "__main__", "__pycache__", "cli"}
    return [room for room in ROOMS if room in there] + sorted(there - set(ROOMS))


def _room_page(room: str) -> str:
    """A room's modules by their public names; its own docstring as the introduction."""
    folder = ROOT / "workbench" / room
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    parts = [f"# {ROOMS.get(room, room)}"]
    for path in files:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if path.name == "__init__.py":
            says = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            parts += [says] if says and path.parent == folder else []
        else:
            parts.append(f"::: {module}")
    return "\n\n".join(parts) + "\n"


def _public_names() -> str:
    """Names of `import workbench as wb`, each with its first line and a link to its page."""
    import workbench as wb

    lines = [
        "# Python",
        "`import workbench as wb` loads nothing until a name is used. These are its names; the "
        "pages beside this one hold what else each room of the package offers.",
        "| name | what it is |\n|---|---|",
    ]
    rows = []
    for name in wb.__all__:
        thing = getattr(wb, name)
        says = _first_line(thing.__doc__)
        home = getattr(thing, "__module__", None) or thing.__name__
        room = [*home.split("."), "", ""][1]
        anchor = f"{home}.{thing.__qualname__}" if hasattr(thing, "__qualname__") else ""
        link = f"{room}.md#{anchor}" if anchor else f"{room}.md"
        rows.append(f"| [`wb.{name}`]({link}) | {says} |")
    return "\n\n".join(lines) + "\n" + "\n".join(rows) + "\n"
