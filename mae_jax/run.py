"""A run: the parts that a config names, built and fitted together. Training, evaluation and the
tools all start here, so they agree on what a config means.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mae_jax import settings, standardize
from mae_jax.checks import check_batch_size, check_classes, check_evaluators, check_image_size
from mae_jax.config import check_sections
from mae_jax.data import Data, make_data
from mae_jax.engine import mesh as meshes
from mae_jax.engine.compiler import Options, changed_options, compiler_options
from mae_jax.engine.costs import Costs, compile_step
from mae_jax.engine.memory import check_state
from mae_jax.engine.optim import Plan, make_optimizer, make_plan
from mae_jax.engine.profile import Profile
from mae_jax.engine.step import make_train_step, plan_state
from mae_jax.evals.classify import check_labels
from mae_jax.evals.features import Evaluator, Predict
from mae_jax.ops.attention import record_kinds
from mae_jax.settings import EvalPlan, make_eval_plan, make_method
from mae_jax.spec import bind_section, call_section
from mae_jax.start import make_start, pixel_statistics
from mae_jax.types import Batch, Method, TrainState, UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What `build` made of a config."""

    config: ConfigDict
    mesh: Mesh
    data: Data
    method: Method
    plan: Plan
    tx: Any
    evals: EvalPlan
    like: TrainState
    """Shapes and shardings of the state."""
    fresh: Callable[[], TrainState]
    """Makes the state before the first step, always the same."""
    profile: str
    """Steps of which a trace is written, 'FIRST:LAST'; empty: none."""
    compiler_options: Options
    """See `engine.compiler`."""
    notes: Sequence[str] = ()
    """What to report at the start about values that were derived, one line each."""

    def train_step(self) -> tuple[Callable, Costs]:
        """The compiled step, see `make_train_step`, and what it costs.

        Raises:
            UserError: see `check_training`.
        """
        self.check_training()
        step, batch = self._step()
        with record_kinds() as kinds:
            step, costs = compile_step(step, self.like, batch, parts=self.config.accumulate)
        return step, costs | dict(attention=list(kinds), compiler_options=self.compiler_options)

    def trace(self) -> None:
        """Traces the step without compiling it.

        Raises:
            UserError: see `check_training`, or images that the method cannot learn from.
        """
        self.check_training()
        step, batch = self._step()
        jax.eval_shape(step, self.like, batch)

    def check_training(self) -> None:
        """Raises UserError if the method needs labels that the training set does not have, or more
        views are made than it looks at.
        """
        check_classes(self.method, self.data)
        if self.data.views > getattr(self.method, "views", 1):
            name = self.config.method.name
            raise UserError(f"{name} looks at one view of an image: set config.data.views=1")

    def _step(self) -> tuple[Callable, dict[str, jax.ShapeDtypeStruct]]:
        """The jitted step, and the shapes and shardings of a global batch."""
        parts, sharding = self.config.accumulate, meshes.batch_sharding(self.mesh)
        step = make_train_step(
            self.mesh,
            self.like,
            self.method,
            self.tx,
            seed=self.config.seed,
            accumulate=parts,
            compiler_options=self.compiler_options,
        )
        return step, {
            name: jax.ShapeDtypeStruct(
                (self.data.batch_size, *rows.shape[1:]), rows.dtype, sharding=sharding
            )
            for name, rows in self.data.example("train").items()
        }

    def train_batches(self, start_step: int) -> Iterator[Mapping[str, Any]]:
        """This process' training batches, their labels checked if they are learned.

        Raises:
            UserError: a label that is none of the classes.
        """
        classes = getattr(self.method, "classes", None)
        with contextlib.closing(self.data.train(start_step)) as batches:
            for batch in batches:
                if classes is not None:
                    check_labels(batch["label"], classes, "train")
                yield batch

    def put(self, batch: Mapping[str, Any]) -> Batch:
        """A global batch from this process' rows."""
        return meshes.put_batch(batch, self.mesh)

    def predictor(self, state: TrainState) -> Predict:
        """What the model says of a batch of this process' rows, for the rows of all processes."""
        return lambda batch: self._predict(state.params, state.extra, self.put(batch))

    @functools.cached_property
    def _predict(self):

        @meshes.on_mesh(self.mesh)
        def predict(params, extra, batch):
            labels = {k: v for k, v in batch.items() if k != "image"}
            return {**self.method.predict(params, extra, batch), **labels}

        return self._compiled(predict)

    @functools.cached_property
    def reconstruct(self) -> Callable:
        """(params, extra, batch, key) -> the pictures of a method that draws, and 'valid'."""

        @meshes.on_mesh(self.mesh)
        def draw(params, extra, batch, key):
            return {**self.method.reconstruct(params, extra, batch, key), "valid": batch["valid"]}

        return self._compiled(draw)

    def _compiled(self, function: Callable) -> Callable:
        """A function for the mesh, whose results every device holds."""
        options = self.compiler_options or None
        whole = meshes.replicated(self.mesh)
        return jax.jit(function, out_shardings=whole, compiler_options=options)

    def check(self, evaluators: Sequence[Evaluator]) -> None:
        """Raises UserError if evaluators need what the model or the data do not have."""
        check = meshes.on_mesh(self.mesh)(check_evaluators)
        check(evaluators, self.method, self.like, self.data)


