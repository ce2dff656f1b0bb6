"""Reconstructions of one image under a mask that a strategy draws, or that was made by hand."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax import masks
from mae_jax.demo.images import picture
from mae_jax.explain.network import Network
from mae_jax.methods.masked import MaskedMethod
from mae_jax.ops.masking import Mask, num_visible
from mae_jax.ops.patches import grid_of, patchify, unpatchify
from mae_jax.spec import arguments, choices, resolve
from mae_jax.types import Extra, UserError

STEPS = 20
"""Ratios to choose from are multiples of 1 / STEPS."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """What a model reconstructs of images of one shape."""

    network: Network
    grid: tuple[int, int]
    """Rows and columns of the patches to mask, L in all."""
    strategies: Mapping[str, masks.Strategy]
    """By the texts that name them, the run's own first. {}: the model reconstructs whole images."""
    ratios: Sequence[float]
    """Mask ratios to choose from, ascending."""
    ratio: float
    """The run's own."""

    def sample(self, image: np.ndarray, strategy: str, ratio: float, seed: int) -> np.ndarray:
        """Which patches of an image a mask hides, [L] bool.

        Args:
            image: [H, W, C] uint8.
            strategy: one of `strategies`.
            ratio: one of `ratios`.
            seed: of the mask.

        Raises:
            UserError: another strategy, ratio or seed.
        """
        if strategy not in self.strategies:
            known = ", ".join(self.strategies)
            raise UserError(f"strategy {strategy!r} is unknown: choose {known or 'none'}")
        if ratio not in self.ratios:
            known = ", ".join(map(str, self.ratios))
            raise UserError(f"ratio {ratio} is none of {known}")
        if not 0 <= seed < 2**31:
            raise UserError(f"seed {seed} is outside [0, 2^31)")
        key = jax.random.key(seed)
        (scores,) = np.asarray(self._score(self.network.extra, image[None], key, strategy, ratio))
        visible = np.argsort(scores, kind="stable")[: num_visible(len(self), ratio)]
        return ~np.isin(np.arange(len(self)), visible)

    def draw(self, image: np.ndarray, hidden: np.ndarray) -> dict[str, Any]:
        """Pictures and errors of a reconstruction, see `reconstruct` in `assets/page.js`.

        Args:
            image: [H, W, C] uint8.
            hidden: [L] bool.

        Raises:
            UserError: another number of patches, or none is visible.
        """
        network, images = self.network, image[None]
        if not self.strategies:
            drawn, _ = self._draw_whole(network.params, network.extra, images)
            drawn = [picture(label, np.asarray(rows[0])) for label, rows in drawn.items()]
            return {"hidden": [], "pictures": drawn, "errors": None, "measure": ""}
        if hidden.shape != (len(self),) or hidden.all():
            raise UserError(
                f"a mask of {hidden.size} patches, {hidden.sum()} of them hidden: there are "
                f"{len(self)}, of which at least one must be visible"
            )
        raw = self._predict(network.params, images, mask_of(hidden))
        drawn, errors = self._show(raw, network.extra, images, hidden[None])
        shown = [picture(label, np.asarray(rows[0])) for label, rows in drawn.items()]
        errors = np.asarray(errors[0], np.float64)
        return {
            "hidden": hidden.tolist(),
            "pictures": shown,
            "errors": [float(f"{x:.5g}") if m else None for x, m in zip(errors, hidden)]
            if hidden.any()
            else None,
            "measure": self.measure,
        }

    def __len__(self) -> int:
        """Number of patches L."""
        return self.grid[0] * self.grid[1]

    @property
    def measure(self) -> str:
        """What errors are, in words."""
        method: MaskedMethod = self.network.method
        return f"{method.loss_kind} of the target, as in the loss"

    def warm_up(self, image: np.ndarray, seconds: float) -> None:
        """Compiles the predictions for all ratios, the nearest to the run's own first, as long as
        there is time.

        Args:
            image: [H, W, C] uint8.
            seconds: when to stop.
        """
        start = time.monotonic()
        for ratio in sorted(self.ratios, key=lambda ratio: abs(ratio - self.ratio)):
            for strategy in [*self.strategies][:1]:
                self.draw(image, self.sample(image, strategy, ratio, 0))
            if time.monotonic() - start > seconds:
                break

    @functools.cached_property
    def _score(self) -> Callable:
        """Scores [B, L] of a mask, see `masks.Strategy`."""
        method: MaskedMethod = self.network.method

        def score(extra, images, key, strategy, ratio):
            context = method.mask_context(images, method.total_steps, extra)
            context = dataclasses.replace(context, mask_ratio=ratio)
            return masks.checked_scores(key, self.strategies[strategy], context)

        return compiled(score, static_argnums=(3, 4))

    @functools.cached_property
    def _predict(self) -> Callable:
        """Predictions [B, L, V] float32. Compiled for each number of visible patches, so all that
        does not depend on it is in `_show`.
        """
        method: MaskedMethod = self.network.method

        def predict(params, images, mask):
            return method.reconstruct(params, images, mask).astype(jnp.float32)

        return compiled(predict)

    def show(
        self, raw: jax.Array, extra: Extra, images: jax.Array, masked: jax.Array
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Pictures [B, H, W, C] uint8 by label, and errors [B, L] of each patch, as in the loss.

        Args:
            raw: predictions [B, L, V] float32.
            extra: collections.
            images: [B, H, W, C] uint8.
            masked: [B, L] bool.
        """
        method: MaskedMethod = self.network.method
        context = method.target_context(images, lambda patches: patches)
        target = method.target.make(extra.get("target", {}), images, context)
        errors = method.target.errors(raw, target, method.loss_kind)  # [B, L] or [B, L, V]
        errors = errors.reshape(*masked.shape, -1).mean(axis=-1)  # [B, L]
        if method.target.drawable:
            return method.drawn(raw, extra, images, masked), errors
        patches = jnp.where(masked[:, :, None], 128, patchify(images, method.unit))
        seen = unpatchify(patches, method.unit, self.grid)
        return {"original": images, "masked (what the encoder sees)": seen}, errors

    @functools.cached_property
    def _show(self) -> Callable:
        return drawing(self.show)

    @functools.cached_property
    def _draw_whole(self) -> Callable:
        draw = self.network.method.pictures()
        return drawing(lambda params, extra, images: (draw(params, extra, {"image": images}), None))


def mask_of(hidden: np.ndarray) -> Mask:
    """The mask of one image that hides patches [L] bool."""
    keep, masked = np.flatnonzero(~hidden), np.flatnonzero(hidden)
    restore = np.argsort(np.concatenate([keep, masked]))
    rows = [x.astype(np.int32)[None] for x in (keep, masked, restore)]  # [1, ...] each
    return Mask(*rows, hidden[None])


def compiled(function: Callable, **options) -> Callable:
    """A jitted function. On CPUs it is compiled with few optimizations: for one image, compiling
    takes longer than computing.
    """
    if jax.default_backend() == "cpu":
        options["compiler_options"] = {"xla_backend_optimization_level": 0}
    return jax.jit(function, **options)


def drawing(draw: Callable) -> Callable:
    """A compiled function that returns pictures by label, and more: (dict, more). Their order is
    that of `draw`; jit would sort them by label.
    """
    labels: list[str] = []

    def values(*args):
        pictures, more = draw(*args)
        labels[:] = pictures
        return [*pictures.values()], more

    compute = compiled(values)

    def ordered(*args):
        pictures, more = compute(*args)
        return dict(zip(labels, pictures, strict=True)), more

    return ordered


def make_reconstruction(
    network: Network, args: Mapping[str, Any], shape: Sequence[int]
) -> tuple[Reconstruction, dict[str, str]]:
    """What a model can reconstruct.

    Args:
        network: of the model.
        args: arguments of its method.
        shape: [H, W, C] of the images.

    Returns:
        The reconstruction, and the masks that it cannot draw: name -> reason.

    Raises:
        UserError: it reconstructs nothing.
    """
    method = network.method
    if not isinstance(method, MaskedMethod):
        if method.pictures() is None:
            raise UserError("the method predicts no masked patches, or its decoder was left out")
        grid = grid_of(shape[:-1], method.encoder.patch)
        return Reconstruction(
            network=network, grid=grid, strategies={}, ratios=(0.0,), ratio=0.0
        ), {}
    grid = grid_of(shape[:-1], method.unit)
    strategies, refused = offered(network, args, shape)
    ratios = offered_ratios(grid[0] * grid[1], method.mask_ratio)
    made = Reconstruction(
        network=network,
        grid=grid,
        strategies=strategies,
        ratios=ratios,
        ratio=method.mask_ratio,
    )
    return made, refused


def offered(
    network: Network, args: Mapping[str, Any], shape: Sequence[int]
) -> tuple[dict[str, masks.Strategy], dict[str, str]]:
    """Every strategy of the library that works for a model, after its own, and why others do not.

    Args:
        network, args, shape: see `make_reconstruction`.
    """
    method, image = network.method, np.zeros((1, *shape), np.uint8)
    strategies = {arguments(network.kind, "methods", args)["mask"]: method.strategy}
    refused = {}

    def sampled(strategy, extra):
        context = method.mask_context(image, method.total_steps, extra)
        return masks.sample(jax.random.key(0), strategy, context, method.mask_ratio or 0.5).mask

    for name in choices(resolve("masks"), masks.Strategy):
        strategy = masks.make_strategy(name)
        if strategy in strategies.values():
            continue
        if strategy.teachers():
            refused[name] = "it needs a trained teacher, which this run does not have"
            continue
        try:
            jax.eval_shape(functools.partial(sampled, strategy), network.extra)
        except UserError as error:
            refused[name] = str(error)
        else:
            strategies[name] = strategy
    return strategies, refused


def offered_ratios(length: int, own: float) -> list[float]:
    """Mask ratios, ascending: the run's own and, for each other number of masked patches, the
    nearest multiple of 1 / STEPS, if there is one.

    Args:
        length: number of patches.
        own: the run's ratio.
    """
    steps = [step / STEPS for step in range(1, STEPS if length > 1 else 0)]
    possible = [ratio for ratio in steps if int(length * (1 - ratio)) >= 1]
    share = lambda ratio: 1 - num_visible(length, ratio) / length
    nearest = {share(own): own}
    for ratio in sorted(possible, key=lambda ratio: abs(ratio - share(ratio))):
        nearest.setdefault(share(ratio), ratio)
    return sorted(nearest.values())
