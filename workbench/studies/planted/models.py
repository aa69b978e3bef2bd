"""A planted model with its prompts and the heads that the method should find.

In the plain kind, `chains`, two chains of two heads do the task, one for each phase:

    filter      an option of the evidence's cluster attends to the evidence and takes over its
                *cluster* ("relevant"); any other option attends to the start
    read-out    the decision token attends to the options, more to those marked relevant, and raises
                every label of the cluster that it finds there
    match       the option that is the evidence's label attends to the evidence and takes over its
                *label* ("exact")
    read-out    the decision token raises the label that it finds there

No head of one chain reads what the other chain writes, so the truth is exact. Other kinds
(`kinds.KINDS`) change this chain or that. Every model has three decoys: a twin that attends as the
filter does and writes where nothing reads, a prior that raises what is on offer whatever the
evidence, and a copier that brings the evidence's label to where nothing reads.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from transformer_lens.utilities.statistics import derive_generator
from transformers import LlamaForCausalLM

from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import PromptSet
from workbench.studies.planted.kinds import NAMES, kind_named
from workbench.studies.planted.places import check_room, draw_places
from workbench.studies.planted.task import draw_event
from workbench.studies.planted.weights import Weights


@dataclass(frozen=True)
class Planted:
    """A model, prompts on which it does its task, and the heads that do it (or only look like it).

    `pools` holds the declared heads by name (`kinds.NAMES`); heads in none of them, and no decoy,
    are random, or do their bit among many.
    """

    model: HookedModel
    prompts: PromptSet
    kind: str
    pools: Mapping[str, frozenset[Head]]
    decoys: frozenset[Head]
    place: Mapping[str, Head]

    @property
    def declared(self) -> frozenset[Head]:
        """Heads of all pools."""
        return frozenset().union(*self.pools.values())


def plant(
    seed: int = 0,
    n_layers: int = 3,
    n_heads: int = 4,
    n_kv_heads: int | None = None,
    *,
    kind: str = "chains",
    n_prompts: int = 40,
    without: Iterable[str] = (),
) -> Planted:
    """A model of this shape with the heads of a kind at random places, and prompts for it.

    `n_kv_heads` is `n_heads` unless given. Parts of the kind named in `without` stay in place and
    attend as they would, but write nothing; the declared pools still hold them. How many logits
    they add differs from seed to seed: 9 to 11 for the cluster, 4 to 5 for the label.

    Raises:
        InputError: a kind that there is not, a shape without room for its heads, fewer than 2
            prompts, or an unknown part.
    """
    if n_prompts < 2:
        raise InputError(f"n_prompts is {n_prompts}, must be at least 2")
    hf_model, place, prompts = plant_llama(
        seed, n_layers, n_heads, n_kv_heads, kind=kind, n_prompts=n_prompts, without=without
    )
    parts = kind_named(kind).all_parts

    def named(pool: str) -> frozenset[Head]:
        return frozenset(place[part.name] for part in parts if part.pool == pool)

    return Planted(
        HookedModel.from_pretrained_model(hf_model, name=f"planted-{kind}-{seed}"),
        prompts,
        kind,
        {name: named(name) for name in NAMES},
        named("decoy"),
        place,
    )


def plant_llama(
    seed: int = 0,
    n_layers: int = 3,
    n_heads: int = 4,
    n_kv_heads: int | None = None,
    *,
    kind: str = "chains",
    n_prompts: int = 40,
    without: Iterable[str] = (),
) -> tuple[LlamaForCausalLM, dict[str, Head], PromptSet]:
    """As `plant`: the model as transformers has it, the place of every part, and the prompts.

    Raises:
        InputError: as `plant`.
    """
    groups = n_heads if n_kv_heads is None else n_kv_heads
    chosen, muted = kind_named(kind), set(without)
    parts = chosen.all_parts
    check_room(parts, n_layers, n_heads, groups)
    names = [part.name for part in parts]
    unknown = sorted(muted - set(names))
    if unknown:
        raise InputError(f"part {unknown[0]!r} is not one of {', '.join(names)}")
    generator = derive_generator(seed, "planted", kind, n_layers, n_heads, groups)
    place = draw_places(generator, parts, n_layers, n_heads, groups)
    weights = Weights(generator, n_layers, n_heads, groups, chosen, place)
    hf_model = weights.build(muted)
    events = tuple(draw_event(generator, index) for index in range(n_prompts))
    return hf_model, place, PromptSet("planted", events)
