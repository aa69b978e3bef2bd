from dataclasses import replace

import numpy as np
import pytest
import torch

from workbench.analysis import logit_lens
from workbench.analysis.logit_lens import event_trajectory, layer_trajectory
from workbench.analysis.patching.patching import baseline
from workbench.analysis.readout import Roles, focus_confusion
from workbench.analysis.statistics import split_half
from workbench.errors import InputError


def test_last_step_is_the_model_s_own_answer(model, prompts, monkeypatch):
    monkeypatch.setattr("workbench.analysis.statistics.MIN_PROMPTS", 2)
    table = layer_trajectory(model, prompts, n_resamples=20)
    assert len(table) == 3 * 4
    last = table[table["step"] == 3].set_index("variant")
    answers = baseline(model, prompts, split_half(prompts.prompt_ids)).groupby("variant")
    for column in ("focus", "confusion"):
        mean = answers[column].mean()
        np.testing.assert_allclose(last[column], mean[last.index], atol=1e-5)
        assert (table[f"{column}_low"] <= table[column]).all()
        assert (table[column] <= table[f"{column}_high"]).all()
    assert (table["n"] == 5).all()
    assert (table["kind"] == "layer").all()


def test_first_step_reads_the_decision_token_s_embedding(model, event):
    """The variants share the decision token, so they cannot differ before the first layer."""
    values = event_trajectory(model, event)
    torch.testing.assert_close(values[0, 0], values[1, 0])
    torch.testing.assert_close(values[0, 0], values[2, 0])
    assert not torch.allclose(values[0, 1], values[1, 1])
    embedding = model.bridge.original_model.get_input_embeddings().weight[event.clean[-1]]
    normed = embedding * (embedding.pow(2).mean() + model.bridge.cfg.eps).rsqrt()
    logits = normed @ model.bridge.unembed.W_U
    focus, confusion = focus_confusion(logits[event.option_tokens], Roles.of(event))
    assert values[0, 0].tolist() == pytest.approx([focus.item(), confusion.item()], rel=1e-4)


def test_a_lens_that_does_not_fit_is_refused(model, event, monkeypatch):
    """Streams of other widths than the unembedding reads, and an answer that is scaled after it."""

    def misfit(*given, **named):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    read = logit_lens.logit_readout
    monkeypatch.setattr(logit_lens, "logit_readout", misfit)
    with pytest.raises(InputError, match=r"no stream of one width .* \(RuntimeError\)"):
        event_trajectory(model, event)

    def scaled(*given, **named):
        found = read(*given, **named)
        return replace(found, values=5 * found.values)

    monkeypatch.setattr(logit_lens, "logit_readout", scaled)
    with pytest.raises(InputError, match="does more between its last layer and its answer"):
        event_trajectory(model, event)
