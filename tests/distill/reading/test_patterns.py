import pytest
import torch

from workbench.distill.reading.patterns import head_patterns

QUERIES = torch.tensor([[1, 4, -1], [0, 2, 5]])
HEADS = torch.tensor([3, 0])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mask", ["causal", "padding", "seen", "added"])
def test_rows_are_chosen_before_and_are_those_of_all(mask):
    query, key = random(2, 4, 6, 8), random(2, 2, 6, 8, seed=1)
    real = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    seen = torch.ones(6, 6).tril().bool() & (random(2, 1, 6, 6) > -1) | torch.eye(6).bool()
    given = {"causal": None, "padding": real, "seen": seen, "added": torch.where(seen, 0.3, -9e9)}
    options = {"softcap": 2.0, "window": 3 if mask in ("causal", "padding") else None}
    whole = head_patterns(query, key, HEADS, given[mask], 0.5, **options)
    found = head_patterns(query, key, HEADS, given[mask], 0.5, **options, queries=QUERIES)
    for example, row in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2)):
        expected = whole[example, :, QUERIES[example, row]]
        torch.testing.assert_close(found[example, :, row], expected)
    assert found.isfinite().all()


def test_caps_and_windows_are_those_of_the_formula():
    query, key = random(1, 1, 5, 4), random(1, 1, 5, 4, seed=1)
    found = head_patterns(query, key, torch.tensor([0]), None, 0.7, softcap=1.5, window=2)
    scores = 1.5 * torch.tanh(query @ key.mT * 0.7 / 1.5)
    places = torch.arange(5)
    far = places[:, None] - places
    expected = scores.masked_fill((far < 0) | (far > 1), -torch.inf).softmax(dim=-1)
    torch.testing.assert_close(found, expected)


def test_what_is_kept_for_the_gradient_grows_with_the_rows_and_not_with_their_square():
    query = random(1, 2, 1024, 8).requires_grad_()
    key = random(1, 1, 1024, 8, seed=1).requires_grad_()

    def kept(queries: torch.Tensor | None) -> int:
        sizes = {}

        def note(saved: torch.Tensor) -> torch.Tensor:
            storage = saved.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return saved

        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
            pattern = head_patterns(query, key, torch.tensor([1]), None, 1.0, queries=queries)
        pattern.square().sum().backward()
        return sum(sizes.values())

    rows = torch.arange(1000, 1016)[None]
    everything, few = kept(None), kept(rows)
    given = 4 * (query.numel() + key.numel())
    assert few <= 3 * 16 * 1024 * 4 + 2 * given
    assert everything > 1024 * 1024 * 4
    whole = head_patterns(query, key, torch.tensor([1]), None, 1.0)[:, :, rows[0]]
    some = head_patterns(query, key, torch.tensor([1]), None, 1.0, queries=rows)
    chosen = random(*some.shape)
    for one, other in zip(
        *(torch.autograd.grad((x * chosen).sum(), [query, key]) for x in (whole, some)), strict=True
    ):
        torch.testing.assert_close(one, other)