def build(config: ConfigDict, recorded: Mapping[str, Any] | None = None) -> Run:
    """Builds the parts that a config names. What it determines alone is checked before any data are
    opened. The config of the run has the mean and standard deviation that were resolved.

    Args:
        recorded: arguments of the method in the workdir that the run goes on from, if it does.

    Raises:
        UserError: anything in the config that cannot be built, in one line.
    """
    check(config)
    settings.check_mesh(config)
    return call_section(_build, config, "", config=config, recorded=recorded)


def check(config: ConfigDict) -> None:
    """Checks what a config determines alone, without opening data or devices.

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
    """The keyword arguments are the sections that every config has."""
    made_mesh = call_section(meshes.make_mesh, mesh, "mesh")
    options = call_section(compiler_options, compiler or {}, "compiler", mesh=made_mesh)
    made_data = call_section(
        make_data,
        data,
        "data",
        seed=seed,
        eval_batch_size=data.batch_size // accumulate,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    sizes = dict(batch_size=data.batch_size, num_examples=made_data.num_examples)
    plan = call_section(make_plan, schedule, "schedule", **sizes)
    Profile(steps=profile, total=plan.steps)
    check_image_size(made_data, made_mesh)
    example = made_data.example("train")
    check_batch_size(example, data.batch_size, made_mesh)
    config, notes = standardized(config, made_data, example["image"].shape[-1], recorded)
    method = config.method
    made_method = call_section(make_method, method, "method", total_steps=plan.steps)
    rules = {"rules": made_method.rules} if hasattr(made_method, "rules") else {}
    tx = call_section(make_optimizer, optimizer, "optimizer", schedule=plan.schedule, **rules)
    fresh, like = plan_state(made_mesh, made_method, tx, example, seed=seed, rules=meshes.FSDP)
    check_state({"params": like.params, "extra": like.extra}, "model")  # whatever it is for
    start = call_section(
        make_start,
        init_from,
        "init_from",
        args=method.args,
        method=made_method,
        example=example,
        fresh=fresh,
    )
    made_evals = call_section(make_eval_plan, evals, "evals")
    made = (config, made_mesh, made_data, made_method, plan, tx, made_evals, like, start, profile)
    run = Run(*made, options, [*notes, *changed_options(options, made_mesh)])
    run.check(made_evals.evaluators)
    return run


def standardized(
    config: ConfigDict, data: Data, channels: int, recorded: Mapping[str, Any] | None
) -> tuple[ConfigDict, list[str]]:
    """The config with the mean and standard deviation of this run, and what to report of them."""
    path, measured = config.init_from.path, data.source("train").statistics
    origins = [
        standardize.Origin("as recorded in the workdir", lambda: recorded or {}),
        standardize.Origin(f"as in {path}", lambda: pixel_statistics(path, config.method)),
        standardize.Origin(
            "measured over config.data.train", lambda: measured._asdict() if measured else {}
        ),
    ]
    values, note = standardize.resolve(config.method.args, channels=channels, origins=origins)
    return (standardize.applied(config, values), [note]) if values else (config, [])
