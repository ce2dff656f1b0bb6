"""The learner: mesh, method, optimizer and train state, built from a config. Runs, benchmarks and
compilations for other machines build it here, with or without data.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mae_jax.engine import mesh as meshes
from mae_jax.engine.compiler import Options, compiler_options
from mae_jax.engine.costs import Costs, compile_step
from mae_jax.engine.optim import Plan, make_optimizer, make_plan
from mae_jax.engine.step import make_train_step, plan_state
from mae_jax.evals.features import Predict
from mae_jax.methods import make_method
from mae_jax.ops.attention import record_kinds
from mae_jax.spec import call_section
from mae_jax.types import Batch, Method, TrainState, UserError, image_shape

Predictor = Callable[[Sequence[str], Callable | None], Predict]
"""(outputs, reduce) -> the function that evaluators call, see `Learner.predictor`."""
Example = Mapping[str, Any]
"""A training batch of one: field -> array or shape [1, ...]."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Learner:
    """The parts that a config names, but for its data; see `build_learner`."""

    name: str
    """Name of the method."""
    seed: int
    batch_size: int
    """Global batch size."""
    microbatches: int
    """Number of microbatches that a batch is split into (gradient accumulation)."""
    mesh: Mesh
    method: Method
    plan: Plan
    tx: optax.GradientTransformationExtraArgs
    example: Example
    abstract_state: TrainState
    """Shapes and shardings of the state."""
    initial_state: Callable[[], TrainState]
    """Initializes the state; deterministic given the seed."""
    compiler_options: Options
    """See `engine.compiler`."""
    _predictors: dict[tuple, Callable] = dataclasses.field(default_factory=dict)
    """(outputs, reduce) -> compiled function."""

    def step(self) -> Callable:
        """The jitted training step, see `make_train_step`."""
        return make_train_step(
            self.mesh,
            self.abstract_state,
            self.method,
            self.tx,
            seed=self.seed,
            accumulate=self.microbatches,
            compiler_options=self.compiler_options,
        )

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and shardings of a global training batch."""
        sharding = meshes.batch_sharding(self.mesh)
        return {
            name: jax.ShapeDtypeStruct((self.batch_size, *x.shape[1:]), x.dtype, sharding=sharding)
            for name, x in self.example.items()
        }

    def compile(self) -> tuple[Callable, Costs]:
        """The compiled training step, and its costs."""
        with record_kinds() as kinds:
            step, costs = compile_step(
                self.step(), self.abstract_state, self.abstract_batch(), parts=self.microbatches
            )
        return step, costs | dict(attention=list(kinds), compiler_options=self.compiler_options)

    def trace(self) -> None:
        """Traces the training step without compiling it.

        Raises:
            UserError: the method cannot learn from batches of these shapes.
        """
        jax.eval_shape(self.step(), self.abstract_state, self.abstract_batch())

    def put(self, batch: Mapping[str, Any]) -> Batch:
        """Puts this process's rows on the devices as part of a global batch."""
        return meshes.put_batch(batch, self.mesh)

    def predictor(
        self,
        state: TrainState,
        outputs: Sequence[str] = ("features",),
        reduce: Callable | None = None,
    ) -> Predict:
        """A function from a batch of this process's rows to the outputs for the whole global
        batch, and the batch's fields other than the method's inputs; all replicated.

        Args:
            outputs: names in `Method.offers`.
            reduce: see `Evaluator.reduce`; only its result leaves the devices.
        """
        for output in outputs:
            self.method.check_output(self.name, output)
        key = (tuple(outputs), reduce)
        if key not in self._predictors:
            self._predictors[key] = self._predictor(*key)
        predict = self._predictors[key]
        return lambda batch: predict(state.params, state.extra, self.put(batch))

    def _predictor(self, outputs: tuple[str, ...], reduce: Callable | None) -> Callable:
        def predict(params, extra, batch):
            predictions = self.method.predict(params, extra, batch, outputs=outputs)
            return self._read(predictions, batch, reduce)

        return self.on_devices(predict)

    def representations(self, state: TrainState) -> dict[str, Predictor]:
        """Predictors to evaluate, by name: raw pixels, the initial encoder, the trained model; for
        a method that learns from labels only the trained model.
        """
        trained = {self.name: functools.partial(self.predictor, state)}
        if self.method.labels():
            return trained
        # Built on demand and without optimizer moments, to save memory.
        start = functools.cache(lambda: self.initial_state().replace(opt_state=()))
        base = {"random encoder": lambda outputs, reduce: self.predictor(start(), outputs, reduce)}
        if "image" in self.method.inputs:
            base = {"raw pixels": lambda outputs, reduce: self.pixels(reduce)} | base
        return base | trained

    def pixels(self, reduce: Callable | None = None) -> Predict:
        """The baseline of raw pixels in [0, 1] as features. Sides over 32 pixels are scaled down to
        32, or the baseline would need more memory than the model.
        """

        def predict(batch):
            images = batch["image"]
            shape = (len(images), *(min(n, 32) for n in images.shape[1:-1]), images.shape[-1])
            small = jax.image.resize(images / 255.0, shape, "linear")  # [B, *space, C]
            return self._read({"features": small.reshape(len(images), -1)}, batch, reduce)

        compiled = self.on_devices(predict)
        return lambda batch: compiled(self.put(batch))

    def _read(self, outputs: Mapping[str, Any], batch: Batch, reduce: Callable | None) -> Any:
        """The result of a predictor, see `predictor`."""
        if reduce:
            return reduce(outputs, batch)
        return {**outputs, **{k: v for k, v in batch.items() if k not in self.method.inputs}}

    @functools.cached_property
    def draw(self) -> Callable:
        """Compiled (params, extra, batch, key) -> (the method's pictures, batch['valid'])."""
        pictures, names = self.method.pictures(), []

        def draw(params, extra, batch, key):
            images = pictures(params, extra, batch, key=key)
            names[:] = images  # in the method's order; jit would sort a dict by key
            return [*images.values()], batch["valid"]

        compiled = self.on_devices(draw)

        def ordered(*args):
            images, valid = compiled(*args)
            return dict(zip(names, images, strict=True)), valid

        return ordered

    def on_devices(self, function: Callable) -> Callable:
        """Jits a function for the mesh, with replicated results."""
        return jax.jit(
            meshes.on_mesh(self.mesh)(function),
            out_shardings=meshes.replicated(self.mesh),
            compiler_options=self.compiler_options or None,
        )


