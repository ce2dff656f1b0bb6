"""Training, read from top to bottom: build the run, restore it, step, log, evaluate, save.

Everything that happens at a step is a function of the config and the step, so an interrupted run
resumes from its last checkpoint as if nothing had happened. Several processes run the same code,
each with its rows of a batch; the first one writes the files.
"""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from mae_jax import evaluate, plan
from mae_jax.distributed.job import check_same, check_shared
from mae_jax.distributed.watchdog import INPUT, STEP, Watchdog
from mae_jax.engine.checkpoint import Checkpoints
from mae_jax.engine.log import Log, console, read
from mae_jax.engine.meter import Diverged, Meter
from mae_jax.engine.multihost import from_first
from mae_jax.engine.preemption import BEFORE, StopRequests
from mae_jax.engine.prefetch import prefetch
from mae_jax.engine.profile import Profile
from mae_jax.errors import Preempted
from mae_jax.run import Run, build
from mae_jax.types import TrainState, UserError
from mae_jax.workdir import claim, lock, recorded, write
from mae_jax.writers.delivery import Writers

EVALUATING = "stopped while evaluating, with the training complete"
AGREED = Preempted, Diverged
"""Raised by all processes at the same step. If anything else is raised in one, the whole job ends
before the clean-up of this process, which could block on the others: see `Watchdog.guard`."""


def train(
    config: ConfigDict,
    workdir: Path,
    deviations: Sequence[str] = (),
    watchdog: Watchdog | None = None,
    stop: StopRequests | None = None,
) -> TrainState:
    """Trains a run to its end, resuming from the newest checkpoint in its workdir if there is one.

    Args:
        config: see `configs/`.
        workdir: folder for all output; created if missing.
        deviations: lines to print about overridden values.
        watchdog: watchdog of the job, see `mae_jax.distributed.job.join`.
        stop: handler of requests to stop; None: a new one.

    Returns:
        The final state.

    Raises:
        UserError: a config that cannot be built, a workdir of another run, a full disk.
        Preempted: asked to stop; a checkpoint was written if any step was done.
        Diverged: too many consecutive steps had a non-finite loss or gradient.
    """
    watchdog = watchdog or Watchdog()
    stopping = contextlib.nullcontext(stop) if stop else StopRequests()
    with stopping as stop, watchdog.guard(*AGREED), stop.at_once(BEFORE):
        run = build(config, recorded(workdir))
        watchdog.advice = run.memory_advice
        with lock(workdir):
            fingerprints = run.data.fingerprints()
            check_same(watchdog, run.config, fingerprints)
            changes = claim(workdir, run.config, fingerprints, run.class_names)
            if run.data.vocabulary and watchdog.index == 0:  # to read queries as texts of the run
                run.data.vocabulary.save(workdir)
            check_shared(watchdog, workdir / "config.json")
            with run.open_writers(workdir=workdir) as writers:
                lines = [*deviations, *changes]
                state, evaluated = complete(run, workdir, lines, stop, watchdog, writers)
                if not evaluated:
                    poll = stop.polls(EVALUATING, int(state.step))
                    with stop.at_once(EVALUATING):
                        evaluate.finish(run, state, workdir, poll, writers)
    return state


def complete(
    run: Run,
    workdir: Path,
    changes: Sequence[str],
    stop: StopRequests,
    watchdog: Watchdog,
    writers: Writers,
) -> tuple[TrainState, bool]:
    """Restores or initializes the state and trains it to the end.

    Args:
        changes: lines to print before the plan.

    Returns:
        The final state, and whether it has been evaluated already.
    """
    open_checkpoints = run.open_checkpoints(workdir / "checkpoints")
    with stop.later(), open_checkpoints as checkpoints, watchdog.guard(*AGREED):
        with stop.at_once(BEFORE):
            state = run.restore(checkpoints, workdir)
            if state is None:
                state, origins = run.loaded_state(), run.init_from.record(workdir)
            else:
                origins = []
            start, total = int(state.step), run.plan.steps
            evaluated = start == total and from_first(evaluate.is_evaluated(run, workdir, total))
            say(*changes, *origins, *plan.lines(run, start))
            if evaluated:
                say(f"finished: {workdir} has all {total} steps and their evaluation")
            if evaluated or (start == total and not due(total, run.evals.every)):
                return state, evaluated  # neither the compiled step nor the log is needed
            if stop.requested(start):
                raise Preempted(f"stopped before step {start + 1} of {total}")
            writers.start(start, lambda: read(workdir / "metrics.jsonl"))
            train_step, costs = run.compile()
            if costs["attention"]:
                say(f"attention: {'; '.join(costs['attention'])}")
        if jax.process_index() == 0:
            write(workdir / "costs.json", json.dumps(costs, indent=2))
        with run.open_log(workdir=workdir, start=start, total=total, writers=writers) as log:
            return loop(run, train_step, state, checkpoints, log, stop, watchdog), False


