"""Terms of a phase against loops over examples and rows, and what they need and leave alone."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from fixtures.distillation import placed
from fixtures.losses import config_of

from workbench.distill.arms import ARMS, BY_PHASE, PHASES
from workbench.distill.examples.stream import Collator
from workbench.distill.losses.losses import update_loss
from workbench.distill.matching.head_map import swap_teacher
from workbench.errors import InputError

EVERY = replace(config_of(**dict.fromkeys(PHASES, 1.0)), interaction_temperature=0.1)
FLOOR = 1e-6


# The plain way


def activations(model, ids):
    """Attention, what each head writes, the final norm's factor and the unembedding's rows."""
    z, streams, layers = {}, [], model.model.layers
    hooks = [
        layer.self_attn.o_proj.register_forward_pre_hook(lambda m, a, i=i: z.update({i: a[0]}))
        for i, layer in enumerate(layers)
    ]
    hooks.append(model.model.norm.register_forward_pre_hook(lambda m, a: streams.append(a[0])))
    model.set_attn_implementation("eager")
    maps = model(input_ids=ids, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    for hook in hooks:
        hook.remove()
    stream, norm = streams[0].detach(), model.model.norm
    scale = norm.weight * (stream.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()

    def write(head, b, at):
        width = layers[0].self_attn.head_dim
        own = slice(head[1] * width, (head[1] + 1) * width)
        return layers[head[0]].self_attn.o_proj.weight[:, own] @ z[head[0]][b, at, own]

    return SimpleNamespace(maps=maps, write=write, scale=scale, rows=model.lm_head.weight)


def added(each):
    return torch.stack(list(each)).sum(dim=0)


def pooled(side, heads, b, at):
    whole = sum(heads.values())
    return added(w / whole * side.maps[layer][b, head, at] for (layer, head), w in heads.items())


def kl(theirs, ours):
    p, q = ((x / x.sum() + FLOOR) / (x / x.sum() + FLOOR).sum() for x in (theirs, ours))
    return (p * (p / q).log()).sum()


def logit_kl(theirs, ours):
    p, q = theirs.softmax(-1), ours.softmax(-1)
    return (p * (p / q).log()).sum()


def on_options(side, heads, sample, b, at):
    """Attention mass and contribution of heads for each option."""
    pattern = pooled(side, heads, b, at)
    mass = torch.stack([pattern[i:j].sum() for i, j in sample["option_spans"]])
    wrote = added(side.write(head, b, at) for head in heads) * side.scale[b, at]
    return mass, side.rows[list(sample["option_tokens"])] @ wrote


def plain(samples, teacher, student, headmap, supervision, space="residual"):
    """Every term as (mean, count): loops over examples, rows, decisions."""
    gold = supervision == "gold"
    n = max(len(sample["ids"]) for sample in samples)
    ids = torch.tensor([s["ids"] + [0] * (n - len(s["ids"])) for s in samples])
    with torch.no_grad():
        t = activations(teacher, ids)
    s = activations(student, ids)
    found = {}
    for phase, pool, rows in (("p1", "coarse", "early"), ("p2", "refine", "late")):
        groups = headmap.groups(pool)
        whole = {
            side: {head: w for group in groups for head, w in getattr(group, side).items()}
            for side in ("teacher", "student")
        }
        looks, both = [], []
        writes = {group.layer: ([], []) for group in groups}
        over = []
        for b, sample in enumerate(samples):
            n_options, real = len(sample["option_spans"]), len(sample["ids"])
            spoken = sample["late_option"] if phase == "p2" else [-1] * len(sample[rows])
            for at, decision, option in zip(
                sample[rows], sample[f"{rows}_decision"], spoken, strict=True
            ):
                mine = [decision] if decision >= 0 else range(len(sample["gold"]))
                right = {sample["gold"][k] for k in mine}
                if phase == "p1":
                    right |= {o for k, o in sample["near_options"] if k in mine}
                if option >= 0:
                    right = {option}
                label = torch.zeros(n_options)
                label[list(right)] = 1 / len(right)
                tokens = {
                    name: {i for k, x, y in sample[name] if k == decision for i in range(x, y)}
                    for name in ("shortlist", "near")
                }
                tokens["near"] -= tokens["shortlist"]
                each = []
                for group in groups:
                    ours, theirs = (
                        pooled(*x, b, at) for x in ((s, group.student), (t, group.teacher))
                    )
                    wrote = added(s.write(head, b, at) for head in group.student)
                    target = added(t.write(head, b, at) for head in group.teacher)
                    if gold:
                        target = (label @ s.rows[list(sample["option_tokens"])]).detach()
                    writes[group.layer][0].append(target)
                    writes[group.layer][1].append(wrote)
                    if phase == "p1" and not gold:
                        each.append(group.weight * kl(theirs[:real], ours[:real]))
                    elif phase == "p1":
                        there = {i for k in mine for i in range(*sample["evidence"][k])}
                        there |= {i for o in right for i in range(*sample["option_spans"][o])}
                        on = ours[sorted(there)].sum()
                        each.append(
                            group.weight
                            * kl(*map(torch.stack, ([on * 0 + 1, on * 0], [on, ours.sum() - on])))
                        )
                    elif any(x <= at for k, x, _ in sample["shortlist"] if k == decision):
                        sums = []
                        for one in (theirs, ours):
                            own, near = (one[sorted(tokens[x])].sum() for x in tokens)
                            sums.append(torch.stack([own, near, one.sum() - own - near]))
                        sums[0] = torch.tensor([1.0, 0, 0]) if gold else sums[0]
                        each.append(group.weight * kl(*sums))
                looks += [added(each)] if each else []
                mass, logits = on_options(s, whole["student"], sample, b, at)
                ours = (mass + FLOOR).log() + logits / 0.1
                if gold:
                    theirs, target = (label + FLOOR).log(), label.clamp(min=FLOOR).log() * 0.1
                else:
                    mass, target = on_options(t, whole["teacher"], sample, b, at)
                    theirs = (mass + FLOOR).log() + target / 0.1
                both.append(logit_kl(theirs, ours))
                over.append(logit_kl(target / 0.1, logits / 0.1))
        found["p1_attention" if phase == "p1" else "p2_loop"] = torch.stack(looks)
        found[f"{phase}_interaction"] = torch.stack(both)
        if space == "options":  # of pools within one layer
            found[f"{phase}_write"] = torch.stack(over)
            continue
        each = [
            group.weight * update_loss(*map(torch.stack, writes[group.layer]), debiased=True).mean
            for group in groups
        ]
        found[f"{phase}_write"] = added(each).expand(len(writes[groups[0].layer][0]))
    return {name: (values.mean(), len(values)) for name, values in found.items()}


@pytest.fixture
def samples(make_stream):
    stream = make_stream()
    return [placed(stream[index]) for index in range(4)]


@pytest.mark.parametrize("update_space", ["residual", "options"])
@pytest.mark.parametrize("supervision", ["teacher", "gold"])
def test_terms_equal_loops_over_rows(
    supervision, update_space, samples, make_model, make_trainer, headmap
):
    config = replace(EVERY, supervision=supervision, update_space=update_space)
    trainer = make_trainer(config)
    batch = Collator(8)(samples)
    losses, _ = trainer.losses(trainer.model, batch)
    expected = plain(samples, make_model(0), make_model(1), headmap, supervision, update_space)
    assert set(losses) == set(expected) == set(PHASES)
    for name, (mean, count) in expected.items():
        assert losses[name].count == count, name
        torch.testing.assert_close(losses[name].mean, mean, rtol=1e-4, atol=1e-5, msg=name)
    for name, count in trainer.terms.counts(trainer._complete(batch)).items():
        assert count == losses[name].count, name


@pytest.mark.parametrize("supervision", ["teacher", "gold"])
def test_gradients_are_those_of_the_loops(supervision, samples, make_model, make_trainer, headmap):
    trainer = make_trainer(replace(EVERY, supervision=supervision))
    losses, _ = trainer.losses(trainer.model, Collator(8)(samples[:2]))
    added(loss.mean for loss in losses.values()).backward()
    student = make_model(1)
    expected = plain(samples[:2], make_model(0), student, headmap, supervision)
    added(mean for mean, _ in expected.values()).backward()
    weights = dict(student.named_parameters())
    for name, weight in trainer.model.named_parameters():
        theirs = weights[name].grad
        if theirs is None:
            assert weight.grad is None or not weight.grad.any(), name
        else:
            torch.testing.assert_close(weight.grad, theirs, rtol=2e-3, atol=2e-5, msg=name)
    assert all(weight.grad is None for weight in trainer.teacher.parameters())


def test_accumulated_halves_equal_one_batch(samples, make_trainer):
    config = replace(EVERY, update_space="options", supervision="gold", lambda_p2=0.5)
    trainer = make_trainer(replace(config, per="example"))
    whole = trainer.compute_loss(trainer.model, Collator(8)(samples))
    halves = [Collator(8)(samples[:1]), Collator(8)(samples[1:])]
    batches, counts = trainer.get_batch_samples(iter(halves), 2, torch.device("cpu"))
    parts = [trainer.compute_loss(trainer.model, half, False, counts) for half in batches]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-5, atol=1e-6)
    trainer = make_trainer(EVERY)  # of CKA, samples add up
    whole = trainer.terms.counts(trainer._complete(Collator(8)(samples)))
    each = [trainer.terms.counts(trainer._complete(half)) for half in halves]
    assert {name: sum(one[name] for one in each) for name in whole} == whole


def test_a_student_that_is_its_teacher_loses_nothing(samples, make_trainer, make_model, headmap):
    same = swap_teacher(headmap, {"coarse": [(0, 0)], "refine": [(1, 0), (1, 1)]})
    trainer = make_trainer(EVERY, make_model(0), make_model(0), headmap=same)
    losses, _ = trainer.losses(trainer.model, Collator(8)(samples))
    for name, loss in losses.items():
        assert loss.mean.item() == pytest.approx(0, abs=1e-5), name


def test_labels_stand_for_the_teacher_which_does_not_run(samples, make_trainer, monkeypatch):
    config = ARMS["phases-gold"].loss
    assert not config.needs_teacher and replace(config, logit=0.1).needs_teacher
    trainer = make_trainer(config, max_steps=8, learning_rate=2e-2, save_strategy="no")
    monkeypatch.setattr(trainer.teacher, "forward", lambda **_: pytest.fail("the teacher runs"))
    trainer.train_dataset = samples * 8
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    for name in ("loss_p1_attention", "loss_p2_loop", "loss_p2_interaction"):
        assert rows[-1][name] < 0.9 * rows[0][name], name


def test_lambdas_multiply_the_terms_of_their_phase(samples, make_trainer):
    config = replace(BY_PHASE, lambda_p1=0.0, lambda_p2=2.0)
    assert config.on == {"chain": 1.0, "p2_loop": 2.0, "p2_write": 0.3, "p2_interaction": 0.3}
    assert config.taught_pools == {"refine"}
    trainer = make_trainer(config)
    batch = trainer.data_collator(samples)
    assert "early" not in batch and "gold" not in batch, "nothing is read where no term looks"
    late = {at for sample in samples for at in sample["late"]}
    assert set(batch["queries"].flatten().tolist()) - {-1} == late


def test_rows_that_see_no_shortlist_do_not_count(samples, make_trainer):
    behind = [
        {**one, "shortlist": [(k, one["late"][-1], one["late"][-1] + 1) for k, *_ in one["near"]]}
        for one in samples
    ]
    trainer = make_trainer(EVERY)
    count = trainer.terms.counts(trainer._complete(Collator(8)(behind)))["p2_loop"]
    assert count == len(samples)  # the last row of each, which is the token itself


def test_a_pool_that_is_missing_is_said_in_a_line(make_trainer, headmap):
    only = headmap.model_copy(update={"pairs": headmap.in_pool("coarse")})
    with pytest.raises(InputError, match="no heads of the refine pool"):
        make_trainer(BY_PHASE, headmap=only)
    make_trainer(replace(BY_PHASE, lambda_p2=0.0), headmap=only)
    assert BY_PHASE.of_pool("refine") == "p2_loop, p2_write, p2_interaction"
    assert BY_PHASE.without("refine") == "--lambda-p2 0 leaves the terms of its phase out"
