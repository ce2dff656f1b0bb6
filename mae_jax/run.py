"""A run: the parts that a config names, built and fitted together. Training, evaluation and the
tools all start here, so they agree on what a config means.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import flax.errors
import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mae_jax.config import check_sections
from mae_jax.data import Data, make_data
from mae_jax.engine import mesh as meshes
from mae_jax.engine.costs import Costs, compile_step
from mae_jax.engine.optim import Plan, make_optimizer, make_plan
from mae_jax.engine.profile import Profile
from mae_jax.engine.step import make_train_step, plan_state
from mae_jax.evals.classify import check_labels
from mae_jax.evals.features import Evaluator, Predict
from mae_jax.spec import call, call_section, maker, parse
from mae_jax.start import make_start
from mae_jax.types import Batch, Method, TrainState, UserError

MISSING = {
    "logits": "needs a classifier: fine-tune or probe first (tasks.finetune, tasks.linear_probe)",
    "heads": "needs one classifier, and this probe has several heads: use the evaluator probe, or "
    "train it with one, config.method.args.lr_factors=(1.0,)",
    "head_logits": "is for tasks.linear_probe: use classify, knn or logistic here",
}
"""What to say of a model that does not give an output."""


class EvalPlan(NamedTuple):
    """When to evaluate, and how."""

    every: int
    """Steps between two evaluations; 0: only at the end."""
    evaluators: list[Evaluator]


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

    def train_step(self) -> tuple[Callable, Costs]:
        """The compiled step, see `make_train_step`, and what it costs.

        Raises:
            UserError: the method needs labels that the training set does not have, or more views
                are made than it looks at.
        """
        check_classes(self.method, self.data)
        if self.data.views > getattr(self.method, "views", 1):
            name = self.config.method.name
            raise UserError(f"{name} looks at one view of an image: set config.data.views=1")
        parts, sharding = self.config.accumulate, meshes.batch_sharding(self.mesh)
        step = make_train_step(
            self.mesh, self.like, self.method, self.tx, seed=self.config.seed, accumulate=parts
        )
        batch = {
            name: jax.ShapeDtypeStruct(
                (self.data.batch_size, *rows.shape[1:]), rows.dtype, sharding=sharding
            )
            for name, rows in self.data.example("train").items()
        }
        return compile_step(step, self.like, batch, parts=parts)

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
        return jax.jit(
            lambda params, extra, batch: {
                **self.method.predict(params, extra, batch),
                **{k: v for k, v in batch.items() if k != "image"},
            },
            out_shardings=meshes.replicated(self.mesh),
        )

    @functools.cached_property
    def reconstruct(self) -> Callable:
        """(params, extra, batch, key) -> the pictures of a method that draws, and 'mask'."""
        return jax.jit(
            lambda params, extra, batch, key: {
                **self.method.reconstruct(params, extra, batch, key),
                "mask": batch["mask"],
            },
            out_shardings=meshes.replicated(self.mesh),
        )

    def check(self, evaluators: Sequence[Evaluator]) -> None:
        """Raises UserError if evaluators need what the model or the data do not have."""
        example = self.data.example("eval")
        try:
            outputs = jax.eval_shape(
                self.method.predict, self.like.params, self.like.extra, example
            )
        except flax.errors.ScopeParamShapeError as error:
            sizes = [self.data.example(stage)["image"].shape[1:] for stage in ("train", "eval")]
            raise UserError(
                f"images are {sizes[0]} in training and {sizes[1]} in evaluation, and the learned "
                "positions fit one size: see config.data.train_transform and eval_transform"
            ) from error
        for evaluator in evaluators:
            for split in evaluator.splits:
                if "label" not in self.data.fields or not self.data.source(split).class_names:
                    raise UserError(
                        f"{evaluator.name} needs labels, and config.data.{split} has none: give a "
                        "folder with one sub-folder for each class, and config.data.fields="
                        "('label',)"
                    )
            if evaluator.output not in outputs:
                heads = "head_logits" in outputs
                raise UserError(
                    f"{evaluator.name} {MISSING['heads' if heads else evaluator.output]}"
                )


def build(config: ConfigDict) -> Run:
    """Builds the parts that a config names.

    Raises:
        UserError: anything in the config that cannot be built, in one line.
    """
    check_sections(config)
    return call_section(_build, config, "", config=config)


def _build(
    *,
    config: ConfigDict,
    seed: int,
    data,
    method,
    init_from,
    optimizer,
    schedule,
    mesh,
    accumulate: int,
    max_skipped: int,
    profile: str = "",
    checkpoint,
    log,
    evals,
) -> Run:
    """The keyword arguments are the sections that every config has."""
    for name, value in dict(accumulate=accumulate, max_skipped=max_skipped).items():
        if value < 1:
            raise UserError(f"config.{name}={value} must be at least 1")
    if not 0 <= seed < 2**32:
        raise UserError(f"config.seed={seed} must be in [0, 2**32)")
    made_mesh = call_section(meshes.make_mesh, mesh, "mesh")
    meshes.check_batch(data.batch_size, made_mesh, accumulate)
    made_data = call_section(
        make_data,
        data,
        "data",
        seed=seed,
        eval_batch_size=data.batch_size // accumulate,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    plan = call_section(
        make_plan,
        schedule,
        "schedule",
        batch_size=data.batch_size,
        num_examples=made_data.num_examples,
    )
    Profile(steps=profile, total=plan.steps)
    made_method = call_section(make_method, method, "method", total_steps=plan.steps)
    rules = {"rules": made_method.rules} if hasattr(made_method, "rules") else {}
    tx = call_section(make_optimizer, optimizer, "optimizer", schedule=plan.schedule, **rules)
    example = made_data.example("train")
    fresh, like = plan_state(made_mesh, made_method, tx, example, seed=seed, rules=meshes.FSDP)
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
    run = Run(config, made_mesh, made_data, made_method, plan, tx, made_evals, like, start, profile)
    run.check(made_evals.evaluators)
    return run


def make_method(*, name: str, args: Mapping[str, Any], total_steps: int) -> Method:
    """A method, 'mae', or a task, 'tasks.finetune'; one with a schedule of its own is told the
    number of steps.
    """
    make = maker(name if name.startswith("tasks.") else f"methods.{name}")
    more = {"total_steps": total_steps} if "total_steps" in signature(make).parameters else {}
    return call_section(make, args, "method.args", **more)


def check_classes(method: Method, data: Data) -> None:
    """Raises UserError if a classifier cannot learn these labels."""
    if not hasattr(method, "classes"):
        return
    if "label" not in data.example("train"):
        raise UserError(
            "the training set has no labels: give a folder with one sub-folder for each class, and "
            "config.data.fields=('label',)"
        )
    if data.empty_classes:
        raise UserError(
            f"config.data.train has no image of the class {data.empty_classes[0]!r}: put some into "
            "its folder, or remove it"
        )
    for split, source in data.sources.items():
        if len(source.class_names) > method.classes:
            raise UserError(
                f"config.data.{split} has {len(source.class_names)} classes, and "
                f"config.method.args.classes={method.classes}"
            )


def make_eval_plan(*, every: int, run: str) -> EvalPlan:
    """The evals section: steps between two, and a spec string, e.g. 'knn(k=20)|logistic'."""
    if every < 0:
        raise UserError(f"config.evals.every={every} must be 0 (at the end only) or more")
    return EvalPlan(every, make_evaluators(run))


def make_evaluators(text: str) -> list[Evaluator]:
    """Builds the evaluators of a spec string; none if it is empty."""
    return [
        call(name, maker(f"evals.{name}"), *args, **kwargs) for name, args, kwargs in parse(text)
    ]
