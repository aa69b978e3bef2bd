import logging

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.models.hooked import HookedModel
from workbench.models.shortcuts import Differs, Shortcut, supports

SIZES = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 200,
    "initializer_range": 0.2,
}


def build(dtype: torch.dtype = torch.float32) -> HookedModel:
    torch.manual_seed(0)
    return HookedModel.from_pretrained_model(LlamaForCausalLM(LlamaConfig(**SIZES)).to(dtype))


class Probe:
    """Wrong by `error`, in units of the logits' deviation, for as many tokens as `wrong_from`."""

    def __init__(self, error: float = 1.0, wrong_from: int = 0) -> None:
        self.error = error
        self.wrong_from = wrong_from
        self.tried: list[int] = []

    def __call__(self, tokens):
        self.tried.append(len(tokens))
        plain = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
        noise = torch.randn(3, 48, generator=torch.Generator().manual_seed(1))
        return plain + self.error * noise * (len(tokens) >= self.wrong_from), plain


def test_one_trial_settles_shorter_sequences_and_a_log_says_what_is_not_supported(caplog):
    model = build()
    right, wrong = Probe(0.0), Probe()
    assert supports(model, "copy", [1] * 100, right)
    assert supports(model, "copy", [2] * 104, right)
    assert supports(model, "copy", [3] * 7, right)
    assert right.tried == [104]
    for length in (40, 5, 90):
        assert not supports(model, "guess", [1] * length, wrong)
    assert wrong.tried == [40, 12]  # wrong for few tokens, too
    assert caplog.text.count("does not support the guess; falling back") == 1


def test_what_is_wrong_beyond_a_length_is_right_below_it(caplog):
    model, probe = build(), Probe(wrong_from=100)
    assert supports(model, "scale", [1] * 90, probe)
    assert supports(model, "scale", [1] * 98, probe)  # 104 are wrong, 98 are not
    assert not supports(model, "scale", [1] * 100, probe)
    assert not supports(model, "scale", [1] * 200, probe)
    assert supports(model, "scale", [1] * 60, probe)
    assert "for 100 tokens or more; falling back to a slower path (logits differ by" in caplog.text


@pytest.mark.parametrize(("error", "right"), [(1e-5, True), (1e-3, False)])
def test_float32_is_judged_by_the_spread_of_the_logits(error, right):
    assert supports(build(), "shortcut", [1] * 20, Probe(error)) is right


@pytest.mark.parametrize(("error", "right"), [(0.004, True), (0.3, False)])
def test_half_precision_is_judged_by_what_rounding_does(error, right):
    assert supports(build(torch.bfloat16), "shortcut", [1] * 20, Probe(error)) is right


def test_a_number_added_to_all_logits_is_no_difference():
    def probe(tokens):
        plain = torch.randn(3, 48)
        return plain + 7, plain

    assert supports(build(), "shift", [1] * 20, probe)


def test_a_shortcut_that_gives_no_numbers_is_not_supported():
    model, ones = build(), torch.ones(2, 3)
    assert not supports(model, "guess", [1] * 20, lambda _: (ones * torch.nan, ones))
    assert supports(model, "copy", [1] * 20, lambda _: (ones, ones))


def test_logits_that_would_only_broadcast_are_not_the_model_s():
    ones = torch.ones(1, 3)
    assert not supports(build(), "one row", [1] * 20, lambda _: (ones, ones.expand(2, 3)))


def test_a_probe_may_see_for_itself():
    def probe(tokens):
        if len(tokens) > 30:
            raise Differs("keys differ")
        return torch.ones(2, 3), torch.ones(2, 3)

    model = build()
    assert not supports(model, "keys", [1] * 40, probe)
    assert supports(model, "keys", [1] * 30, probe)
    assert model.shortcuts["keys"] == Shortcut(30, 40, "keys differ")


def test_a_full_memory_says_nothing_about_a_shortcut(caplog):
    model, ones = build(), torch.ones(2, 3)

    def full(tokens):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    with caplog.at_level(logging.WARNING), pytest.raises(torch.OutOfMemoryError):
        supports(model, "another", [1] * 20, full)
    assert supports(model, "another", [1] * 20, lambda _: (ones, ones))
    assert not caplog.text
