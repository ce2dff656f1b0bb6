"""The model of the page without a server: an ONNX function of one image and its mask.

The numbers of visible and masked patches are symbolic, so one model serves every mask ratio, and
the encoder computes the visible patches only, as in `mae_jax`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mae_jax.demo.trial import Trial
from mae_jax.onnx_convert import check_onnx, to_onnx
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of
from mae_jax.types import UserError

PREDICTIONS = ("logits", "multilabel_logits", "prediction", "segmentation")
"""Outputs of tasks that `assets/static.js` shows."""
LARGEST = 2**31 - 2**24
"""Bytes of a model: protobuf, and so an ONNX file, is limited to 2 GB."""
WAY_OUT = "use mae-jax demo without --static"


class WebModel(NamedTuple):
    """An ONNX model and what it computes."""

    content: bytes
    """The file."""
    outputs: tuple[str, ...]
    """Names, see `masked_function`, `whole_function` and `task_function`."""
    pictures: tuple[str, ...]
    """Labels of the outputs 'picture_0', 'picture_1', ..."""


class Drawn(NamedTuple):
    """Arrays by name, and pictures [1, H, W, C] uint8 by label."""

    arrays: dict[str, jax.Array]
    pictures: dict[str, jax.Array]


Function = Callable[..., Drawn]
"""From an image [1, H, W, C] uint8 and, of masked models, the fields of its `Mask`."""


def web_model(trial: Trial) -> WebModel:
    """Converts what the page shows of a model.

    Raises:
        UserError: the converter is missing, does not support the network, the file is too large, or
            nothing can be shown.
    """
    inputs = {"image": jax.ShapeDtypeStruct((1, *trial.shape), jnp.uint8)}
    if trial.reconstruction is None:
        function = task_function(trial)
    elif trial.reconstruction.strategies:
        inputs |= mask_shapes(trial)
        function = masked_function(trial)
    else:
        function = whole_function(trial)
    names, labels = [], []

    def ordered(*arrays):
        found = function(*arrays)
        # Recorded here, as JAX sorts the keys of dicts that functions return.
        names[:], labels[:] = found.arrays, found.pictures
        # Not as bytes: the original would be an input and an output at once.
        return *found.arrays.values(), *(x.astype(jnp.int32) for x in found.pictures.values())

    jax.eval_shape(ordered, *inputs.values())
    outputs = (*names, *(f"picture_{number}" for number in range(len(labels))))
    proto = to_onnx(ordered, inputs, outputs, WAY_OUT)
    if proto.ByteSize() > LARGEST:
        size = proto.ByteSize() / 1e9
        raise UserError(f"the model has {size:.1f} GB, over the 2 GB of an ONNX file: {WAY_OUT}")
    content = proto.SerializeToString()
    check_onnx(content, WAY_OUT)
    return WebModel(content, outputs, tuple(labels))


def predicted(trial: Trial) -> str | None:
    """The output that the page shows as a prediction; None: it shows none."""
    outputs = () if trial.prediction is None else trial.prediction.outputs
    return next((name for name in PREDICTIONS if (name,) == tuple(outputs)), None)


def mask_shapes(trial: Trial) -> dict[str, Any]:
    """Shapes of the fields of a `Mask` of one image, with K visible and M masked patches, both
    symbolic.
    """
    length = len(trial.reconstruction)
    limits = [f"{name} <= {length}" for name in "KM"]
    visible, masked = jax.export.symbolic_shape("K, M", constraints=limits)
    sizes = {"keep": visible, "masked": masked, "restore": length}
    shapes = {name: jax.ShapeDtypeStruct((1, n), jnp.int32) for name, n in sizes.items()}
    return shapes | {"mask": jax.ShapeDtypeStruct((1, length), jnp.bool_)}


def masked_function(trial: Trial) -> Function:
    """Reconstructions: 'raw' [1, L, V], the decoder's predictions; 'errors' [1, L], the loss of
    each patch; 'features' [1, D] of the visible patches; and the pictures.
    """
    network, made = trial.network, trial.reconstruction

    def function(image, *fields):
        mask = Mask(*fields)
        raw = network.method.reconstruct(network.params, image, mask).astype(jnp.float32)
        pictures, errors = made.show(raw, network.extra, image, mask.mask)
        arrays = {"raw": raw, "errors": errors}
        if trial.neighbors is not None:
            arrays["features"] = features(trial, image, mask)
        return Drawn(arrays, pictures)

    return function


def features(trial: Trial, image: jax.Array, mask: Mask) -> jax.Array:
    """Features [1, D] of the visible patches of an image [1, H, W, C]; of the whole image if the
    encoder has other patches than the mask.
    """
    method, params = trial.network.method, trial.network.params
    if grid_of(trial.shape[:-1], method.encoder.patch) != trial.reconstruction.grid:
        return method.features(params, method.normalize(image))
    tokens = method.encoder.apply({"params": params["encoder"]}, method.normalize(image), mask)
    return method.pooled(tokens)


def whole_function(trial: Trial) -> Function:
    """Pictures of a model that reconstructs whole images, and 'features' [1, D] if it has any."""
    network = trial.network
    draw = network.method.pictures()

    def function(image):
        pictures = draw(network.params, network.extra, {"image": image})
        return Drawn(outputs_of(trial, image, ()), pictures)

    return function


def task_function(trial: Trial) -> Function:
    """The output that `predicted` names, and 'features' [1, D] if the model has any.

    Raises:
        UserError: it has neither.
    """
    output = predicted(trial)
    names = () if output is None else (output,)
    if not names and trial.neighbors is None:
        reasons = "; ".join(f"{title}: {reason}" for title, reason in trial.absent.items())
        raise UserError(f"{trial.network.name} has nothing that the page can show: {reasons}")
    return lambda image: Drawn(outputs_of(trial, image, names), {})


def outputs_of(trial: Trial, image: jax.Array, names: tuple[str, ...]) -> dict[str, jax.Array]:
    """Outputs of the method by name, and its 'features' if there are images to search."""
    network = trial.network
    names += ("features",) if trial.neighbors is not None else ()
    if not names:
        return {}
    return network.method.predict(network.params, network.extra, {"image": image}, outputs=names)