def build_learner(
    config: ConfigDict,
    mesh: Mesh,
    *,
    num_examples: int,
    example: Callable[[Method], Example],
    sample: Callable[[int, Sequence[str]], Mapping[str, np.ndarray]],
) -> Learner:
    """Builds everything that a config names except the data.

    Args:
        num_examples: training examples per epoch.
        example: returns a training batch of one for the method.
        sample: (number, fields) -> training examples for `Method.constants`, see `Data.sample`.

    Raises:
        UserError: a section that cannot be built.
    """
    batch_size = config.data.batch_size
    plan = call_section(
        make_plan, config.schedule, "schedule", batch_size=batch_size, num_examples=num_examples
    )
    method = call_section(make_method, config.method, "method", total_steps=plan.steps)
    tx = call_section(
        make_optimizer,
        config.optimizer,
        "optimizer",
        schedule=plan.schedule,
        rules=method.rules(),
    )
    rows = example(method)
    shape = image_shape(rows)
    if shape and method.rank not in (None, len(shape) - 1):
        raise UserError(
            f"{config.method.name} learns from images of {method.rank} dimensions, and these are "
            f"{list(shape)}: use other images, or a method for any number, e.g. mae"
        )
    initial_state, abstract_state = plan_state(
        mesh, method, tx, rows, seed=config.seed, sample=sample
    )
    options = config.compiler if "compiler" in config else {}  # older workdirs have none
    return Learner(
        name=config.method.name,
        seed=config.seed,
        batch_size=batch_size,
        microbatches=config.accumulate,
        mesh=mesh,
        method=method,
        plan=plan,
        tx=tx,
        example=rows,
        abstract_state=abstract_state,
        initial_state=initial_state,
        compiler_options=call_section(compiler_options, options, "compiler", mesh=mesh),
    )


def zeros(example: Example, count: int) -> dict[str, np.ndarray]:
    """A batch of `count` examples of zeros, in place of data."""
    return {name: np.zeros((count, *x.shape[1:]), x.dtype) for name, x in example.items()}
