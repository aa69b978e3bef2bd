"""Where a student from scratch keeps the heads of a teacher: layers by depth, heads by KV group."""

from collections.abc import Sequence
from itertools import pairwise
from math import inf

from workbench.phases import POOLS, Pool

Place = tuple[int, Pool]
"""A teacher layer, and the pool of some heads in it."""


def place_layers(places: Sequence[Place], n_teacher: int, n_student: int) -> dict[Place, int]:
    """Student layer for each place: the nearest in depth that keep the order.

    In order of teacher layers, coarse before refine within one, student layers never fall, and rise
    at each step from coarse to refine. If so many steps do not fit, they need not rise. Where the
    teacher has layers behind the last place, to read what was written there, the student's last
    layer stays free too, if the steps leave it. The sum of squared distances is least; on a tie the
    places lie early.
    """
    # 1. Places in the order in which they act; from coarse to refine, layers must rise.
    ordered = sorted(set(places), key=lambda place: (place[0], POOLS.index(place[1])))
    rises = [0] + [
        int(before[1] == "coarse" and after[1] == "refine") for before, after in pairwise(ordered)
    ]
    # 2. How many of the student's last layers stay free to read what is written.
    read_later = max(layer for layer, _ in ordered) < n_teacher - 1
    n_free = int(read_later and sum(rises) + 1 < n_student)
    if sum(rises) >= n_student:
        rises = [0] * len(ordered)
    # 3. Squared distance of every place from every student layer, in relative depth
    # (layer + ½) / n times 2 · n_teacher · n_student: whole numbers, so that a tie is a tie.
    distances = [
        [
            ((2 * layer + 1) * n_student - (2 * target + 1) * n_teacher) ** 2
            for target in range(n_student - n_free)
        ]
        for layer, _ in ordered
    ]
    # 4. The cheapest way through that rises where it must.
    layers = _cheapest_path(distances, rises)
    return dict(zip(ordered, layers, strict=True))


def _cheapest_path(costs: Sequence[Sequence[int]], rises: Sequence[int]) -> list[int]:
    """One column per row of least total cost, each at least `rises` after the one before it."""
    width = len(costs[0])
    # best[column]: the cheapest way to a column at or before this one, as (cost, columns). Of equal
    # costs the smaller columns win.
    best: list[tuple[float, list[int]]] = [(0, [])] * width
    for row, rise in zip(costs, rises, strict=True):
        after: list[tuple[float, list[int]]] = []
        for column in range(width):
            cost, columns = best[column - rise] if column >= rise else (inf, [])
            after.append(min([*after[-1:], (cost + row[column], [*columns, column])]))
        best = after
    return best[-1][1]  # there is a way: rises are fewer than columns


def place_heads(
    asked: Sequence[tuple[int, int, int, Pool]], teacher: tuple[int, int], student: tuple[int, int]
) -> list[tuple[int, int]]:
    """Student (layer, head) for each (student layer, teacher layer, teacher head, pool), in turn.

    `teacher` and `student` are (n_heads, n_kv_heads). A head whose own key-value group is new to
    the layer takes the first free head of the emptiest group; one whose group is there already goes
    to the group of the others while that has room. When every head of the layer is taken, the
    head that fewest use is shared, one of the same pool if there is one.
    """
    chosen: list[tuple[int, int]] = []
    for number, (layer, *_) in enumerate(asked):
        earlier = [index for index in range(number) if asked[index][0] == layer]
        taken = [chosen[index][1] for index in earlier]
        if len(set(taken)) == student[0]:  # all heads are taken: share one
            same_pool = [chosen[i][1] for i in earlier if asked[i][3] == asked[number][3]]
            head = min(same_pool or taken, key=lambda one: (taken.count(one), one))
        else:
            kin = [
                chosen[index][1]
                for index in earlier
                if _group(asked[index], teacher) == _group(asked[number], teacher)
            ]
            head = _free_head(taken, kin, *student)
        chosen.append((layer, head))
    return chosen


def _group(asked: tuple[int, int, int, Pool], shape: tuple[int, int]) -> tuple[int, int]:
    """Teacher layer and key-value group of a head."""
    _, layer, head, _ = asked
    return layer, head * shape[1] // shape[0]


def _free_head(taken: Sequence[int], kin: Sequence[int], n_heads: int, n_kv_heads: int) -> int:
    def cost(head: int) -> tuple[int, int, int]:
        """Not with the kin; then how full the group is; then the head."""
        group = head * n_kv_heads // n_heads
        kin_there = any(one * n_kv_heads // n_heads == group for one in kin)
        full = sum(one * n_kv_heads // n_heads == group for one in taken)
        return int(bool(kin) and not kin_there), full, head

    return min((head for head in range(n_heads) if head not in taken), key=cost)
