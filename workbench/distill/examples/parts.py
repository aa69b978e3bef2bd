"""How draws are shared out over files that are made side by side."""

from workbench.errors import InputError


def numbers_of_part(n: int, part: tuple[int, int]) -> range:
    """Numbers of the draws of one part: `part` is which, from 0, of how many equal ones.

    Raises:
        InputError: a part that is not there.
    """
    which, parts = part
    if not 0 <= which < parts:
        raise InputError(f"part {which} of {parts} is not there; parts count from 0")
    return range(n * which // parts, n * (which + 1) // parts)
