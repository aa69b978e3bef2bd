import pytest
import torch
from models.test_forked import D_HEAD, HEADS, LAYERS, LENGTH, VOCAB, build

from workbench.errors import InputError
from workbench.models import forked
from workbench.models.branches import Branch, Edit, PatternEdit
from workbench.models.forked import can_fork, forked_forward
from workbench.models.hooked import HookedModel
from workbench.models.hooks import replace_pattern
from workbench.models.pattern_rows import attention_rows
from workbench.models.prefix import run_prefix

SETS = [
    [(0, 1)],
    [(1, 0), (1, 3)],
    [(0, 0), (1, 2), (2, 3)],
    [(layer, head) for layer in range(LAYERS) for head in range(HEADS)],
]


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2", "gemma2"])
def model(request) -> HookedModel:
    model = HookedModel.from_pretrained_model(build(request.param))
    assert can_fork(model, [1] * LENGTH)
    return model


def prompts() -> tuple[list[int], list[int]]:
    generator = torch.Generator().manual_seed(3)
    base = torch.randint(0, VOCAB, (LENGTH,), generator=generator).tolist()
    return base, [*torch.randint(0, VOCAB, (5,), generator=generator).tolist(), *base[5:]]


def plain(model: HookedModel, base: list[int], rows: list, heads: list, first: int):
    """The same by the bridge's own hooks, a forward for the set."""
    at = torch.arange(first, len(base))
    hooks = [replace_pattern(layer, (0, head, at), rows[layer][head]) for layer, head in heads]
    return model.logits_at(torch.tensor([base]), [len(base) - 1], hooks)[0, 0]


@pytest.mark.parametrize("n", [1, 9])
def test_patched_patterns_equal_plain_hooks(model: HookedModel, n: int):
    """Sets across layers too: values of upper layers are those that the lower patches leave."""
    base, source = prompts()
    first = len(base) - n
    rows = attention_rows(model, source, range(first, len(base)))
    assert rows[0].shape == (HEADS, n, LENGTH)
    branches = [
        Branch(
            first,
            base[first:],
            [PatternEdit(layer, h, slice(None), rows[layer][h]) for layer, h in heads],
        )
        for heads in SETS
    ]
    unpatched = model.logits_at(torch.tensor([base]), [len(base) - 1])[0, 0]
    for prefix in (base, run_prefix(model, base, LENGTH)):
        quick = forked_forward(model, prefix, branches, last_only=True)
        for heads, logits in zip(SETS, quick, strict=True):
            expected = plain(model, base, rows, heads, first)
            assert (logits[0] - expected).abs().max() < 1e-4
        assert (quick[-1][0] - unpatched).abs().max() > 1e-3


def test_patterns_of_new_tokens_beside_patched_z(model: HookedModel):
    """Branches that do not repeat the prefix, with both kinds of edits."""
    base, source = prompts()
    prefix, own = base[:10], source[:4]
    whole = [*prefix[:8], *own]
    rows = attention_rows(model, source[:12], range(9, 12))
    z = torch.ones(4, D_HEAD)
    edits = [PatternEdit(1, 2, slice(1, 4), rows[1][2]), Edit(0, 1, slice(None), z)]
    [quick] = forked_forward(model, prefix, [Branch(8, own, edits)])
    at = torch.arange(9, 12)

    def patch_z(value, hook):
        value[0, 8:, 1] = z
        return value

    hooks = [replace_pattern(1, (0, 2, at), rows[1][2]), ("blocks.0.attn.hook_z", patch_z)]
    expected = model.logits_at(torch.tensor([whole]), range(8, 12), hooks)[0]
    assert (quick - expected).abs().max() < 1e-4


def test_without_the_engine_the_bridge_patches_the_same(monkeypatch):
    model = HookedModel.from_pretrained_model(build("llama"))
    base, source = prompts()
    rows = attention_rows(model, source, range(5, LENGTH))
    branch = Branch(5, base[5:], [PatternEdit(0, 3, slice(None), rows[0][3])])
    [quick] = forked_forward(model, base, [branch], last_only=True)
    monkeypatch.setattr(forked, "can_fork", lambda *_, **__: False)
    [slow] = forked_forward(model, base, [branch], last_only=True)
    assert (quick - slow).abs().max() < 1e-4


def test_a_row_over_other_keys_is_refused():
    model = HookedModel.from_pretrained_model(build("llama"))
    base, _ = prompts()
    branch = Branch(13, base[13:], [PatternEdit(0, 0, slice(None), torch.ones(1, 5))])
    with pytest.raises(InputError, match="has 14 keys, an attention row over 5"):
        forked_forward(model, base, [branch])


def test_a_model_whose_pattern_is_only_shown_is_refused(monkeypatch):
    model = HookedModel.from_pretrained_model(build("llama"))
    silent = "blocks.0.attn.hook_pattern", lambda *_, **__: None
    monkeypatch.setattr("workbench.models.reference.replace_pattern", lambda *_: silent)
    monkeypatch.setattr(forked, "can_fork", lambda *_, **__: False)
    branch = Branch(0, [1], [PatternEdit(0, 0, slice(None), torch.ones(1, 1))])
    with pytest.raises(InputError, match="does not let attention patterns be replaced"):
        forked_forward(model, [1], [branch])
