"""Decisions about label text that a model writes freely, out of all labels of a space.

A task's chain of thought writes the description of each label it decides for, as in ` 2 is Cyst of
spleen F`. A case is the question and the chain up to ` 2 is`: what comes next is
label text, and an index of all labels says at every token which others are possible.

- The chain holds the steps of earlier mentions, which all variants share, and not the coarse step
  of this one: its letters would name the family, which differs between clean and far. So all
  tokens after the swapped mention are shared.
- A label ends where its option's letter follows; the index's end token stands for any of these
  letters.
- The description itself is shared too, so what the far and near variants say of a later token is
  said after the gold label's own first tokens. A decision event is therefore the first token at
  which the candidates in the prompt part into gold, near and far: everything before it fits the
  labels of all three variants.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

from workbench.errors import InputError
from workbench.labels.index import LabelIndex
from workbench.labels.space import LabelSpace
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.prompt import VARIANTS, DecisionEvent, Option, PromptSet, Role, Span, Variant
from workbench.prompts.task import Task
from workbench.prompts.templates import PlainTemplate
from workbench.prompts.text import next_tokens, shared_suffix, tokenize

BEFORE = " "
"""Stands before a label where the chain writes it."""

MOST_DRAWS = 20
"""Prompts drawn for each one wanted, before a task is given up."""

_PRECEDENCE: tuple[Role, ...] = ("gold", "other", "near", "far")


class FreeLabels:
    """All labels of a space as the tokens in which the chain writes them.

    Labels are numbered in the order of the space. Those with the text of an earlier one are not in
    the index and go by its number.

    Args:
        space: the labels.
        tokenizer: the model's, a Hugging Face tokenizer.

    Raises:
        InputError: the tokenizer names no end token.
    """

    def __init__(self, space: LabelSpace, tokenizer: Any) -> None:
        self.space = space
        texts = [label.text for label in space]
        self.index = LabelIndex.build(texts, tokenizer, before=BEFORE, problems="skip")

    @cached_property
    def _numbers(self) -> dict[str, int]:
        first: dict[str, int] = {}
        return {
            label.id: first.setdefault(label.text, number)
            for number, label in enumerate(self.space)
        }

    @cached_property
    def _ids(self) -> list[str]:
        return self.space.ids

    def __len__(self) -> int:
        return len(self.index)

    def number(self, label_id: str) -> int:
        """Number of a label in the index."""
        return self._numbers[label_id]

    def label_id(self, number: int) -> str:
        """Id of the label of a number."""
        return self._ids[number]

    def near(self, label_id: str) -> tuple[int, ...]:
        """Numbers of the other labels of a label's cluster, in the whole space."""
        members = self.space.members(self.space.cluster(label_id))
        numbers = {self.number(member) for member in members} - {self.number(label_id)}
        return tuple(sorted(numbers))

    def tokens(self, label_id: str) -> tuple[int, ...]:
        """Tokens of a label's text, without an end."""
        return tuple(self.index.label_tokens(self.number(label_id))[:-1].tolist())


@dataclass(frozen=True)
class FreeCase:
    """A place where the chain begins to write a label.

    Attributes:
        id, event: of the prompt, and the mention decided about (from 0).
        prompts: tokens of each variant, up to the label's first token.
        aligned_suffix: how many trailing tokens the variants share.
        labels: ids of the labels that the variants mention here; "clean" has gold.
        gold: number of the gold label.
        golds: numbers of all gold labels of the prompt.
        near: numbers of the labels of gold's cluster, in the whole space.
        ends: tokens that may follow a complete label: the letters of the options.
        decision: the event that candidates in the prompt part at; None where there is none.
    """

    id: str
    event: int
    prompts: Mapping[Variant, tuple[int, ...]] = field(repr=False)
    aligned_suffix: int
    labels: Mapping[Variant, str]
    gold: int
    golds: tuple[int, ...]
    near: tuple[int, ...] = field(repr=False)
    ends: tuple[int, ...] = field(repr=False)
    decision: DecisionEvent | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Candidate:
    """An option of the prompt: `tokens` are its description's and then its letter."""

    label: str
    tokens: tuple[int, ...]
    role: Role


