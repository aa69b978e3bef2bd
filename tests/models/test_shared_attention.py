import pytest
import torch
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from workbench.models import shared_attention as attend
from workbench.models.attention import Attention

ROWS, KV, GROUPS, D_HEAD, PREFIX = 3, 2, 2, 4, 6


def given(queries: int, rule=causal_mask_function, softcap=None) -> Attention:
    generator = torch.Generator().manual_seed(queries)

    def draw(heads):
        return torch.randn(ROWS, heads, queries, D_HEAD, generator=generator)

    return Attention(draw(KV * GROUPS), draw(KV), draw(KV), 0.7, softcap, rule)


def prefix() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    key, value = torch.randn(2, 1, KV, PREFIX, D_HEAD, generator=generator)
    return key, value


def by_hand(attention: Attention, shared, mask) -> torch.Tensor:
    """Softmax over all keys, one row, head and query after the other."""
    rows, heads, queries, _ = attention.query.shape
    z = torch.zeros(rows, queries, heads, D_HEAD)
    for row in range(rows):
        for head in range(heads):
            kv = head // GROUPS
            key = torch.cat([shared[0][0, kv], attention.key[row, kv]])
            value = torch.cat([shared[1][0, kv], attention.value[row, kv]])
            for query in range(queries):
                scores = key @ attention.query[row, head, query] * attention.scaling
                if attention.softcap is not None:
                    scores = attention.softcap * torch.tanh(scores / attention.softcap)
                scores[~mask[row, query]] = -torch.inf
                z[row, query, head] = scores.softmax(0) @ value
    return z


def attended(form: str, given: Attention, own: Attention, mask) -> torch.Tensor:
    """By one of the forms, over the prefix and all keys of `own`."""
    shared, mine = prefix(), (own.key, own.value)
    if form == "folded":
        return attend._folded(given, shared, mine, mask)
    pairs = zip(shared, mine, strict=True)
    whole = (torch.cat([s.expand(ROWS, -1, -1, -1), o], 2) for s, o in pairs)
    return attend._fused(given, *whole, mask)


def branch_mask(queries: int) -> torch.Tensor:
    """Rows that start at prefix positions 6, 4 and 1."""
    before = torch.arange(PREFIX) < torch.tensor([[6], [4], [1]])
    before = before[:, None].expand(-1, queries, -1)
    own = torch.ones(queries, queries, dtype=torch.bool).tril().expand(ROWS, -1, -1)
    return torch.cat([before, own], dim=-1)


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("form", ["folded", "fused"])
def test_both_forms_are_the_softmax_over_prefix_and_own_keys(queries, form):
    attention, mask = given(queries), branch_mask(queries)
    z = attended(form, attention, attention, mask)
    torch.testing.assert_close(z, by_hand(attention, prefix(), mask))


def test_capped_scores_are_capped():
    attention, shared, mask = given(2, softcap=0.5), prefix(), branch_mask(2)
    z = attend.over_prefix(attention, shared, (attention.key, attention.value), mask)
    torch.testing.assert_close(z, by_hand(attention, shared, mask))
    free = by_hand(given(2), shared, mask)
    assert float((z - free).abs().max()) > 1e-2


@pytest.mark.parametrize(("queries", "own"), [(1, 1), (3, 3), (1, 3), (2, 3), (8, 8)])
@pytest.mark.parametrize("form", ["folded", "fused"])
def test_without_a_mask_the_last_queries_see_the_prefix_and_what_is_before_them(queries, own, form):
    whole = given(own)
    parts = (part[:, :, -queries:] for part in (whole.query, whole.key, whole.value))
    last = Attention(*parts, whole.scaling, whole.softcap, whole.may_attend)
    mask = torch.ones(own, PREFIX + own, dtype=torch.bool).tril(PREFIX).expand(ROWS, -1, -1)
    z = attended(form, last, whole, None)
    torch.testing.assert_close(z, by_hand(whole, prefix(), mask)[:, -queries:])


@pytest.mark.parametrize("softcap", [None, 0.5])
@pytest.mark.parametrize("window", [None, 2])
def test_a_whole_sequence_follows_the_rule_of_its_mask(window, softcap):
    rule = causal_mask_function if window is None else sliding_window_causal_mask_function(window)
    attention = given(5, rule, softcap)
    allowed = torch.ones(5, 5, dtype=torch.bool).tril()
    if window is not None:
        allowed &= ~allowed.tril(-window)
    nothing = attention.key[:1, :, :0]
    expected = by_hand(attention, (nothing, nothing), allowed.expand(ROWS, -1, -1))
    torch.testing.assert_close(attend.whole_sequence(attention), expected)


def test_the_form_is_chosen_by_what_it_would_hold(monkeypatch):
    taken = []
    for name in ("_folded", "_fused"):
        form = getattr(attend, name)
        monkeypatch.setattr(
            attend, name, lambda *a, form=form, name=name: taken.append(name) or form(*a)
        )
    for queries in (1, 40):
        attention = given(queries)
        attend.over_prefix(attention, prefix(), (attention.key, attention.value), None)
    assert taken == ["_folded", "_fused"]
