"""Errors of a masked autoencoder's predictions under several masks, and how much the predictions of
a patch differ between masks.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.explain import heat
from mae_jax.explain.subject import Subject
from mae_jax.explain.view import Shown, View
from mae_jax.methods.masked import MaskedMethod
from mae_jax.ops import pixels
from mae_jax.ops.patches import grid_of, unpatchify
from mae_jax.types import UserError


def make(*, masks: int = 8) -> View:
    """A view of the errors and the spread of reconstructions.

    Args:
        masks: number of random masks, each with the method's own strategy and ratio.
    """
    if masks < 2:
        raise UserError(f"reconstruction: masks={masks} must be at least 2, to compare them")
    return View(
        name="reconstruction",
        title="Reconstructions under several masks",
        section="predictions",
        order=0,
        reads=f"Under {masks} masks, each patch is predicted whenever it is masked. Bright errors "
        "are patches that it cannot predict; bright spread, patches whose prediction depends on "
        "which others are visible.",
        misleads="Errors are those of the loss: with normalized targets a flat patch counts as "
        "much as a contour. A small spread is no certainty; blurry predictions agree, too. Low "
        "errors do not mean good features.",
        draw=lambda subject: drawn(subject, masks),
        check=no_decoder,
    )


def no_decoder(subject: Subject) -> str | None:
    """Why a model predicts no masked patches; None: it does."""
    network = subject.network
    if not isinstance(network.method, MaskedMethod):
        return "the method does not predict masked patches, or its decoder was left out"
    return None


def predicted(subject: Subject, masks: int) -> tuple[np.ndarray, ...]:
    """Predictions of all patches under each mask.

    Returns:
        Of each mask: errors [masks, N, L] float64 of the loss; raw predictions [masks, N, L, V];
        whether a patch was masked [masks, N, L]; and pictures of the network's output
        [masks, N, H, W, C] uint8, or None if the target cannot be drawn.
    """
    network = subject.network
    method: MaskedMethod = network.method
    constants, images = network.extra.get("target", {}), jnp.asarray(subject.images)

    @jax.jit
    def predict(params, extra, key):
        mask = method.draw_mask(key, images, method.total_steps, extra)
        raw = method.reconstruct(params, images, mask).astype(jnp.float32)  # [N, L, V]
        context = method.target_context(images, lambda patches: patches)
        target = method.target.make(constants, images, context)
        errors = method.target.errors(raw, target, method.loss_kind)  # [N, L] or [N, L, V]
        errors = errors.reshape(*raw.shape[:2], -1).mean(axis=-1)
        drawn = None
        if method.target.drawable:
            values = method.target.to_pixels(constants, raw, images, context)
            grid = grid_of(images.shape[1:-1], method.unit)
            drawn = pixels.to_bytes(unpatchify(values, method.unit, grid), method.mean, method.std)
        return errors, raw, mask.mask, drawn

    every = [
        jax.device_get(predict(network.params, network.extra, jax.random.key(number)))
        for number in range(masks)
    ]
    errors, raw, masked, drawn = zip(*every, strict=True)
    pictures = np.stack(drawn) if drawn[0] is not None else None
    return np.stack(errors).astype(np.float64), np.stack(raw), np.stack(masked), pictures


def mean_where(values: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """The mean over masks [masks, N, L, ...] of a patch's values where it is masked; NaN: never."""
    where = masked.reshape(*masked.shape, *(1,) * (values.ndim - masked.ndim))
    count = where.sum(axis=0)
    total = np.where(where, values, 0).sum(axis=0, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def spread_where(values: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """The standard deviation over masks of a patch's predictions, where it is masked.

    Args:
        values: [masks, N, L, V].
        masked: [masks, N, L].

    Returns:
        [N, L], the root of the variance's mean over values; NaN: masked less than twice.
    """
    center = mean_where(values, masked)  # [N, L, V]
    variance = mean_where(np.square(values - center), masked).mean(axis=-1)
    return np.where(masked.sum(axis=0) > 1, np.sqrt(variance), np.nan)


def drawn(subject: Subject, masks: int) -> Shown:
    """The view."""
    method = subject.network.method
    errors, raw, masked, pictures = predicted(subject, masks)
    error, deviation = mean_where(errors, masked), spread_where(raw, masked)  # [N, L]
    grid = grid_of(subject.images.shape[1:3], method.unit)
    images = heat.rgb(subject.images)
    tiles = {"image": images}
    if pictures is not None:
        space = subject.images.shape[1:3]
        where = np.stack([heat.spread(mask, grid, space) for mask in masked])  # [masks, N, H, W]
        gray = np.where(where[0][..., None], 128, images)
        tiles["one of the masks"] = gray.astype(np.uint8)
        mean = mean_where(pictures, where)  # [N, H, W, C]
        tiles["predicted, mean"] = heat.rgb(np.nan_to_num(mean, nan=128).round().astype(np.uint8))
    for label, values in (("error", error), ("spread over masks", deviation)):
        high = float(np.nanpercentile(values, 99))
        colors = heat.spread(heat.colored(values, 0, high), grid, subject.images.shape[1:3])
        tiles[f"{label}, from 0 to {high:.2g}"] = colors
    known = ~np.isnan(error) & ~np.isnan(deviation)
    related = np.corrcoef(error[known], deviation[known])[0, 1] if known.sum() > 2 else np.nan
    finding = (
        f"The mean error of masked patches is {np.nanmean(error):.3f}, in units of the loss "
        f"({method.loss_kind})."
    )
    if np.isfinite(related):
        finding += f" Error and spread of patches correlate by {related:.2f}."
    return Shown(
        numbers={
            "error": np.nan_to_num(error, nan=-1).round(5).tolist(),
            "spread": np.nan_to_num(deviation, nan=-1).round(5).tolist(),
            "mean_error": round(float(np.nanmean(error)), 6),
            "masks": masks,
        },
        findings=[finding],
        tiles=tiles,
    )