@dataclass(frozen=True)
class _Place:
    """Where candidates part: after `depth` tokens of the gold label, by their next token."""

    depth: int
    options: Mapping[int, _Candidate]


def iter_cases(
    task: Task, tokenizer: Any, labels: FreeLabels, *, seed: int, context: int | None = None
) -> Iterator[FreeCase]:
    """Cases of a task, p0, p1 and so on without end; case i depends on the seed and i alone.

    The mention decided about is drawn, then the far and near labels that take its place in the
    counterfactuals: where the candidates part at a common token, they are of those that part from
    gold there, and near ones of gold's cluster where there are any.

    Args:
        task: what prompts are drawn from.
        tokenizer: the model's, a Hugging Face tokenizer of the fast kind.
        labels: all labels, for the same tokenizer.
        seed: of the draws.
        context: longest prompt with its label; longer ones are drawn again.

    Raises:
        InputError: a task whose chains do not write labels, an option letter that is not one token,
            a label that is tokenized otherwise in the chain than alone, or no usable prompt.
    """
    number = 0
    while True:
        rng = random.Random(f"{seed}:free labels:{number}")
        cases = (
            _draw(task, tokenizer, labels, f"p{number}", rng, context) for _ in range(MOST_DRAWS)
        )
        case = next((case for case in cases if case is not None), None)
        if case is None:
            raise InputError(
                f"no usable prompt in {MOST_DRAWS} draws: they do not fit the model's context or "
                "their counterfactuals do not differ"
            )
        yield case
        number += 1


def decision_prompts(cases: Iterable[FreeCase], n_events: int, *, task: str) -> PromptSet:
    """The first `n_events` decision events of the cases, as a prompt set called `task`.

    Their options are the next tokens that lead to a candidate shown in the prompt, each with the
    role and the description of that candidate; a token shared by several has the first role of
    gold, other, near, far. Cases without an event at which gold, near and far part are passed over.

    Raises:
        InputError: fewer than that in 20 times as many cases, or `n_events` below 1.
    """
    if n_events < 1:
        raise InputError(f"n_events is {n_events}, must be at least 1")
    found = (case.decision for case in islice(cases, MOST_DRAWS * n_events))
    events = tuple(islice((event for event in found if event is not None), n_events))
    if len(events) < n_events:
        raise InputError(
            f"only {len(events)} of {MOST_DRAWS * n_events} cases have a token at which gold, "
            f"near and far candidates part, {n_events} are wanted"
        )
    return PromptSet(task, events)


def _draw(
    task: Task,
    tokenizer: Any,
    labels: FreeLabels,
    prompt_id: str,
    rng: random.Random,
    context: int | None,
) -> FreeCase | None:
    """One case; None where it is too long or a counterfactual reads as the prompt does."""
    prompt = task.draw(prompt_id, rng)
    event = rng.randrange(len(prompt.mentions))
    gold = prompt.golds[event]
    clean = task.render(prompt, PlainTemplate())
    cues = [f" {letter}" for letter in prompt.letters.values()]
    letters = next_tokens(tokenizer, clean.text, cues, clean.quoted)
    candidates = [
        _Candidate(label, (*labels.tokens(label), letter), prompt.role(event, label))
        for label, letter in zip(prompt.candidates, letters, strict=True)
    ]
    place = _parting(candidates)
    swaps = [
        rng.choice(_swaps(role, labels.space, prompt, gold, candidates, place))
        for role in ("far", "near")
    ]
    mentions = [task.mention(prompt, label, rng) for label in swaps]
    prompts = [prompt, *(prompt.with_mention(event, mention) for mention in mentions)]
    shown = [task.render(each, PlainTemplate()) for each in prompts]
    chains = [_chain_so_far(task, each, event) for each in prompts]
    written = [
        each.text.removesuffix(PlainTemplate.answer_cue) + chain
        for each, chain in zip(shown, chains, strict=True)
    ]
    texts = [tokenize(tokenizer, text, (0, len(text))) for text in written]
    spans = [text.token_span(x.mentions[event]) for text, x in zip(texts, shown, strict=True)]
    rows: dict[Variant, tuple[int, ...]] = {
        name: text.tokens for name, text in zip(VARIANTS, texts, strict=True)
    }
    label = labels.tokens(gold)
    with_label = written[0] + BEFORE + task.space[gold].text
    spelled = tokenize(tokenizer, with_label, (0, len(with_label)))
    if spelled.tokens != (*rows["clean"], *label):
        raise InputError(
            "this tokenizer spells a label otherwise in the chain than alone; needs one whose "
            "tokens begin at spaces"
        )
    too_long = context is not None and max(map(len, rows.values())) + len(label) > context
    if too_long or rows["clean"] in (rows["far"], rows["near"]):
        return None
    case = FreeCase(
        id=prompt_id,
        event=event,
        prompts=rows,
        aligned_suffix=shared_suffix(texts, spans),
        labels=dict(zip(VARIANTS, (gold, *swaps), strict=True)),
        gold=labels.number(gold),
        golds=tuple(map(labels.number, prompt.golds)),
        near=labels.near(gold),
        ends=tuple(one.tokens[-1] for one in candidates),
    )
    if place is None:
        return case
    options = (texts[0].token_span(span) for span in clean.options)
    described = dict(zip(prompt.candidates, options, strict=True))
    return replace(case, decision=_decision(case, place, spans[0], described, label))


