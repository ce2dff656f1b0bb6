"""The plan of a run, reported before training: parameters, images, steps, learning rate, memory."""

import functools
import operator
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from mae_jax.engine.memory import bytes_on_device, check_state, free_memory, readable
from mae_jax.engine.mesh import platform_of
from mae_jax.run import Run, build
from mae_jax.workdir import changes_since, last_step, recorded


def lines(run: Run, start: int = 0) -> list[str]:
    """The plan of a run, in lines: values derived from the data and the config, and warnings about
    likely mistakes.

    Args:
        start: steps done so far.
    """
    config, plan = run.config, run.plan
    size = sum(leaf.size for leaf in jax.tree.leaves(run.abstract_state.params))
    parts = f" in {run.microbatches} microbatches" if run.microbatches > 1 else ""
    text = (
        f"{run.name}: {size / 1e6:.2f} M parameters, {run.data.num_examples} images, "
        f"{run.mesh.size} {platform_of(run.mesh)} device(s), {plan.steps} steps of a batch of "
        f"{run.batch_size}{parts}; lr {plan.peak_lr:.3g} ({config.schedule.base_lr:g} x "
        f"{run.batch_size} / 256) after {plan.warmup_steps} steps of warm-up, then "
        f"{plan.decay} decay to {config.schedule.min_lr:g}"
        + (f"; resuming from step {start}" if start else "")
    )
    lines = [*run.data.notes(), *run.notes, text, *warm_up(run), *classes(run), *figures(run)]
    return lines + teachers(run)


def teachers(run: Run) -> list[str]:
    """A line for each teacher and tokenizer: its size in a checkpoint, and whether it is random."""
    loaded, extra, lines = {row.into for row in run.init_from.rows}, run.abstract_state.extra, []
    for part in run.method.encoders():
        collection, *names = part.split("/")
        if collection != "extra":
            continue
        leaves = jax.tree.leaves(functools.reduce(operator.getitem, names, extra))
        text = f"{part}: {sum(leaf.size for leaf in leaves) / 1e6:.2f} M values in each checkpoint"
        if part not in loaded:
            name = "teacher" if names[-1] == "encoder" else names[-1]
            text += (
                f"; they stay random: to load a {name}, set config.init_from.{name} with its path "
                f"and into={part}"
            )
        lines.append(text)
    return lines


def figures(run: Run) -> list[str]:
    """A line for each figure that does not apply to the method."""
    reasons = [(figure.name, figure.check(run.method)) for figure in run.evals.figures]
    return [f"no figure {name}: {run.name}: {reason}" for name, reason in reasons if reason]


def warm_up(run: Run) -> list[str]:
    """A line if warm-up takes more than half of the run."""
    warmup, steps = run.plan.warmup_steps, run.plan.steps
    if 2 * warmup <= steps:
        return []
    end = "ends at its peak" if warmup == steps else "hardly falls"
    return [
        f"the warm-up takes {warmup} of the {steps} steps, and the learning rate {end}: lower "
        f"config.schedule.warmup_epochs={run.config.schedule.warmup_epochs:g}, or raise "
        f"config.schedule.epochs={run.config.schedule.epochs:g}"
    ]


def classes(run: Run) -> list[str]:
    """A line for each label field whose number of classes differs from the training set's."""
    names = run.data.source("train").names
    lines = []
    for field, count in run.method.labels().items():
        if field in names and count != len(names[field]):
            of = "" if field == "label" else f" of {field}"
            lines.append(
                f"config.method.args.classes={count}, but the training set has "
                f"{len(names[field])}{of}"
            )
    return lines


def memory(run: Run) -> str:
    """The memory a run needs on each device, as far as it is known without compiling the step."""
    rows = run.data.example("train").values()
    batch = sum(row.nbytes for row in rows) * run.data.batch_size // run.mesh.size
    free, state = free_memory(), readable(bytes_on_device(run.abstract_state))
    left = f", of {readable(free)} that are free" if free is not None else ""
    return (
        f"memory of each device{left}: {state} for the train state "
        f"(parameters and moments) and {readable(batch)} for a batch, before gradients and "
        "activations: mae-jax bench step compiles the step and reports its full memory"
    )


def check(config: ConfigDict, workdir: Path, deviations: Sequence[str] = ()) -> list[str]:
    """Checks a run up to its first step: lists the data, decodes one image, traces the step. Writes
    nothing.

    Args:
        config: see `configs/`.
        workdir: workdir of the run; if it has a checkpoint, checks that the run can resume from it.
        deviations: lines about overridden values, reported first.

    Returns:
        The plan, in lines.

    Raises:
        UserError: the run could not be trained.
    """
    run = build(config, recorded(workdir))
    check_state(run.abstract_state)
    run.open_writers(workdir=workdir)  # checks that their packages are installed
    run.trace()
    claimed = run.config.copy_and_resolve_references()
    claimed.fingerprints = run.data.fingerprints()
    changes = changes_since(workdir, claimed)
    changed = [f"config.{key} is now {new!r}, was {old!r}" for key, (old, new) in changes.items()]
    plan = lines(run, last_step(workdir) or 0)
    return [*deviations, *changed, *plan, memory(run)]
