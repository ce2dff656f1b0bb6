"""A run: a learner with its data, evaluators and checkpoints, built from a config. Training,
evaluation and the other commands all build it here, so a config means the same to all of them.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mae_jax import checks, settings, standardize
from mae_jax.config import check_sections
from mae_jax.data import Data, fields, make_data
from mae_jax.engine import mesh as meshes
from mae_jax.engine.checkpoint import Checkpoints
from mae_jax.engine.compiler import changed_options
from mae_jax.engine.costs import Costs
from mae_jax.engine.log import Log, report
from mae_jax.engine.memory import bytes_on_device, check_room, check_state, step_advice
from mae_jax.engine.profile import Profile
from mae_jax.evals.classify import check_labels
from mae_jax.evals.features import Evaluator
from mae_jax.learner import Learner, build_learner
from mae_jax.settings import EvalPlan, make_eval_plan, make_evaluators, make_log_plan
from mae_jax.spec import bind_section, call_section
from mae_jax.types import TrainState, UserError, image_shape
from mae_jax.weights import image_of
from mae_jax.weights.init_from import InitFrom, make_init_from, pixel_statistics
from mae_jax.writers.delivery import Writers


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run(Learner):
    """Everything that a config names, see `build`."""

    config: ConfigDict
    """The config with the resolved mean and standard deviation, as stored in the workdir."""
    data: Data
    evals: EvalPlan
    init_from: InitFrom
    profile: str
    """Steps to trace with the profiler, 'FIRST:LAST'; empty: none."""
    max_skipped: int
    """Consecutive steps with a non-finite loss or gradient after which training stops."""
    notes: Sequence[str]
    """Lines to report at the start, about derived values."""
    open_checkpoints: Callable[..., Checkpoints]
    """(folder, read_only) -> the checkpoints there."""
    open_log: Callable[..., Log]
    """(workdir, start, total, writers) -> the log there, from step `start` on."""
    open_writers: Callable[..., Writers]
    """(workdir) -> the writers of the run, not started."""
    memory_advice: str
    """Which settings to change if the step does not fit in device memory."""

    def loaded_state(self) -> TrainState:
        """The state before the first step: the initial state with the weights of `init_from`."""
        return self.init_from.load(self.initial_state())

    def restore(self, checkpoints: Checkpoints, workdir: Path) -> TrainState | None:
        """Restores the newest checkpoint of a workdir; None if there is none.

        Raises:
            UserError: the checkpoint is of another model, or of another image shape, or does not
                fit in device memory.
        """
        check_state(self.abstract_state)
        with checks.explained_by_images(str(workdir), image_of(workdir), self.data):
            return checkpoints.restore(self.abstract_state)

    def compile(self) -> tuple[Callable, Costs]:
        """The compiled training step, and its costs.

        Raises:
            UserError: see `trace`; or the step does not fit in device memory beside the train
                state, which is there already.
        """
        self.check_training()
        step, costs = super().compile()
        if costs["step_megabytes"] is not None:
            check_room(
                round(costs["step_megabytes"] * 1e6) - bytes_on_device(self.abstract_state),
                "the compiled step beside the train state",
                self.memory_advice,
            )
        return step, costs

    def trace(self) -> None:
        """Traces the training step without compiling it.

        Raises:
            UserError: see `check_training`, or images of a shape the method cannot learn from.
        """
        self.check_training()
        super().trace()

    def check_training(self) -> None:
        """Raises UserError if the training set lacks labels that the method needs, or if the data
        have more views than the method uses.
        """
        checks.check_classes(self.method, self.data)
        checks.check_vocabulary(self.method, self.data)
        if self.data.views > self.method.views:
            raise UserError(f"{self.name} uses one view of an image: set config.data.views=1")

    def train_batches(self, start_step: int) -> Iterator[Mapping[str, Any]]:
        """This process's training batches; checks the labels that the method learns.

        Raises:
            UserError: a label that is none of the classes, or no number; or a token that is not in
                the vocabulary.
        """
        own, learned = self.data.source("train").fields, dict(self.method.labels())
        size = self.method.vocabulary_size()
        if "weight" in self.data.example("train"):
            learned["weight"] = 1
        with contextlib.closing(self.data.train(start_step)) as batches:
            for batch in batches:
                for field, classes in learned.items():
                    known = dict(
                        ignored=fields.ignored(field, own), holds=fields.of(field, own).holds
                    )
                    check_labels(batch[field], classes, "train", field=field, **known)
                if size:
                    checks.check_tokens(batch["text"], size)
                yield batch

    @property
    def class_names(self) -> dict[str, list[str]]:
        """Field that is learned -> names of its classes in the training set, if it has any."""
        names = self.data.source("train").names
        return {field: list(names[field]) for field in self.method.labels() if field in names}

    def check_evaluators(self, evaluators: Sequence[Evaluator]) -> None:
        """Raises UserError if the model or the data lack something that evaluators need."""
        check = meshes.on_mesh(self.mesh)(checks.check_evaluators)
        check(evaluators, self.name, self.method, self.abstract_state, self.data)


def build(config: ConfigDict, recorded: Mapping[str, Any] | None = None) -> Run:
    """Builds a run from a config, which is checked before any data are opened.

    Args:
        recorded: arguments of the method stored in the workdir, if the run resumes.

    Raises:
        UserError: a part of the config that cannot be built, in one line.
    """
    check(config)
    return call_section(_build, config, "", config=config, recorded=recorded)


def check(config: ConfigDict) -> None:
    """Checks a config without opening data or devices.

    Raises:
        UserError: a section or key that is missing or unknown; see `settings.check`.
    """
    check_sections(config)
    bind_section(_build, config, "", config=config, recorded=None)
    settings.check(config)


def _build(
    *,
    config: ConfigDict,
    recorded: Mapping[str, Any] | None,
    seed: int,
    data,
    method,
    init_from,
    optimizer,
    schedule,
    mesh,
    accumulate: int,
    max_skipped: int,
    compiler: Mapping[str, str] | None = None,
    profile: str = "",
    checkpoint,
    log,
    evals,
) -> Run:
    """Builds a run. The keyword arguments are the sections and values of a config."""
    made_mesh = call_section(meshes.make_mesh, mesh, "mesh")
    meshes.check_batch(data.batch_size, made_mesh, accumulate)
    made_data = _data(config, made_mesh)
    example = made_data.example("train")
    config, notes = standardized(config, made_data, image_shape(example), recorded)
    learner = build_learner(
        config,
        made_mesh,
        num_examples=made_data.num_examples,
        example=lambda method: example,
        sample=made_data.sample,
    )
    Profile(steps=profile, total=learner.plan.steps)
    log_plan = call_section(make_log_plan, log, "log")
    state = learner.abstract_state
    check_state({"params": state.params, "extra": state.extra}, "model")  # evaluation needs it too
    plan = call_section(make_eval_plan, evals, "evals")
    run = Run(
        **vars(learner),
        config=config,
        data=made_data,
        evals=plan._replace(evaluators=make_evaluators(plan.text, learner.method)),
        init_from=make_init_from(
            init_from, config=config.method, method=learner.method, image=image_shape(example)
        ),
        profile=profile,
        max_skipped=max_skipped,
        notes=[*notes, *changed_options(learner.compiler_options, made_mesh)],
        open_checkpoints=functools.partial(Checkpoints, **checkpoint),
        open_log=functools.partial(Log, every=log_plan.every),
        open_writers=functools.partial(
            Writers, log_plan.writers, config=config.to_dict(), report=report
        ),
        memory_advice=step_advice(config),
    )
    run.check_evaluators(run.evals.evaluators)
    return run


def _data(config: ConfigDict, mesh: Mesh) -> Data:
    """Builds the data, and checks that a batch fits in device memory."""
    batch_size = config.data.batch_size
    data = call_section(
        make_data,
        config.data,
        "data",
        seed=config.seed,
        eval_batch_size=batch_size // config.accumulate,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    checks.check_image_size(data, mesh)
    checks.check_batch_size(data.example("train"), batch_size, mesh)
    return data


def standardized(
    config: ConfigDict,
    data: Data,
    image: Sequence[int] | None,
    recorded: Mapping[str, Any] | None,
) -> tuple[ConfigDict, list[str]]:
    """The config with the resolved mean and standard deviation, and lines to report about them."""
    if image is None:
        return config, []
    path, measured = config.init_from.path, data.source("train").statistics
    origins = [
        standardize.Origin("as recorded in the workdir", lambda: recorded or {}),
        standardize.Origin(f"as in {path}", lambda: pixel_statistics(path, config.method)),
        standardize.Origin(
            "measured over config.data.train", lambda: measured._asdict() if measured else {}
        ),
    ]
    values, note = standardize.resolve(config.method.args, channels=image[-1], origins=origins)
    return (standardize.applied(config, values), [note]) if values else (config, [])