def loop(
    run: Run,
    train_step: Callable,
    state: TrainState,
    checkpoints: Checkpoints,
    log: Log,
    stop: StopRequests,
    watchdog: Watchdog,
) -> TrainState:
    """Runs the remaining steps, each followed by the checkpoint and evaluation that are due."""
    first, total, every = int(state.step), run.plan.steps, run.evals.every
    batches = prefetch(run.train_batches(first), run.put)
    meter = meter_of(run, log)
    share = lambda now: (meter.waited + now) / (time.monotonic() - meter.begun)
    profile = Profile(steps=run.profile, total=total, folder=log.path.parent / "profile")

    def leave(step: int):
        meter.settle()
        if step > first:
            checkpoints.save(state, step)
        profile.end()
        where = f"after step {step} of {total}, which is saved" if step > first else "before a step"
        raise Preempted(f"stopped {where}")

    with contextlib.closing(batches), watchdog.guard(*AGREED), profile:
        if due(first, every) and not from_first(log.has_evaluation(first)):
            with stop.giving_up():
                evaluate.during_training(run, state, log)
            if stop.told:
                leave(first)
        meter.restart()
        for done in range(first + 1, total + 1):
            if profile.due(done):
                meter.settle()
                profile.turn()
            with watchdog.phase(INPUT, done, share), meter.waiting():
                with saved_at_least(state, checkpoints, meter), stop.giving_up():
                    batch = next(batches)
            if stop.told:  # perhaps while waiting for the batch
                leave(done - 1)
            with watchdog.phase(STEP, done):
                state, metrics = train_step(state, batch)
                meter.stepped(done, metrics)
            if stop.requested(done) and done < total:
                leave(done)
            if done == total or checkpoints.due(done) or due(done, every):
                with watchdog.phase(STEP, done):
                    meter.settle()
                # Amid non-finite steps nothing is saved, to keep the checkpoints from before them.
                if done == total or checkpoints.due(done) and not meter.skipped_in_a_row:
                    checkpoints.save(state, done)  # before evaluation, which may be cut short
                if due(done, every):
                    with stop.giving_up():
                        evaluate.during_training(run, state, log)
                elif done == total:
                    evaluate.log_pictures(run, state, log)
                if stop.told and done < total:
                    leave(done)
                meter.restart()
    return state


def meter_of(run: Run, log: Log) -> Meter:
    """The meter of a run's training steps."""
    return Meter(
        log,
        schedule=run.plan.schedule,
        batch_size=run.data.batch_size,
        max_skipped=run.max_skipped,
        bad_images=lambda: run.data.skipped,
    )


@contextlib.contextmanager
def saved_at_least(state: TrainState, checkpoints: Checkpoints, meter: Meter):
    """Saves the state if a UserError such as a bad image is raised inside. Not with several
    processes, as one cannot save without the others.
    """
    try:
        yield
    except UserError:
        if jax.process_count() > 1:
            raise
        meter.settle()
        if not meter.skipped_in_a_row:
            checkpoints.save(state, int(state.step))
        raise


def due(step: int, every: int) -> bool:
    """Whether something that happens every `every` steps (0: never) happens at this step."""
    return bool(every) and step % every == 0


def say(*lines: str) -> None:
    """Prints lines, in process 0 only."""
    if jax.process_index() == 0:
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True)