def _chain_so_far(task: Task, prompt: DrawnPrompt, event: int) -> str:
    """The chain of the earlier mentions, and the start of this one's fine step."""
    steps = task.chain(prompt)
    stages = list(task.stages(event, steps))
    text = BEFORE + task.space[prompt.golds[event]].text
    fine = steps[stages.index("fine")] if "fine" in stages else ""
    opening, found, _ = fine.partition(text)
    if not found:
        raise InputError(f"the chains of task {task.space.name!r} do not write a label's text")
    earlier = [step for step, stage in zip(steps, stages, strict=True) if stage == "before"]
    return PlainTemplate.reason_cue + "".join(f"\n{step}" for step in (*earlier, opening))


def _parting(candidates: Sequence[_Candidate]) -> _Place | None:
    """The first token of gold at which both near and far candidates go another way."""
    gold = next(one for one in candidates if one.role == "gold")
    ranked = sorted(candidates, key=lambda one: _PRECEDENCE.index(one.role))
    for depth in range(len(gold.tokens)):
        options: dict[int, _Candidate] = {}
        for one in ranked:
            if one.tokens[:depth] == gold.tokens[:depth] and len(one.tokens) > depth:
                options.setdefault(one.tokens[depth], one)
        if {"near", "far"} <= {one.role for one in options.values()}:
            return _Place(depth, options)
    return None


def _swaps(
    role: Role,
    space: LabelSpace,
    prompt: DrawnPrompt,
    gold: str,
    candidates: Sequence[_Candidate],
    place: _Place | None,
) -> list[str]:
    """Labels that may take gold's place: of those with the role, the most telling ones."""
    pool = [one for one in candidates if one.role == role]
    if place is not None:
        # Not only the candidate that an option names: all that go on with its token.
        gold_tokens = next(one for one in candidates if one.role == "gold").tokens[: place.depth]
        apart = {token for token, one in place.options.items() if one.role == role}
        pool = [
            one
            for one in pool
            if one.tokens[: place.depth] == gold_tokens and one.tokens[place.depth] in apart
        ]
    if role == "near":
        cluster = space.cluster(gold)
        preferred = [one for one in pool if space.cluster(one.label) == cluster]
    else:
        golds = set(prompt.golds)
        preferred = [one for one in pool if golds.isdisjoint(prompt.family_of(one.label))]
    return [one.label for one in preferred or pool]


def _decision(
    case: FreeCase,
    place: _Place,
    evidence: Span,
    spans: Mapping[str, Span],
    written: tuple[int, ...],
) -> DecisionEvent | None:
    """The event at which candidates part; None where its variants are alike, or share no option."""
    start = len(case.prompts["clean"]) - case.aligned_suffix
    options = tuple(
        Option(one.label, token, one.role, spans[one.label]) for token, one in place.options.items()
    )
    if min(option.span[0] for option in options) < start:
        return None
    before = written[: place.depth]
    clean, far, near = ((*case.prompts[name], *before) for name in VARIANTS)
    if len({clean, far, near}) < 3:
        return None
    suffix = case.aligned_suffix + place.depth
    return DecisionEvent(case.id, case.event, clean, far, near, suffix, evidence, options)
