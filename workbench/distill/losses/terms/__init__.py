"""Every term of the loss: the classes in the files of this folder, in the order of the files."""

from importlib import import_module
from pkgutil import iter_modules

for _file in sorted(iter_modules(__path__), key=lambda file: file.name):
    import_module(f"{__name__}.{_file.name}")
