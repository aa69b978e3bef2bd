"""Parts of the chain scores against loops over single queries, from queries, keys and values."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis

from workbench.analysis.chains.chain_scores import chain_scores
from workbench.analysis.chains.head_parts import chain_parts, excess_kurtosis
from workbench.analysis.chains.reading import ChainReading, ChainSettings, Decision, LabelPlaces
from workbench.analysis.chains.stages import early_attention, stage_table
from workbench.analysis.curves.orderings import rank_heads
from workbench.errors import InputError
from workbench.models.hooked import HookedModel

GIVEN = ChainSettings(n_early=5, t_star=0.5, stage_ends=(8, 14), sink_share=0.2)
START, N_CHAIN = 16, 24


def make_reading(seed: int = 0, name: str = "p0") -> ChainReading:
    """Two families of three; the chain lists the first one's labels, then compares them."""
    generator = torch.Generator().manual_seed(seed)
    tokens = tuple(torch.randint(1, 64, (START + N_CHAIN,), generator=generator).tolist())
    labels = [
        LabelPlaces(f"l{at}", at // 3, (40 + at, 50 + at), ((4 + 2 * at, 6 + 2 * at),))
        for at in range(6)
    ]
    spans = [((18, 19), (31, 32)), ((19, 20),), ((20, 22),)]
    listed = [replace(x, listed=span) for x, span in zip(labels, spans, strict=False)]
    asked = tuple([-1] * 4 + [0] * 20)
    decisions = (Decision(0, 0, (1, 2), (0,)),)
    return ChainReading(name, tokens, START, (*listed, *labels[3:]), ((1, 3),), decisions, asked)


@torch.no_grad()
def slow_rows(model: HookedModel, reading: ChainReading, layer: int):
    """Attention scores, pattern, what each head writes, and the stream that the layer reads."""
    hook = f"blocks.{layer}.attn."
    names = [hook + name for name in ("hook_rot_q", "hook_rot_k", "hook_v")]
    stream = f"blocks.{layer}.hook_resid_pre"
    [run] = model.run([reading.tokens], [*names, stream])
    rot_q, rot_k, v = (run.activations[name] for name in names)
    info = model.info
    if rot_q.shape[0] == info.n_heads:  # head first
        rot_q, rot_k = rot_q.transpose(0, 1), rot_k.transpose(0, 1)
    v = v.reshape(len(reading.tokens), info.n_kv_heads, info.d_head)
    attention = model.bridge.original_model.model.layers[layer].self_attn
    weight = attention.o_proj.weight.T.reshape(info.n_heads, info.d_head, info.d_model)
    n = len(reading.tokens)
    scores = torch.full((info.n_heads, n, n), -torch.inf)
    written = torch.zeros(n, info.n_heads, info.d_model)
    for head in range(info.n_heads):
        kv = head // (info.n_heads // info.n_kv_heads)
        for q in range(n):
            for k in range(q + 1):
                scores[head, q, k] = rot_q[q, head] @ rot_k[k, kv] / info.d_head**0.5
    pattern = scores.softmax(-1)
    for head in range(info.n_heads):
        kv = head // (info.n_heads // info.n_kv_heads)
        written[:, head] = pattern[head] @ v[:, kv] @ weight[head]
    return scores, pattern, written, run.activations[stream]


def slow_gradient(model: HookedModel, reading: ChainReading, token: int, member: int):
    """Of logit(member) − logsumexp(others) at the query, by central differences."""
    name = f"blocks.{model.info.n_layers - 1}.hook_resid_post"
    [run] = model.run([reading.tokens], [name])
    stream = run.activations[name][reading.query(token)].double()
    network = model.bridge.original_model
    norm, unembed = network.model.norm, network.lm_head.weight.detach().double()

    def margin(at):  # by hand, since the model's own norm computes in float32
        scaled = at * (at.square().mean() + norm.variance_epsilon).rsqrt() * norm.weight.double()
        logits = unembed @ scaled
        said = [logits[list(reading.labels[m].next_tokens)].logsumexp(-1) for m in range(3)]
        others = torch.stack([x for m, x in enumerate(said) if m != member]).logsumexp(0)
        return said[member] - others

    step = 1e-5 * torch.eye(model.info.d_model, dtype=torch.float64)
    with torch.no_grad():
        return torch.stack([margin(stream + x) - margin(stream - x) for x in step]) / 2e-5


@pytest.fixture(scope="module")
def parts(model):
    return chain_parts(model, make_reading(), GIVEN)


def value_of(parts, part, layer, head, group=0, member=0):
    rows = parts[(parts["part"] == part) & (parts["layer"] == layer) & (parts["head"] == head)]
    [value] = rows[(rows["group"] == group) & (rows["member"] == member)]["value"]
    return value


def slow_sinks(patterns) -> list[int]:
    attended = torch.stack([p[:, START - 1 :].mean(dim=(0, 1)) for p in patterns]).mean(dim=0)
    return sorted({0, *(attended[:START] >= GIVEN.sink_share).nonzero().flatten().tolist()})


@pytest.mark.parametrize("layer", [0, 2])
def test_parts_are_those_of_single_queries(model, parts, layer):
    reading = make_reading()
    patterns = [slow_rows(model, reading, at)[1] for at in range(model.info.n_layers)]
    sinks = slow_sinks(patterns)
    scores, pattern, written, stream = slow_rows(model, reading, layer)
    centred = stream - stream[1:START].mean(dim=0)
    evidence = centred[1:3].mean(dim=0)
    family = torch.stack([centred[4 + 2 * at : 6 + 2 * at].mean(dim=0) for at in range(3)])
    anchors = evidence + family.mean(dim=0)
    late = range(12, N_CHAIN)
    slopes = {
        (at, member): slow_gradient(model, reading, at, member)
        for at in late
        for member in range(3)
    }
    score = chain_scores([reading], [parts], n_resamples=2, n_permutations=1)
    for head in range(model.info.n_heads):
        early = {"coarse_chain": [], "coarse_chain_guarded": [], "kurtosis": []}
        for at in range(5):
            q = START + at - 1
            row = pattern[head, q, : q + 1].double().numpy()
            free = np.delete(row, sinks)
            write = written[q, head]
            cosine = float(torch.cosine_similarity(write, anchors, dim=0))
            size = float(write.norm() / stream[q].norm())
            early["kurtosis"].append(kurtosis(row))
            early["coarse_chain"].append(kurtosis(row) * cosine)
            early["coarse_chain_guarded"].append(kurtosis(free / free.sum()) * cosine * size)
        own = score[(score["layer"] == layer) & (score["head"] == head)].iloc[0]
        for name, values in early.items():
            assert own[name] == pytest.approx(np.mean(values), rel=1e-3, abs=1e-4)
        for member in range(3):
            products, guarded = [], []
            for at in late:
                q = START + at - 1
                moved = float(written[q, head].double() @ slopes[at, member])
                row, free = scores[head, q, : q + 1], pattern[head, q].clone()
                free[sinks] = 0
                free /= free.sum()
                means, shares = [], []
                for label in reading.labels[:3]:
                    keys = [k for a, b in label.listed for k in range(a, b) if k <= q]
                    means.append(float(row[keys].mean() - row.mean()))
                    shares.append(float(free[keys].sum()))
                rest = [m for m in range(3) if m != member]
                products.append((means[member] - np.mean([means[m] for m in rest])) * moved)
                guarded.append((shares[member] - np.mean([shares[m] for m in rest])) * moved)
            found = value_of(parts, "refine_chain", layer, head, 0, member)
            assert found == pytest.approx(np.mean(products), rel=1e-3, abs=1e-4)
            found = value_of(parts, "refine_chain_guarded", layer, head, 0, member)
            assert found == pytest.approx(np.mean(guarded), rel=1e-3, abs=1e-4)


def test_the_unembedding_may_stand_for_the_stream(model):
    reading = make_reading()
    given = replace(GIVEN, anchor="unembedding")
    table = chain_parts(model, reading, given)
    weight = model.bridge.original_model.lm_head.weight.detach()
    rows = weight[list(reading.tokens)]
    centred = rows - rows[1:START].mean(dim=0)
    dot = float(centred[1:3].mean(dim=0).square().sum())
    assert value_of(table, "gram", 1, -1, 0, 0) == pytest.approx(dot, rel=1e-4)


def test_kurtosis_is_scipys_over_the_keys_seen_and_0_where_flat():
    rows = torch.rand(3, 9, dtype=torch.float64)
    seen = torch.arange(9) < torch.tensor([[9], [5], [7]])
    found = excess_kurtosis(rows, seen)
    for row, mask, value in zip(rows, seen, found, strict=True):
        assert float(value) == pytest.approx(kurtosis(row[mask].numpy()))
    assert float(excess_kurtosis(torch.full((1, 4), 0.25), torch.ones(1, 4).bool())) == 0


def test_families_are_dealt_out_and_what_stands_out_in_one_of_two_has_p_of_a_half(model):
    readings = [make_reading(seed, f"p{seed}") for seed in range(3)]
    tables = [chain_parts(model, reading, GIVEN) for reading in readings]
    scores = chain_scores(readings, tables, n_resamples=5, n_permutations=50)
    assert (scores["n"] == 3).all() and (scores["n_decisions"] == 3).all()
    for name in ("coarse_chain", "write_cosine", "refine_chain_guarded", "qk_shortlist"):
        assert scores[f"{name}_p"].between(0, 1).all()
        assert (scores[f"{name}_q"] >= scores[f"{name}_p"] - 1e-12).all()
    # Family 1 in family 0's place: the null of the same chain must hold both, and no other.
    table = tables[0].copy()
    lead = (table["part"] == "coarse_chain") & (table["layer"] == 1) & (table["head"] == 3)
    table.loc[lead & (table["group"] == 1), "value"] += 100
    led = chain_scores(readings[:1], [table], n_resamples=5, n_permutations=400)
    first = led.set_index(["layer", "head"]).loc[(1, 3)]
    assert rank_heads(led, "coarse_chain")[0] == (1, 3)
    assert first["coarse_chain_p"] == pytest.approx(0.5, abs=0.1)


def test_what_is_unknown_in_a_role_beats_no_shuffle(parts):
    table = parts.copy()
    hidden = (table["part"] == "qk_near") & (table["member"] == 2) & (table["head"] == 1)
    table.loc[hidden, "value"] = np.nan
    scores = chain_scores([make_reading()], [table], n_resamples=2, n_permutations=20)
    assert (scores.loc[scores["head"] == 1, "qk_near_p"] == 1).all()
    assert (scores.loc[scores["head"] != 1, "qk_near_p"] < 1).any()


def test_stages_count_only_what_follows_the_shortlist(model, parts):
    reading = make_reading()
    table = stage_table([reading], [parts], [(0, 1)], GIVEN, n_resamples=5)
    assert set(table["stage"]) == {"1–8", "9–14", "15+"}
    first = parts[(parts["part"] == "n_late")]["value"].item()
    assert first == 12
    cosine = table[table["quantity"] == "cos_margin"]["value"]
    assert cosine.abs().max() <= 1
    listed = replace(GIVEN, stage_ends=(3,))  # the shortlist ends with the fourth chain token
    table = stage_table(
        [reading], [chain_parts(model, reading, listed)], [(0, 1)], listed, n_resamples=5
    )
    assert set(table["stage"]) == {"4+"}


def test_attention_is_told_by_kind(model, tokenizer):
    reading = make_reading()
    table = early_attention(model, reading, [(1, 2)], GIVEN, tokenizer)
    assert table["kind"].tolist()[:5] == ["rest", "evidence", "evidence", "rest", "relevant label"]
    assert table["kind"].tolist()[-1] == "other label"
    pattern = slow_rows(model, reading, 1)[1]
    expected = pattern[2, START - 1 : START + 4, :START].mean(dim=0)
    np.testing.assert_allclose(table["weight"], expected.numpy(), atol=1e-5)
    with pytest.raises(InputError, match="is not in model"):
        early_attention(model, reading, [(9, 0)], GIVEN, tokenizer)


def test_bad_settings_are_one_line():
    with pytest.raises(InputError, match="must rise from 1"):
        ChainSettings(stage_ends=(10, 10))
    with pytest.raises(InputError, match="t_star"):
        ChainSettings(t_star=1.5)
    with pytest.raises(InputError, match="tables of parts"):
        chain_scores([make_reading()], [])
