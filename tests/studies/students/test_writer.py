import random

import pytest
import torch

from workbench.errors import InputError
from workbench.models.greedy import greedy_tokens
from workbench.studies.students.writer import Writer

CPU = torch.device("cpu")


def test_it_writes_what_generate_writes_with_the_weights_that_were_loaded_last(make_model):
    models = [make_model(seed, vocab_size=50, initializer_range=0.5) for seed in (0, 1)]
    rng = random.Random(0)
    prompts = [[rng.randrange(50) for _ in range(rng.randint(1, 20))] for _ in range(70)]
    end = int(models[0](torch.tensor([prompts[3]])).logits[0, -1].argmax())
    writer = Writer(models[0].config, CPU, end, 80, 60)
    for model in models:
        writer.load(model)
        expected = greedy_tokens(model, prompts, max_new_tokens=40, end=end, batch_size=70)
        assert writer(prompts, 40) == expected
    assert writer(prompts[:3], 5) == [row[:5] for row in expected[:3]], "after more prompts"
    with pytest.raises(InputError, match="there is room for 80 of 60"):
        writer(prompts, 60)
    models[0].config.model_type = "gpt2"
    with pytest.raises(InputError, match="not by gpt2"):
        Writer(models[0].config, CPU, end, 1, 10)
