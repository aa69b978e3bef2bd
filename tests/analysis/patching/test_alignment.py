import pytest
import torch

from workbench.analysis.patching.alignment import Alignment


def rows(n: int, keys: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.rand(2, n, keys, generator=generator).softmax(-1)


def test_equally_long_runs_take_rows_as_they_are():
    alignment = Alignment.of([1, 2, 3, 9, 8], [1, 5, 6, 9, 8])
    theirs = rows(3, 5)
    assert alignment.exact
    assert alignment.counterparts.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(alignment.rows(theirs, rows(4, 5)[:, :3]), theirs)


def test_a_longer_evidence_is_a_block_that_keeps_its_weight():
    base, source = [1, 2, 3, 9, 8], [1, 5, 6, 7, 9, 8]
    alignment = Alignment.of(base, source)
    assert alignment.counterparts.tolist() == [0, -1, -1, 4, 5]
    theirs, own = rows(3, 6), rows(3, 5)
    patched = alignment.rows(theirs, own)
    assert patched.sum(-1) == pytest.approx(torch.ones(2, 3))
    assert torch.equal(patched[..., [0, 3, 4]], theirs[..., [0, 4, 5]])
    assert patched[..., 1:3].sum(-1) == pytest.approx(theirs[..., 1:4].sum(-1))
    inside = patched[..., 1] / patched[..., 2]
    assert inside == pytest.approx(own[..., 1] / own[..., 2])


def test_what_only_one_run_has_joins_the_token_before_it():
    shorter, longer = [1, 2, 8, 9], [1, 2, 3, 8, 9]
    assert Alignment.of(shorter, longer).counterparts.tolist() == [0, -1, 3, 4]
    assert Alignment.of(longer, shorter).counterparts.tolist() == [0, -1, -1, 2, 3]
    assert Alignment.of([2, 3], [1, 2, 3]).counterparts.tolist() == [-1, 2]


def test_equal_tokens_between_two_changes_are_counterparts():
    """As in chains, where several words change."""
    base, source = [1, 2, 5, 6, 7, 3, 9], [1, 4, 4, 5, 6, 7, 2, 9]
    assert Alignment.of(base, source).counterparts.tolist() == [0, -1, 3, 4, 5, 6, 7]


def test_a_block_without_own_weight_is_spread_evenly():
    alignment = Alignment.of([1, 2, 3, 9], [1, 5, 9])
    own = torch.tensor([[0.5, 0.0, 0.0, 0.5]])
    patched = alignment.rows(torch.tensor([[0.2, 0.6, 0.2]]), own)
    assert patched[0].tolist() == pytest.approx([0.2, 0.3, 0.3, 0.2])
