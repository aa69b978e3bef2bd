"""What can be seen without patching: baseline of every event, scores, layer trajectory."""

import pandas as pd

from workbench.analysis.logit_lens import COLUMNS, layer_trajectory
from workbench.analysis.option_mass import explain_mass, likely_mistake, mass_counts, mass_warning
from workbench.analysis.patching.patching import baseline as baseline_table
from workbench.analysis.patching.patching import event_counts
from workbench.analysis.scores.registry import known_scores
from workbench.analysis.scores.scores import score_heads
from workbench.analysis.statistics import families_in_both
from workbench.errors import InputError
from workbench.phases import READOUT_COLUMNS
from workbench.prompts.prompt import PromptSet
from workbench.runs.steps import Made
from workbench.runs.subject import Subject, Tables
from workbench.runs.summary import explain_counts, explain_too_few


def baseline(subject: Subject, tables: Tables) -> Made:
    """Focus and Confusion of every event and variant, and which events are valid pairs."""
    table = _baseline(subject)
    if n_shared := families_in_both(subject.halves, subject.prompts.families):
        subject.reporter.say(
            f"halves: {n_shared} families of labels lie in both, since too many prompts share "
            "labels; they are split by prompt"
        )
    by_variant = {row.pop("variant"): row for row in event_counts(table)}
    for variant, counts in by_variant.items():
        subject.reporter.say(explain_counts(variant, counts))
    for line in explain_too_few(table):
        subject.reporter.say(line)
    mass = mass_counts(table)
    subject.reporter.say(explain_mass(mass))
    if mass_warning(mass):
        mass["mistake"] = likely_mistake(subject.model, subject.prompts)
        subject.reporter.say(mass_warning(mass))
    return Made({"baseline": table}, by_variant | {"option_mass": mass})


def _baseline(subject: Subject) -> pd.DataFrame:
    """The baseline table; rows of events that are there are kept."""
    before = subject.rows("baseline")
    if not {"half", "option_mass", *READOUT_COLUMNS} <= set(before.columns):
        before = pd.DataFrame(columns=["id", "event"])
    there = set(zip(before["id"], before["event"], strict=True))
    new = [event for event in subject.prompts if (event.id, event.event) not in there]
    if there:
        subject.reporter.say(f"baseline: {len(there)} events were run before, {len(new)} are added")
    if not new:
        return before
    with subject.reporter.step("baseline", len(new)) as advance:
        prompts = PromptSet(subject.prompts.task, tuple(new))
        spread = subject.together.spread
        made = baseline_table(subject.model, prompts, subject.halves, advance, spread=spread)
    return pd.concat([before, made], ignore_index=True) if there else made


def scores(subject: Subject, tables: Tables) -> Made:
    """Both scores of every head, with their nulls, on the selection half."""
    config = subject.config
    unknown = sum(event.options[0].family is None for event in subject.selection)
    if unknown:
        subject.reporter.say(
            f"score: {unknown} of {len(subject.selection)} events do not name the families of "
            "their options: all far ones count as one in CoarseScore's null, which then finds less"
        )
    with subject.reporter.step("score", len(subject.selection)) as advance:
        table = score_heads(
            subject.model,
            subject.selection,
            n_resamples=config.n_resamples,
            n_permutations=config.n_permutations,
            seed=config.seed,
            progress=advance,
            spread=subject.together.spread,
        )
    significant = {
        name: int((table[f"{name}_q"].to_numpy() <= config.false_discovery_rate).sum())
        for name, one in known_scores().items()
        if one.null is not None
    }
    counts = {"events": len(subject.selection), "heads": len(table)}
    return Made({"scores": table}, counts | {"below_false_discovery_rate": significant})


def trajectory(subject: Subject, tables: Tables) -> Made:
    """Focus and Confusion after every layer, on all prompts.

    Where the logit lens does not fit the model the table is empty, and the reason is said.
    """
    config = subject.config
    try:
        with subject.reporter.step("trajectory", len(subject.prompts)) as advance:
            table = layer_trajectory(
                subject.model,
                subject.prompts,
                n_resamples=config.n_resamples,
                seed=config.seed,
                progress=advance,
                spread=subject.together.spread,
            )
    except InputError as error:
        subject.reporter.say(f"trajectory: none ({error})")
        return Made({"trajectory": pd.DataFrame(columns=COLUMNS)}, {"events": 0})
    return Made({"trajectory": table}, {"events": len(subject.prompts)})
