"""Decision events of a task, in a model's own tokens.

For each prompt:
1. Draw it, and choose the mention to be decided about.
2. Swap that mention for one of a far and of a near option, which gives the two counterfactuals.
3. Render the three with the template and append what the task asks with: the letters of the
   earlier answers, unless it says otherwise; nothing where one mention alone is asked about.
4. Tokenize, find the spans, and give every option its role: gold is the label of the mention,
   other the further mentioned ones; of the rest, the gold label's family is near and the other
   families are far.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from workbench.errors import InputError
from workbench.prompts.drawn import Decision, DrawnPrompt
from workbench.prompts.prompt import DecisionEvent, Option, PromptSet
from workbench.prompts.task import Evidence, Task
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
        task: what prompts are drawn from; its label space names the prompt set.
        template: how a prompt reads.
        tokenizer: the model's, a Hugging Face tokenizer of the fast kind.
        n_prompts: how many prompts, called p0, p1 and so on.
        seed: of the draws.
        event: which mention is decided about, counted from 0: a random one of those that the task
            asks about directly, this one (prompts with fewer mentions are drawn again), each in
            turn, as events of one prompt, or those that a function of the prompt names (where it
            names none, the prompt is drawn again).

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
    return PromptSet(task.space.name, tuple(events))


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
        chosen = _chosen(choice, task, prompt, rng)
        drawn = [task.counterfactuals(prompt, number, rng) for number in chosen]
        events = []
        for each in drawn:
            variants = [replace(x, asked=each.event) for x in (each.clean, each.far, each.near)]
            rendered = [task.render(variant, template) for variant in variants]
            decision = task.decision(prompt, each.event)
            evidence = task.evidence(each, rendered)
            events.append(build_event(tokenizer, decision, rendered, evidence))
        usable = [event for event in events if event is not None]
        if usable and len(usable) == len(chosen):
            return usable
    raise InputError(
        f"no usable prompt in {_ATTEMPTS} draws: with this task, template and tokenizer the "
        "counterfactuals do not align with the prompt, or no note has the mention asked for"
    )


def _chosen(
    choice: EventChoice, task: Task, prompt: DrawnPrompt, rng: random.Random
) -> Sequence[int]:
    n_mentions = len(prompt.mentions)
    if callable(choice):
        return choice(prompt)
    if choice == "all":
        return range(n_mentions)
    if isinstance(choice, int):
        return [choice] if choice < n_mentions else []
    direct = task.direct(prompt)
    return [direct[rng.randrange(len(direct))]]


def build_event(
    tokenizer: Any, decision: Decision, rendered: Sequence[RenderedPrompt], evidence: Evidence
) -> DecisionEvent | None:
    """The event of one mention; None where its variants do not align.

    Variants align where all options are in what they share, and no two read alike.

    Args:
        tokenizer: the model's.
        decision: of the clean prompt.
        rendered: the clean, the far and the near variant.
        evidence: where they differ.

    Raises:
        SpanError: spans that do not fall on token borders.
        InputError: an option letter that is not one token.
    """
    prompt, letters = decision.prompt, decision.prompt.letters
    gap = rendered[0].gap
    asked = "" if rendered[0].one or not decision.asked else gap + decision.asked.removeprefix(" ")
    texts = [tokenize(tokenizer, each.text + asked, each.quoted) for each in rendered]
    swapped = zip(texts, evidence.swapped, strict=True)
    spans = [text.token_span(span) for text, span in swapped]
    clean, far, near = (text.tokens for text in texts)
    suffix = shared_suffix(texts, spans)
    cues = [(" " if asked else gap) + letter for letter in letters.values()]
    tokens = next_tokens(tokenizer, texts[0].text, cues, rendered[0].quoted)
    shown = zip(letters, tokens, decision.roles, rendered[0].options, strict=True)
    options = tuple(
        Option(label, token, role, texts[0].token_span(span)) for label, token, role, span in shown
    )
    aligned = min(option.span[0] for option in options) >= len(clean) - suffix
    if not aligned or len({clean, far, near}) < 3:
        return None
    coarse = texts[0].token_span(evidence.coarse)
    fine = None if evidence.fine is None else texts[0].token_span(evidence.fine)
    return DecisionEvent(prompt.id, decision.event, clean, far, near, suffix, coarse, options, fine)
