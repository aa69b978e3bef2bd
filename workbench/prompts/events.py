"""Decision events of a task, in a model's own tokens.

For each prompt:
1. Draw it, and choose the mention to be decided about.
2. Swap that mention for one of a far and of a near option, which gives the two counterfactuals.
3. Render the three with the template and append what the task poses the decision with: the
   letters of the earlier answers, unless it says otherwise; nothing where one mention alone is
   asked about.
4. Tokenize, find the spans, and give every option its role: gold is the label of the mention,
   other the further mentioned ones; of the rest, the gold label's family is near and the other
   families are far.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from workbench.errors import InputError
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.prompt import DecisionEvent, Option, PromptSet, Role
from workbench.prompts.task import Posed, Task
from workbench.prompts.templates import RenderedPrompt, Template
from workbench.prompts.text import next_tokens, shared_suffix, tokenize

EventChoice = int | Literal["random", "all"] | Callable[[DrawnPrompt], Sequence[int]]

_ATTEMPTS = 100


def make_events(
    task: Task,
    template: Template,
    tokenizer: Any,
    *,
    n_prompts: int,
    seed: int,
    event: EventChoice = "random",
) -> PromptSet:
    """Draw prompts and make decision events of them; prompt i is the same whatever `n_prompts`.

    Args:
        task: what prompts are drawn from; it names the prompt set.
        template: how a prompt reads.
        tokenizer: the model's, a Hugging Face tokenizer of the fast kind.
        n_prompts: how many prompts, called p0, p1 and so on.
        seed: of the draws.
        event: which mention is decided about, counted from 0: a random one, this one (prompts
            with fewer mentions are drawn again), each in turn, as events of one prompt, or those
            that a function of the prompt names (where it names none, the prompt is drawn again).

    Raises:
        InputError: a bad number of prompts or event, an option letter that is not one token for
            this tokenizer, or a task and tokenizer that never give aligned variants.
    """
    if n_prompts < 1:
        raise InputError(f"n_prompts is {n_prompts}, must be at least 1")
    most = task.most_decisions
    if not callable(event) and event not in ("random", "all", *range(most)):
        raise InputError(f"event is {event!r}, must be random, all or a mention, 0 to {most - 1}")
    events: list[DecisionEvent] = []
    for index in range(n_prompts):
        rng = random.Random(f"{seed}:events:{index}")
        events += _draw_prompt(task, template, tokenizer, f"p{index}", event, rng)
    return PromptSet(task.name, tuple(events))


def _draw_prompt(
    task: Task,
    template: Template,
    tokenizer: Any,
    prompt_id: str,
    choice: EventChoice,
    rng: random.Random,
) -> list[DecisionEvent]:
    """The events of one prompt; a prompt of which any event cannot be used is drawn again."""
    for _ in range(_ATTEMPTS):
        prompt = task.draw(prompt_id, rng)
        chosen = _chosen(choice, prompt, rng)
        drawn = [task.counterfactuals(prompt, number, rng) for number in chosen]
        events = []
        for each in drawn:
            variants = [replace(x, asked=each.event) for x in (each.clean, each.far, each.near)]
            rendered = [task.render(variant, template) for variant in variants]
            posed, roles = task.pose(each, rendered), task.roles(prompt, each.event)
            events.append(build_event(tokenizer, prompt, each.event, rendered, posed, roles))
        usable = [_with_families(task, prompt, event) for event in events if event is not None]
        if usable and len(usable) == len(chosen):
            return usable
    raise InputError(
        f"no usable prompt in {_ATTEMPTS} draws: with this task, template and tokenizer the "
        "counterfactuals do not align with the prompt, or no note has the mention asked for"
    )


def _with_families(task: Task, prompt: DrawnPrompt, event: DecisionEvent) -> DecisionEvent:
    """Options named by the first label of their family in the prompt, gold by its cluster."""
    options = tuple(
        replace(option, family=prompt.family_of(option.label)[0]) for option in event.options
    )
    family = task.space.cluster(prompt.golds[event.event])
    return replace(event, options=options, family=family)


def _chosen(choice: EventChoice, prompt: DrawnPrompt, rng: random.Random) -> Sequence[int]:
    n_mentions = len(prompt.mentions)
    if callable(choice):
        return choice(prompt)
    if choice == "all":
        return range(n_mentions)
    if isinstance(choice, int):
        return [choice] if choice < n_mentions else []
    return [rng.randrange(n_mentions)]


def build_event(
    tokenizer: Any,
    prompt: DrawnPrompt,
    event: int,
    rendered: Sequence[RenderedPrompt],
    posed: Posed,
    roles: Sequence[Role],
) -> DecisionEvent | None:
    """The event of one mention; None where its variants do not align.

    Variants align where no two read alike and all options are in what they share; options that
    stand before the evidence are read before it, and may stand before what they share.

    Args:
        tokenizer: the model's.
        prompt: the clean prompt.
        event: which mention is decided about.
        rendered: the clean, the far and the near variant, which the posed texts continue.
        posed: the decision.
        roles: of the candidates, in the order shown.

    Raises:
        SpanError: spans that do not fall on token borders.
        InputError: an option letter that is not one token.
    """
    letters = prompt.letters
    quoted = [each.quoted for each in rendered]
    texts = [
        tokenize(tokenizer, text, where) for text, where in zip(posed.texts, quoted, strict=True)
    ]
    spans = [text.token_span(span) for text, span in zip(texts, posed.swapped, strict=True)]
    clean, far, near = (text.tokens for text in texts)
    suffix = shared_suffix(texts, spans)
    gap = " " if len(posed.texts[0]) > len(rendered[0].text) else rendered[0].gap
    cues = [gap + letter for letter in letters.values()]
    tokens = next_tokens(tokenizer, texts[0].text, cues, quoted[0])
    offered = zip(letters, tokens, roles, rendered[0].options, strict=True)
    options = tuple(
        Option(label, token, role, texts[0].token_span(span))
        for label, token, role, span in offered
    )
    evidence = texts[0].token_span(posed.evidence)
    shown = range(min(option.span[0] for option in options), max(x.span[1] for x in options))
    aligned = shown.start >= len(clean) - suffix or (shown.stop <= evidence[0] and suffix > 0)
    if not aligned or len({clean, far, near}) < 3:
        return None
    fine = None if posed.fine_evidence is None else texts[0].token_span(posed.fine_evidence)
    return DecisionEvent(
        *(prompt.id, event, clean, far, near, suffix, evidence, options, fine), tokenizer=tokenizer
    )
