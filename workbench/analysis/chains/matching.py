"""Readings of documents and chains of one's own: labels and evidence are found by their words.

A label is found by its text and its aliases, see `places`. A token belongs to the decision of which
a label was listed last.
"""

from typing import Any

from workbench.analysis.chains.places import find_all, tokens_over
from workbench.analysis.chains.reading import ChainReading, Decision, LabelPlaces, last_listed
from workbench.errors import InputError
from workbench.labels.space import LabelSpace
from workbench.prompts.chain import decoded, step_spans
from workbench.prompts.own_chains import OwnChain, OwnLabel
from workbench.prompts.text import tokenize


def with_aliases(chain: OwnChain, space: LabelSpace) -> OwnChain:
    """The same with the synonyms that a label space has for its labels, by id."""
    labels = [
        label.model_copy(update={"aliases": [*label.aliases, *space[label.label].synonyms]})
        if label.label in space
        else label
        for label in chain.labels
    ]
    return chain.model_copy(update={"labels": labels})


def read_own(chain: OwnChain, tokenizer: Any, *, split: str = "sentence") -> ChainReading:
    """The reading of a document and chain of one's own, all places by matching.

    A label is told, as next token, by the tokens of its text that no near miss's text has; the
    first token where all are shared.

    Raises:
        InputError: the chain is missing or holds no token, or the tokenizer is not of the fast
            kind.
    """
    where = f"chain {chain.id!r}"
    if chain.chain is None:
        raise InputError(f"{where}: has no chain; have the model write it first")
    document, written = chain.document.given, chain.chain.given
    if isinstance(document, str) and isinstance(written, str):
        text = document + written
        made = tokenize(tokenizer, text)
        tokens, ends = made.tokens, [end for _, end in made.offsets]
        border = len(document)
    else:
        before = _ids(tokenizer, document)
        after = _ids(tokenizer, written)
        tokens = (*before, *after)
        head, _ = decoded(tokenizer, before)
        text, ends = decoded(tokenizer, list(tokens))
        border = len(head)
    start = next((i for i, end in enumerate(ends) if end > border), len(tokens))
    if not 0 < start < len(tokens):
        raise InputError(f"{where}: document and chain need at least one token each")
    names = [(label.text, *label.aliases) for label in chain.labels]
    in_document = find_all(text[:border], names)
    in_chain = find_all(text[border:], names)
    numbers, decisions = _families(chain)
    own = [_own_tokens(tokenizer, label.text) for label in chain.labels]
    rival: dict[int, set[int]] = {}
    for one in decisions:
        for at in one.members:
            rival.setdefault(at, set()).update(
                token for other in one.members if other != at for token in own[other]
            )
    labels = tuple(
        LabelPlaces(
            label.label,
            numbers[at],
            tuple(x for x in own[at] if x not in rival.get(at, ())) or own[at][:1],
            tuple(tokens_over(ends, span) for span in in_document[at]),
            tuple(
                (max(start, first), last)
                for a, b in in_chain[at]
                for first, last in [tokens_over(ends, (a + border, b + border))]
            ),
        )
        for at, label in enumerate(chain.labels)
    )
    golds = [(chain.labels[one.gold].text, *chain.labels[one.gold].aliases) for one in decisions]
    phrases = [(phrase,) for phrase in chain.evidence] or golds
    evidence = tuple(
        tokens_over(ends, span) for spans in find_all(text[:border], phrases) for span in spans
    )
    steps = [
        tokens_over(ends, (border + a, border + b))[1] - start
        for a, b in step_spans(text[border:], split)
    ]
    return ChainReading(
        chain.id,
        tuple(tokens),
        start,
        labels,
        tuple(sorted(set(evidence))),
        decisions,
        tuple(last_listed(labels, decisions, start, len(tokens) - start)),
        tuple(sorted({step for step in steps if step > 0})),
        "matched",
        tuple(label.text for label in chain.labels),
        tuple(chain.evidence),
    )


def _families(chain: OwnChain) -> tuple[list[int], tuple[Decision, ...]]:
    """Number of each label's family, and a decision for each gold label."""
    names = [_family(chain, label) for label in chain.labels]
    known = list(dict.fromkeys(names))
    decisions = []
    for gold, label in enumerate(chain.labels):
        if label.role == "gold":
            near = [
                at
                for at, other in enumerate(chain.labels)
                if other.role == "near" and names[at] == names[gold]
            ]
            decisions.append(
                Decision(len(decisions), gold, tuple(near), tuple(range(len(chain.evidence))))
            )
    return [known.index(name) for name in names], tuple(decisions)


def _family(chain: OwnChain, label: OwnLabel) -> str:
    """Without one of its own: the only gold label's for near misses, else a family by itself."""
    if label.family is not None:
        return f"given {label.family}"
    [gold, *_] = [one for one in chain.labels if one.role == "gold"]
    if label.role == "near":
        return _family(chain, gold)
    return f"own {label.label}"


def _own_tokens(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Tokens of a text that follows a space, each once."""
    found = tokenizer(f" {text}", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return tuple(dict.fromkeys(found))


def _ids(tokenizer: Any, given: str | list[int]) -> list[int]:
    if not isinstance(given, str):
        return given
    return tokenizer(given, add_special_tokens=False, split_special_tokens=True)["input_ids"]
