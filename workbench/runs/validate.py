"""Checks of files that others give: prompt files and head sets."""

from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import InputError
from workbench.headsets import headset
from workbench.phases import POOLS
from workbench.prompts.files import read_prompts
from workbench.prompts.held import shown, sizes, unchecked
from workbench.roles import HEAD_POOLS

if TYPE_CHECKING:  # without a model to fit, none of its libraries is loaded
    from workbench.models.hooked import HookedModel


def validate(
    path: str | Path, *, model: "HookedModel | str | Path | None" = None, show: int = 0
) -> str:
    """Check a prompt file (`.jsonl`) or a head-set file (`.json`), and say what it holds.

    With `model` also that the file fits it, and what its spans and option tokens hold. Text of
    prompts is in the answer only where `show` asks for so many of them.

    Raises:
        InputError: naming the file and the first thing that is wrong with it, or `show` of prompts
            without a tokenizer.
    """
    suffix = Path(path).suffix
    if suffix not in (".jsonl", ".json"):
        raise InputError(f"{path}: is neither a prompt file (.jsonl) nor a head-set file (.json)")
    if isinstance(model, str | Path):
        from workbench.models.hooked import HookedModel

        model = HookedModel.load(model)
    if suffix == ".json":
        return _validate_headset(path, model)
    prompts = read_prompts(path, model=model)
    if show and prompts.events[0].tokenizer is None:
        raise InputError(f"{path}: showing text needs a model with a tokenizer (--model)")
    lines = [f"{path}: OK, {len(prompts)} events of {len(prompts.prompt_ids)} prompts"]
    lines += [f"  {line}" for line in (sizes(prompts), *unchecked(prompts))]
    for event in prompts.events[:show]:
        lines += shown(event)
    return "\n".join(lines)


def _validate_headset(path: str | Path, model: "HookedModel | None") -> str:
    found = headset.load(path)
    if model is not None:
        info = model.info
        fields = ("n_layers", "n_heads", "n_kv_heads", "d_model", "architecture", "quantisation")
        try:
            headset.check_model(
                found,
                **{name: getattr(info, name) for name in fields},
                base_sha256=info.base and info.base.weights_sha256,
                adapter_sha256=info.adapter and info.adapter.sha256,
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    counts = {pool: len(found.in_pool(pool)) for pool in HEAD_POOLS}
    sizes = ", ".join(f"{n} {pool}" for pool, n in counts.items() if n or pool in POOLS)
    return f"{path}: OK, head set of {found.model.name!r}, {sizes}"
