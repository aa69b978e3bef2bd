import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.distill.matching import distances
from workbench.distill.matching.distances import attention_distances
from workbench.distill.reading.positions import Marks
from workbench.errors import InputError

HEADS = [(1, 3), (0, 1), (1, 0)]


class Largest(TorchDispatchMode):
    """Numbers of the largest tensor that is made."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor):
                self.n = max(self.n, one.untyped_storage().nbytes() // one.element_size())
        return made


def from_whole_maps(teacher, student, batch, rows) -> torch.Tensor:
    """The same from every head's map of both models."""
    maps = []
    for model in (teacher, student):
        model.set_attn_implementation("eager")
        maps.append(model(input_ids=batch["input_ids"], output_attentions=True).attentions)
        model.set_attn_implementation("sdpa")
    found = []
    for layer, head in HEADS:
        p = maps[0][layer][:, head][rows][:, None]
        for own in maps[1]:
            q = own.transpose(1, 2)[rows]
            m = (p + q) / 2
            each = torch.special.entr(m) - (torch.special.entr(p) + torch.special.entr(q)) / 2
            found.append(each.sum(dim=-1).mean(dim=0))
    return torch.cat(found).view(len(HEADS), -1).detach()


@pytest.mark.parametrize("room", [2**24, 1])
def test_layer_by_layer_it_is_what_whole_maps_give(room, make_model, batch, monkeypatch):
    monkeypatch.setattr(distances, "ROOM", room)
    teacher, student = make_model(0), make_model(1, n_layers=3)
    rows = Marks.of(batch, "target").rows
    found = attention_distances(teacher, student, HEADS, batch, rows)
    torch.testing.assert_close(found, from_whole_maps(teacher, student, batch, rows))


def test_no_map_is_ever_whole(make_model, monkeypatch):
    n, heads = 384, 4
    monkeypatch.setattr(distances, "ROOM", 16 * heads * n)
    ids = torch.arange(2 * n).view(2, n) % 700
    batch = {"input_ids": ids, "length": torch.tensor([n, n - 5])}
    rows = torch.arange(n) < batch["length"][:, None]
    teacher, student = make_model(0), make_model(1)
    with Largest() as largest:
        attention_distances(teacher, student, HEADS, batch, rows)
    assert largest.n < n * n  # of one head


def test_rows_have_to_be_chosen(make_model, batch):
    rows = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    with pytest.raises(InputError, match="none is chosen"):
        attention_distances(make_model(), make_model(), HEADS, batch, rows)
