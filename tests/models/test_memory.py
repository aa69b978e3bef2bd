"""What a model takes is said, and refused where it is more than there is."""

import pytest
import torch
from fixtures.architectures import build

from workbench.errors import InputError
from workbench.models import memory
from workbench.models.hooked import HookedModel
from workbench.models.memory import check_fits, largest_step, memory_line, size

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[int | str, int]:
    free: dict[int | str, int] = {"cpu": 0}
    monkeypatch.setattr(memory, "get_max_memory", lambda: free)
    return free


def _numbers(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_a_model_larger_than_what_is_free_is_refused_with_what_would_fit(free) -> None:
    model = build("llama")
    numbers = _numbers(model)

    def refusal(device: torch.device) -> str:
        with pytest.raises(InputError) as refused:
            check_fits(model.config, torch.float32, device, "some/model")
        assert "\n" not in str(refused.value)
        return str(refused.value)

    free["cpu"] = 4 * numbers - 1
    assert "model some/model takes" in (said := refusal(CPU))
    assert "in float32, cpu has" in said
    assert "--dtype bfloat16 takes" in said
    free |= {0: numbers, 1: 4 * numbers, "cpu": 5 * numbers}
    assert "--device auto spreads it over 2 accelerators or --device cpu holds it" in refusal(CUDA)
    del free[0], free[1]
    free["cpu"] = numbers
    assert refusal(CPU).endswith("take a smaller model or a larger machine")
    free["cpu"] = 4 * numbers
    check_fits(model.config, torch.float32, CPU, "some/model")


def test_memory_that_is_not_known_refuses_nothing(free) -> None:
    check_fits(build("llama").config, torch.float32, torch.device("mps"), "some/model")


def test_the_line_says_when_a_step_may_run_out(free) -> None:
    model = HookedModel.from_pretrained_model(build("llama"), weights_sha256="0")
    step = largest_step(model, 20)
    assert largest_step(model, 4000) > step
    free["cpu"] = step
    assert memory_line(model, 20).endswith(f"{size(step)} free on cpu")
    free["cpu"] = step - 1
    assert memory_line(model, 20).endswith("it may run out; --dtype bfloat16 or shorter prompts")


def test_the_estimate_is_near_what_was_measured() -> None:
    """Peaks over the weights on one H200: 1.5 billion parameters, prompts of 506 tokens."""

    class Model:
        pass

    for dtype, measured in ((torch.bfloat16, 2.05), (torch.float32, 3.1)):
        model = Model()
        model.dtype = dtype
        model.info = Model()
        sizes = {"n_layers": 28, "n_heads": 12, "n_kv_heads": 2, "d_head": 128, "d_model": 1536}
        model.info.__dict__ |= sizes
        model.text_config, model.pack_budget = Model(), Model()
        model.text_config.intermediate_size = 8960
        model.pack_budget.tokens = 16384
        assert largest_step(model, 506) / 2**30 == pytest.approx(measured, rel=0.34)
