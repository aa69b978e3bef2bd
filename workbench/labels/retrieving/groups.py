"""Which training documents belong together, and so tell too much about one another.

Where a split keeps the parts of a whole on one side (packages of one source, notes of one patient),
a test document has no such sibling among the training documents. A training document has, and what
is found for it is better than what a test document gets: unless siblings are left out.
"""

from pathlib import Path

from workbench.errors import InputError
from workbench.files import reading


def read_groups(path: Path) -> dict[str, int]:
    """The group of every document, by id, of a file with a line `document<tab>group`.

    Groups are numbered in the order of the file.

    Raises:
        InputError: it cannot be read, holds no line, a line of another shape, or a document twice.
    """
    with reading(path):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise InputError(f"{path}: is not UTF-8 text") from None
    numbers: dict[str, int] = {}
    groups: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        document, tab, group = line.partition("\t")
        if not (document and tab and group) or "\t" in group:
            raise InputError(f"{path}: line {number} is not `document group` with one tab between")
        if document in groups:
            raise InputError(f"{path}: line {number} is of a document that an earlier line is of")
        groups[document] = numbers.setdefault(group, len(numbers))
    if not groups:
        raise InputError(f"{path}: holds no line")
    return groups
