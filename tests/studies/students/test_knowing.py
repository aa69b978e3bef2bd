import pytest
import torch

from workbench.errors import InputError
from workbench.studies.students.knowing import knowing, read_area

FOLD = torch.arange(160) % 8


def test_what_is_written_linearly_is_read_and_noise_is_not():
    generator = torch.Generator().manual_seed(0)
    right = torch.randint(0, 6, (160,), generator=generator)
    target = torch.eye(6)[right]
    noise = torch.randn(160, 8, generator=generator)
    told = noise + target @ torch.randn(6, 8, generator=generator) * 3
    assert read_area(told, target, FOLD) > 0.95
    assert 0.4 < read_area(noise, target, FOLD) < 0.6
    skewed = torch.eye(6)[torch.zeros(160, dtype=torch.long)]
    assert read_area(noise, skewed, FOLD) < 0.6, "that some options are often right says nothing"


def test_every_head_of_a_model_is_probed(make_model, tokenizer):
    chain = "\nreason:\n 1 in A B\n 1 is one B"
    first, second = chain.index(" 1 in"), chain.index(" 1 is")
    row = {
        "prompt": "note: 1 . one ;\noptions:\n two A\n one B\n three C",
        "chain": chain,
        "options": [{}, {}, {}],
        "gold": [1],
        "near_options": [[0]],
        "early": [{"span": [first + 1, second - 1], "decision": 0}],
        "late": [{"span": [second + 1, len(chain)], "decision": 0}],
    }
    without = {name: value for name, value in row.items() if name != "late"}
    done = []
    table = knowing(make_model(), tokenizer, [row] * 16, progress=lambda *n: done.append(n))
    assert table[["layer", "head"]].to_numpy().tolist() == [
        [a, b] for a in (0, 1) for b in range(4)
    ]
    assert set(table["n_early"]) == {16} and done[-1] == (16, 16)
    assert table[["early", "late"]].stack().between(0, 1).all()
    with pytest.raises(InputError, match="15 rows, a probe needs at least 16"):
        knowing(make_model(), tokenizer, [row] * 15)
    with pytest.raises(InputError, match="has no 'late'"):
        knowing(make_model(), tokenizer, [without] * 16)
