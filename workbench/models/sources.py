"""What a model's name stands for on this machine: said without a library that reads models.

So a command can refuse a folder that is not there before it imports such libraries, which takes
longer than anything else that it does until then.
"""

from pathlib import Path

from workbench.errors import InputError
from workbench.files import reading
from workbench.models import catalogue

KNOWN = (*catalogue.PRETRAINED, catalogue.REASONER)
CONFIG_FILE = "config.json"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


def local_folder(source: str | Path, revision: str | None = None) -> Path | None:
    """Folder or GGUF file of a model, or of the pretrained one of this name; None for a hub id.

    Raises:
        InputError: a path that is neither, or a revision of what is on this machine.
    """
    folder = Path(source).expanduser()
    if exists(folder):
        if revision is not None:
            raise InputError(f"{source} is on this machine; revision {revision!r} is of a hub id")
        if folder.is_dir():
            if source in KNOWN and not (is_adapter(folder) or (folder / CONFIG_FILE).exists()):
                raise InputError(
                    f"{folder.absolute()} holds no model, and as a path it comes before the model "
                    f"of that name; rename it, or run elsewhere"
                )
            return folder.resolve()
        if is_gguf(folder):
            return folder.absolute()
        raise InputError(
            f"{source} is a file; give the model folder that contains it, or a .gguf file"
        )
    if "://" in str(source):
        raise InputError(f"model {source} is an address; give the hub id, ORG/NAME")
    name, revision = at_revision(source, revision)
    if known := catalogue.folder_of(name):
        if revision is not None:
            raise InputError(f"{name} is on this machine; revision {revision!r} is of a hub id")
        return known
    if name.lower().endswith(".gguf"):
        raise InputError(f"GGUF file {source} does not exist")
    if isinstance(source, Path) or name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise InputError(f"model folder {source} does not exist")
    return None


def check_source(source: str | Path) -> None:
    """Refuse what is no model at the first look; what its files hold is read later.

    Raises:
        InputError: what `local_folder` refuses, or a folder without a configuration.
    """
    folder = local_folder(source)
    if folder is not None and folder.is_dir() and not is_adapter(folder):
        config_path(folder)


def config_path(folder: Path) -> Path:
    """The folder's `config.json`.

    Raises:
        InputError: there is none.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        files = sorted(found.name for found in folder.glob("*.gguf"))
        hint = f"; give the GGUF file itself: {folder / files[0]}" if files else ""
        raise InputError(f"model folder {folder} has no {CONFIG_FILE}{hint}")
    return path


def at_revision(source: str | Path, revision: str | None) -> tuple[str, str | None]:
    """A hub id, and the revision that is given beside or in it.

    Raises:
        InputError: it is given twice.
    """
    name, _, named = str(source).partition("@")
    if named and revision is not None:
        raise InputError(f"model {str(source)!r} names its revision, and {revision!r} is given")
    return name, named or revision


def exists(path: Path) -> bool:
    """Whether something is there.

    Raises:
        InputError: the system does not say.
    """
    with reading(path):  # a folder on the way may be closed to this user, a name too long
        return path.exists()


def is_gguf(path: Path) -> bool:
    """Whether it is a GGUF file."""
    return path.suffix.lower() == ".gguf" and path.is_file()


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, or a part of one."""
    return any((folder / name).exists() for name in ADAPTER_FILES)
