"""Training, read from top to bottom: build the run, restore it, step, log, evaluate, save.

Everything that happens at a step is a function of the config and the step, so a run that was
stopped anywhere goes on from its last checkpoint as if nothing had happened.
"""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from mae_jax import evaluate
from mae_jax.config import differences, from_json, to_json
from mae_jax.engine.checkpoint import Checkpoints
from mae_jax.engine.log import Log, console
from mae_jax.engine.meter import Meter
from mae_jax.engine.preemption import StopRequests
from mae_jax.run import Run, build
from mae_jax.spec import call_section
from mae_jax.types import TrainState, UserError

MAY_CHANGE = ("log.", "checkpoint.", "evals.", "mesh.", "data.workers", "data.pipeline")
"""What a resumed run may set otherwise: it does not change what is learned."""


class Preempted(Exception):
    """The run was told to stop and has saved itself: start it again to go on."""


def train(config: ConfigDict, workdir: Path) -> TrainState:
    """Trains a run to its end, going on from the newest checkpoint in its workdir if there is one.

    Args:
        config: see `configs/`.
        workdir: where everything is written; made if missing.

    Returns:
        The final state.

    Raises:
        UserError: a config that cannot be built, a workdir of another run, a full disk.
        Preempted: told to stop; a checkpoint was written.
        Diverged: too many steps in a row were not finite.
    """
    run = build(config)
    claim(workdir, config)
    with Checkpoints(workdir / "checkpoints", **config.checkpoint) as checkpoints:
        state = checkpoints.restore(run.like)
        state = run.fresh() if state is None else state
        announce(run, int(state.step))
        log = call_section(
            Log, config.log, "log", workdir=workdir, start=int(state.step), total=run.plan.steps
        )
        with log, StopRequests() as stop:
            state = loop(run, state, checkpoints, log, stop)
    finish(run, state, workdir)
    return state


def loop(
    run: Run, state: TrainState, checkpoints: Checkpoints, log: Log, stop: StopRequests
) -> TrainState:
    """Runs the remaining steps, and what is due after each."""
    total = run.plan.steps
    train_step = run.train_step()
    first = int(state.step)
    batches = run.data.train(first)
    meter = Meter(
        log,
        schedule=run.plan.schedule,
        batch_size=run.data.batch_size,
        max_skipped=run.config.max_skipped,
    )
    if first == 0 and run.evals.every:
        log.write(0, evaluate.run_evaluators(run, run.predictor(state), run.evals.evaluators))
    try:
        for done in range(first + 1, total + 1):
            with meter.waiting():
                batch = run.put(next(batches))
            state, metrics = train_step(state, batch)
            meter.stepped(done, metrics)
            last, stopping = done == total, stop.requested(done)
            if stopping or last or checkpoints.due(done) or due(done, run.evals.every):
                meter.settle()
                if due(done, run.evals.every):
                    values = evaluate.run_evaluators(
                        run, run.predictor(state), run.evals.evaluators
                    )
                    log.write(done, values)
                if stopping or last or checkpoints.due(done):
                    checkpoints.save(state, done)
                meter.restart()
            if stopping and not last:
                raise Preempted(f"stopped after step {done} of {total}")
    finally:
        batches.close()
    return state


def due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps (0: never) happens now."""
    return bool(every) and step % every == 0


def claim(workdir: Path, config: ConfigDict) -> None:
    """Makes the workdir this run's, or checks that it is.

    Raises:
        UserError: it is another run's; names every difference.
    """
    path = workdir / "config.json"
    if path.exists():
        changed = differences(from_json(path.read_text(encoding="utf-8")), config)
        harmful = {k: v for k, v in changed.items() if not k.startswith(MAY_CHANGE)}
        if harmful:
            listed = "; ".join(
                f"{k}: {old!r} there, {new!r} now" for k, (old, new) in harmful.items()
            )
            raise UserError(
                f"{workdir} is the workdir of another config ({listed}): use another "
                "--workdir, or the same values"
            )
        for key, (old, new) in changed.items():
            console.print(f"config.{key} is now {new!r}, was {old!r}", highlight=False)
    workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        path.write_text(to_json(config) + "\n", encoding="utf-8")


def announce(run: Run, start: int) -> None:
    """Says what will run, with the numbers that were derived from others."""
    size = sum(leaf.size for leaf in jax.tree.leaves(run.like.params))
    console.print(
        f"{run.config.method.name}: {size / 1e6:.2f} M parameters, {run.data.num_examples} images, "
        f"batch {run.config.data.batch_size}, {run.plan.steps} steps ({run.plan.warmup_steps} of "
        f"warm-up), peak lr {run.plan.peak_lr:.3g}, {run.mesh.size} {jax.default_backend()} "
        f"device(s)" + (f", going on from step {start}" if start else ""),
        highlight=False,
    )


def finish(run: Run, state: TrainState, workdir: Path) -> None:
    """Evaluates the trained encoder beside its baselines and draws the figures."""
    if run.evals.evaluators:
        results = evaluate.evaluate(run, state, run.evals.evaluators)
        evaluate.write_results(workdir, int(state.step), results)
        console.print(evaluate.table(results, f"after {int(state.step)} steps, held-out images"))
    for path in evaluate.figures(run, state, workdir):
        console.print(f"wrote {path}", highlight=False)
