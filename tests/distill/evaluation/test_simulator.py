import pytest
import torch
from fixtures.distillation import QUIET, build

from workbench.distill.evaluation.config import SimulatorConfig
from workbench.distill.evaluation.simulated import Asked, read_simulated
from workbench.distill.evaluation.simulator import NO_LABEL, Simulator, packed
from workbench.errors import InputError

ASKED = Asked((0, 1), (5, 6, 7), (8, 9), ((10, 11, 12), (13, 14, 15, 16)), (1, 2))
SHORT = Asked((2,), (5,), (), ((10, 20),), (1,))


def test_branches_are_read_as_if_each_stood_alone():
    """Whatever is beside them: other branches, longer chains, padding."""
    model = build(vocab_size=32, n_layers=2).eval()
    model.set_attn_implementation("sdpa")
    shown = [(ASKED, "xe"), (ASKED, "e"), (SHORT, "x"), (SHORT, "e")]
    tokens, positions, mask, labels = packed(shown, 0)
    with torch.no_grad():
        found = model(input_ids=tokens, position_ids=positions, attention_mask=mask).logits
        found = found[:, -labels.shape[1] :]
        for row, (one, seen) in enumerate(shown):
            width = sum(map(len, one.branches))
            mine, said = found[row, -width:], labels[row, -width:]
            for branch, start in zip(one.branches, one.starts, strict=True):
                alone = torch.tensor([[*one.prefix(seen), *branch]])
                wanted = model(input_ids=alone).logits[0, -len(branch) :]
                torch.testing.assert_close(mine[: len(branch)], wanted, atol=1e-5, rtol=1e-4)
                expected = [*[NO_LABEL] * (start - 1), *branch[start:], NO_LABEL]
                assert said[: len(branch)].tolist() == expected
                mine, said = mine[len(branch) :], said[len(branch) :]


def test_all_of_an_output_must_be_right():
    model = build(vocab_size=32, n_layers=2).eval()

    class Oracle(Simulator):
        def _logits(self, shown):
            *_, labels = packed(shown, 0)
            right = torch.nn.functional.one_hot(labels.clamp(min=0), 32).float()
            right[0, -1] = 0  # no label there
            right[0, -2] = -right[0, -2]  # the end of the second branch of the first chain
            return right, labels

    class Tokenizer:
        eos_token_id = 0

    made = Oracle(model, Tokenizer(), SimulatorConfig())
    assert made.right([ASKED], "xe") == [True, False]
    assert made.right([ASKED, SHORT], "xe")[:2] == [True, True]  # the first row is the short one


def test_all_weights_are_trained(tokenizer):
    """Those of a merged adapter come frozen."""
    model = build(vocab_size=len(tokenizer), n_layers=1).requires_grad_(False)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    row = {"id": "p", "input": "note:", "chain": " 1 in A", "output": " A"}
    made = Simulator(model, tokenizer, SimulatorConfig(steps=2, batch_size=1), reporter=QUIET)
    made.train(read_simulated([row]))
    assert not any(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_settings_leave_room_for_both():
    with pytest.raises(InputError, match="inputs alone, chains alone and both"):
        SimulatorConfig(input_only=0.5, chain_only=0.5)
