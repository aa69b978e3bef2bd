"""Decision events of the coding task, in a model's own tokens.

For each prompt:
1. Draw it, and choose the mention to be decided about.
2. Swap that mention for one of a far and of a near option, which gives the two counterfactuals.
3. Render the three with the template and append the letters of the earlier answers.
4. Tokenize, find the spans, and give every option its role from the taxonomy: gold is the label
   of the mention, other the further mentioned ones; of the rest, the gold label's family is near
   and the other families are far.
"""

import random
from collections.abc import Sequence
from typing import Any, Literal

from workbench.errors import InputError
from workbench.prompts.prompt import DecisionEvent, Option, PromptSet, Role
from workbench.prompts.tasks import CodingPrompt, CodingTask, Counterfactuals
from workbench.prompts.templates import CharSpan, Template, letter_of
from workbench.prompts.text import TokenizedText, common_suffix, next_tokens, tokenize

EventChoice = int | Literal["random", "all"]

_ATTEMPTS = 100


def make_events(
    task: CodingTask,
    template: Template,
    tokenizer: Any,
    *,
    n_prompts: int,
    seed: int,
    event: EventChoice = "random",
    id_prefix: str = "p",
) -> PromptSet:
    """Draw prompts and make decision events of them; prompt i is the same whatever `n_prompts`.

    Args:
        task: what prompts are drawn from; its label space names the prompt set.
        template: how a prompt reads.
        tokenizer: the model's, a Hugging Face tokenizer of the fast kind.
        n_prompts: how many prompts.
        seed: of the draws.
        event: which mention is decided about, counted from 0: a random one, this one (prompts
            with fewer mentions are drawn again), or each in turn, as events of one prompt.
        id_prefix: prompts are called by it and their number.

    Raises:
        InputError: a bad number of prompts or event, an option letter that is not one token for
            this tokenizer, or a task and tokenizer that never give aligned variants.
    """
    if n_prompts < 1:
        raise InputError(f"n_prompts is {n_prompts}, must be at least 1")
    _check_choice(event, task.config.n_mentions[1])
    events: list[DecisionEvent] = []
    for index in range(n_prompts):
        rng = random.Random(f"{seed}:events:{index}")
        events += _draw_prompt(task, template, tokenizer, f"{id_prefix}{index}", event, rng)
    return PromptSet(task.space.name, tuple(events))


def _check_choice(event: EventChoice, most_mentions: int) -> None:
    if isinstance(event, str):
        if event not in ("random", "all"):
            raise InputError(f"event is {event!r}, must be a number, 'random' or 'all'")
    elif not 0 <= event < most_mentions:
        raise InputError(f"event is {event}, but notes have at most {most_mentions} mentions")


def _draw_prompt(
    task: CodingTask,
    template: Template,
    tokenizer: Any,
    prompt_id: str,
    choice: EventChoice,
    rng: random.Random,
) -> list[DecisionEvent]:
    """The events of one prompt; a prompt of which any event cannot be used is drawn again."""
    for _ in range(_ATTEMPTS):
        prompt = task.draw(prompt_id, rng)
        chosen = _chosen(choice, len(prompt.mentions), rng)
        drawn = [task.counterfactuals(prompt, number, rng) for number in chosen]
        events = [_build_event(task, template, tokenizer, variants) for variants in drawn]
        usable = [event for event in events if event is not None]
        if usable and len(usable) == len(chosen):
            return usable
    raise InputError(
        f"no usable prompt in {_ATTEMPTS} draws: with this task, template and tokenizer the "
        "counterfactuals do not align with the prompt, or no note has the mention asked for"
    )


def _chosen(choice: EventChoice, n_mentions: int, rng: random.Random) -> Sequence[int]:
    if choice == "all":
        return range(n_mentions)
    if isinstance(choice, int):
        return [choice] if choice < n_mentions else []
    return [rng.randrange(n_mentions)]


def _build_event(
    task: CodingTask, template: Template, tokenizer: Any, variants: Counterfactuals
) -> DecisionEvent | None:
    """The event; None where the options are not in what the variants share, or nothing changed."""
    prompts = (variants.clean, variants.far, variants.near)
    rendered = [template.render(task.space, prompt) for prompt in prompts]
    answers = _earlier_answers(variants)
    texts = [tokenize(tokenizer, each.text + answers) for each in rendered]
    clean, far, near = (text.tokens for text in texts)
    swapped = [
        text.token_span(each.mentions[variants.event])
        for text, each in zip(texts, rendered, strict=True)
    ]
    # The mentions may end in the same tokens: these still belong to what was swapped.
    after = min(len(text.tokens) - end for text, (_, end) in zip(texts, swapped, strict=True))
    suffix = min(common_suffix([clean, far, near]), after)
    options = _options(tokenizer, variants, texts[0], rendered[0].options)
    aligned = min(option.span[0] for option in options) >= len(clean) - suffix
    if not aligned or clean in (far, near):
        return None
    return DecisionEvent(
        variants.clean.id, variants.event, clean, far, near, suffix, swapped[0], options
    )


def _earlier_answers(variants: Counterfactuals) -> str:
    letters = letter_of(variants.clean)
    earlier = variants.clean.mentions[: variants.event]
    return "".join(f" {letters[mention.label]}" for mention in earlier)


def _options(
    tokenizer: Any, variants: Counterfactuals, text: TokenizedText, spans: Sequence[CharSpan]
) -> tuple[Option, ...]:
    prompt = variants.clean
    letters = letter_of(prompt)
    labels = prompt.candidates
    tokens = next_tokens(tokenizer, text.text, [f" {letters[label]}" for label in labels])
    return tuple(
        Option(label, token, role_of(prompt, variants.event, label), text.token_span(span))
        for label, token, span in zip(labels, tokens, spans, strict=True)
    )


def role_of(prompt: CodingPrompt, event: int, label: str) -> Role:
    """Role of a candidate when this mention is decided about."""
    gold = prompt.mentions[event].label
    if label == gold:
        return "gold"
    if any(label == mention.label for mention in prompt.mentions):
        return "other"
    return "near" if label in prompt.family_of(gold) else "far"
