"""A run without its data: the method, optimizer, mesh and step of a config, and made-up batches."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mae_jax import standardize
from mae_jax.data.transforms import draw, make_transforms
from mae_jax.engine import mesh as meshes
from mae_jax.engine.compiler import Options, compiler_options
from mae_jax.engine.costs import Costs, compile_step
from mae_jax.engine.optim import make_optimizer, make_plan
from mae_jax.engine.step import make_train_step, plan_state
from mae_jax.ops.attention import record_kinds
from mae_jax.settings import make_method
from mae_jax.spec import call_section
from mae_jax.types import Batch, Method, TrainState, UserError

NUM_EXAMPLES = 1_281_167
"""Of ImageNet-1k; only the schedule of the learning rate depends on it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """What `make_setup` made of a config."""

    config: ConfigDict
    mesh: jax.sharding.Mesh
    method: Method
    tx: object
    shape: tuple[int, int, int]
    """Of an image, [H, W, C]."""
    fresh: Callable[[], TrainState]
    like: TrainState
    """Shapes and shardings of the state."""
    compiler_options: Options

    @property
    def dtype(self) -> str:
        """What the network computes in."""
        return getattr(self.config.method.args, "dtype", "float32")

    @property
    def batch_size(self) -> int:
        """Global."""
        return self.config.data.batch_size

    @property
    def parts(self) -> int:
        """Into which a batch is split."""
        return self.config.accumulate

    def step(self) -> Callable:
        """The step that training would compile, see `engine.step.make_train_step`."""
        return make_train_step(
            self.mesh,
            self.like,
            self.method,
            self.tx,
            seed=self.config.seed,
            accumulate=self.parts,
            compiler_options=self.compiler_options,
        )

    def compile(self) -> tuple[Callable, Costs]:
        """The compiled step and what it costs, see `compile_step`, with its kinds of attention."""
        with record_kinds() as kinds:
            step, costs = compile_step(self.step(), self.like, self.batch_like(), parts=self.parts)
        return step, costs | dict(attention=list(kinds))

    def batch_like(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and shardings of a global batch."""
        sharding = meshes.batch_sharding(self.mesh)
        rows = example(self.config, self.method, self.shape)
        return {
            name: jax.ShapeDtypeStruct((self.batch_size, *x.shape[1:]), x.dtype, sharding=sharding)
            for name, x in rows.items()
        }

    def batch(self) -> Batch:
        """A global batch of noise, on the devices; labels are drawn too."""
        rng = np.random.default_rng(0)
        high = {"label": getattr(self.method, "classes", 1)}
        rows = {
            name: rng.integers(0, high.get(name, 256), x.shape).astype(x.dtype)
            for name, x in self.batch_like().items()
        }
        return meshes.put_batch(rows, self.mesh)


def make_setup(
    config: ConfigDict, image_size: Sequence[int] = (), devices: Sequence[Any] | None = None
) -> Setup:
    """Builds what a config names, but for its data, which may not be here.

    Args:
        image_size: (side,), (height, width) or (height, width, channels); empty: what the config's
            training transform makes of colour images.
        devices: see `make_mesh`.

    Raises:
        UserError: anything in the config that cannot be built, or an image size that is not known.
    """
    shape = image_shape(config, image_size)
    config = standardized(config, shape[-1])
    mesh = call_section(meshes.make_mesh, config.mesh, "mesh", devices=devices)
    chosen = config.compiler if "compiler" in config else {}
    options = call_section(compiler_options, chosen, "compiler", mesh=mesh)
    meshes.check_batch(config.data.batch_size, mesh, config.accumulate)
    plan = call_section(
        make_plan,
        config.schedule,
        "schedule",
        batch_size=config.data.batch_size,
        num_examples=NUM_EXAMPLES,
    )
    method = call_section(make_method, config.method, "method", total_steps=plan.steps)
    rules = {"rules": method.rules} if hasattr(method, "rules") else {}
    tx = call_section(
        make_optimizer, config.optimizer, "optimizer", schedule=plan.schedule, **rules
    )
    rows = example(config, method, shape)
    fresh, like = plan_state(mesh, method, tx, rows, seed=config.seed, rules=meshes.FSDP)
    return Setup(config, mesh, method, tx, shape, fresh, like, options)


def standardized(config: ConfigDict, channels: int) -> ConfigDict:
    """The config with a mean and standard deviation for these channels: nothing depends on them
    here.
    """
    values, _ = standardize.resolve(config.method.args, channels=channels, origins=())
    return standardize.applied(config, values)


def example(
    config: ConfigDict, method: Method, shape: Sequence[int]
) -> dict[str, jax.ShapeDtypeStruct]:
    """One row of a batch: as many views as the config makes, and a label if one is learned."""
    views = ("image", "image2")[: config.data.views]
    rows = {view: jax.ShapeDtypeStruct((1, *shape), np.uint8) for view in views}
    if hasattr(method, "classes"):
        rows["label"] = jax.ShapeDtypeStruct((1,), np.int32)
    return rows


def image_shape(config: ConfigDict, image_size: Sequence[int] = ()) -> tuple[int, int, int]:
    """[H, W, C] of what a network is trained on, see `make_setup`."""
    size = tuple(image_size)
    if len(size) > 3 or any(side < 1 for side in size):
        raise UserError(
            f"--image-size {' '.join(map(str, size))}: write a side, a height and a width, or "
            "these and the number of channels"
        )
    if size:
        return (size * 2 if len(size) == 1 else size)[:2] + (size[2:] or (3,))
    transforms = make_transforms(config.data.train_transform)
    if not transforms:
        raise UserError("config.data.train_transform is empty: say --image-size, e.g. 224")
    made = {"image": np.zeros((256, 256, 3), np.uint8)}
    params = draw(transforms, np.zeros(1, np.uint64))
    for transform, rows in zip(transforms, params, strict=True):
        made = transform.apply(made, rows[0])
    return made["image"].shape
