"""Scores of many architectures against plain transformers, differentiated by hand."""

import pandas as pd
import pytest
import torch
from fixtures.architectures import build, places

from workbench.analysis.readout import Roles, near_miss_margin, select_options
from workbench.analysis.scores.scores import score_event, score_heads
from workbench.errors import InputError
from workbench.headsets.controls import controls
from workbench.models.hooked import HookedModel

KINDS = ["gpt2", "gpt_neox", "cohere", "granite", "gemma2", "gemma3_text", "gemma4_text"]
KINDS += ["olmo2", "olmo3", "glm4", "exaone4"]
LATER = ("mlp", "per_layer_projection")


class Plain:
    """A Hugging Face model whose parts can be kept, and put back as constants."""

    def __init__(self, kind):
        self.model = build(kind)
        self.blocks, self.projections = places(kind, self.model)
        self.kept, self.constant = {}, False
        for layer, (block, projection) in enumerate(
            zip(self.blocks, self.projections, strict=True)
        ):
            projection.register_forward_hook(self.hook("o", layer))
            for name in LATER:
                if hasattr(block, name):
                    getattr(block, name).register_forward_hook(self.hook(name, layer))

    def hook(self, name, layer):
        def function(module, args, output):
            if self.constant:
                return self.kept[name, layer]
            if name == "o":
                self.kept["z", layer] = args[0]
            self.kept[name, layer] = output
            return None

        return function

    def logits(self, tokens):
        return self.model(torch.tensor([list(tokens)]), use_cache=False).logits[0, -1]

    def z(self, layer):
        return self.kept["z", layer].unflatten(-1, (4, 8))

    def weights(self, layer, kind):
        weight = self.projections[layer].weight
        return (weight if kind == "gpt2" else weight.T).unflatten(0, (4, 8))


def reference(kind, event):
    """Refine, total and direct, and what each head adds in the clean run if norms are frozen."""
    plain = Plain(kind)
    roles = Roles.of(event)
    with torch.no_grad():
        plain.logits(event.clean)
    clean = [plain.z(layer)[0, -event.aligned_suffix :] for layer in range(3)]
    margin = near_miss_margin(select_options(plain.logits(event.near), event), roles)
    near = [plain.kept["z", layer] for layer in range(3)]
    gradients = torch.autograd.grad(margin, near)
    n = event.aligned_suffix
    differences = [
        ours - theirs.unflatten(-1, (4, 8))[0, -n:]
        for ours, theirs in zip(clean, near, strict=True)
    ]
    total = [
        (gradient.unflatten(-1, (4, 8))[0, -n:] * difference).sum(dim=(0, 2))
        for gradient, difference in zip(gradients, differences, strict=True)
    ]
    # Again, with everything that layers compute put back: only the stream itself is left.
    leaves = [plain.kept["o", layer].detach().requires_grad_(True) for layer in range(3)]
    plain.kept = {key: value.detach() for key, value in plain.kept.items()}
    plain.kept |= {("o", layer): leaf for layer, leaf in enumerate(leaves)}
    plain.constant = True
    margin = near_miss_margin(select_options(plain.logits(event.near), event), roles)
    straight = torch.autograd.grad(margin, leaves)
    direct = [
        torch.einsum("hd,hdm,m->h", difference[-1], plain.weights(layer, kind), gradient[0, -1])
        for layer, (difference, gradient) in enumerate(zip(differences, straight, strict=True))
    ]
    return torch.stack(total).detach(), torch.stack(direct).detach()


@pytest.mark.parametrize("kind", KINDS)
def test_refine_and_its_direct_part_are_gradients_of_the_model_itself(kind, make_event):
    event = make_event()
    model = HookedModel.from_pretrained_model(build(kind))
    found = score_event(model, event, model.output_weights())
    total, direct = reference(kind, event)
    for name, expected in (("refine", total), ("refine_direct", direct)):
        off = (found.own(name).float() - expected).abs().max() / expected.abs().max()
        assert off < 1e-4, name


def test_output_norm_is_the_share_of_what_the_layer_adds(make_event):
    """In Gemma 2, whose norm multiplies by 1 + weight over the root mean square."""
    event = make_event()
    plain = Plain("gemma2")
    with torch.no_grad():
        plain.logits(event.clean)
        expected = []
        for layer, block in enumerate(plain.blocks):
            norm, out = block.post_attention_layernorm, plain.kept["o", layer][0, -1]
            scale = (1 + norm.weight) / (out.square().mean() + norm.eps).sqrt()
            parts = torch.einsum(
                "hd,hdm->hm", plain.z(layer)[0, -1], plain.weights(layer, "gemma2")
            )
            expected.append((parts * scale).norm(dim=-1))
    model = HookedModel.from_pretrained_model(build("gemma2"))
    found = score_event(model, event, model.output_weights()).output_norm
    torch.testing.assert_close(found.float(), torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_what_is_not_known_is_empty_and_never_a_number(prompts, monkeypatch):
    model = HookedModel.from_pretrained_model(build("llama"))
    known = score_heads(model, prompts, n_resamples=20, n_permutations=20)
    monkeypatch.setitem(vars(model), "ways", [model.ways[0], None, model.ways[2]])
    table = score_heads(model, prompts, n_resamples=20, n_permutations=20)
    at = table["layer"]
    assert (table["output_norm"].isna() == (at == 1)).all()
    assert (table["refine_direct"].isna() == (at <= 1)).all()  # it goes through layer 1
    rest = [name for name in table if not name.startswith(("refine_direct", "output_norm"))]
    pd.testing.assert_frame_equal(table[rest], known[rest])
    drawn = controls([(0, 1)], table, 4, 0, 2, pooled=[(0, 1)])
    assert len(drawn["random"]) == 2 and drawn["norm"] == []


def test_layers_that_compute_some_positions_only_are_refused(make_event, monkeypatch):
    event = make_event()
    model = HookedModel.from_pretrained_model(build("gemma4_text"))
    keep = model.logits_at

    def last_only(tokens, positions, hooks=(), **kwargs):
        monkeypatch.setattr(type(model), "_keeps_positions", False)
        return keep(tokens, positions, hooks, logits_to_keep=1, **kwargs)

    monkeypatch.setattr(model, "logits_at", last_only)
    assert model.ways  # not what is looked at here
    with pytest.raises(InputError, match=r"computes 1 of 2[0-9] positions in a layer"):
        score_event(model, event, model.output_weights())
