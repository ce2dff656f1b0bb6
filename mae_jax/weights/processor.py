"""Preprocessing of images for imported weights: converts a preprocessor_config.json of Hugging
Face, or the pretrained_cfg of timm, to our transforms and pixel statistics.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mae_jax.types import UserError

logger = logging.getLogger(__name__)

KERNELS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the kernels that ours match, within a level or two of 255."""
SQUARE = {224: dict(height=224, width=224), 256: dict(height=256, width=256)}
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
HALF = ([0.5], [0.5])


def each_channel(values: Sequence[float], channels: int) -> list[float]:
    """Mean or standard deviation of each channel, from one number or one for each."""
    return [float(v) for v in values] * (channels if len(values) == 1 else 1)


class Defaults(NamedTuple):
    """Defaults of a processor of transformers for keys that its file lacks."""

    resample: int
    size: dict[str, int]
    crop: bool
    pixels: tuple[list[float], list[float]]
    square: bool = True
    """Whether a size of one number is the side of a square, not the shorter side."""


PROCESSORS = {
    "ViT": Defaults(2, SQUARE[224], False, HALF),
    "Beit": Defaults(3, SQUARE[224], False, HALF),
    "DeiT": Defaults(3, SQUARE[256], True, HALF),
    "Bit": Defaults(3, dict(shortest_edge=224), True, CLIP, square=False),
    "CLIP": Defaults(3, dict(shortest_edge=224), True, CLIP, square=False),
    "Siglip": Defaults(3, SQUARE[224], False, HALF, square=False),
}
"""Start of the name of a processor or feature extractor -> its defaults. Other processors have
their own rules for resizing and are not supported."""


class Images(NamedTuple):
    """Preprocessing before normalization."""

    transform: str
    """Spec of transforms; '': unknown or not supported."""
    remark: str
    """What is not supported; '': nothing."""


def written(
    name: str,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    size: Mapping[str, int],
    resample: int,
    crop: Sequence[int] = (),
) -> dict[str, Any]:
    """Content of a preprocessor_config.json: resize, center crop, rescale to [0, 1], normalize.

    Args:
        name: class of transformers.
        mean, std: of each channel.
        size: 'height' and 'width', or 'shortest_edge'.
        resample: a key of `KERNELS`.
        crop: height and width; (): no crop.
    """
    cropped = {}
    if crop:
        cropped = dict(do_center_crop=True, crop_size=dict(height=crop[0], width=crop[1]))
    return dict(
        image_processor_type=name,
        do_resize=True,
        size=size,
        resample=resample,
        **cropped,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=mean,
        image_std=std,
    )


def _name(processor: Mapping[str, Any]) -> str:
    """Name of the processor's class; '': unknown."""
    keys = ("image_processor_type", "feature_extractor_type")
    return next((str(processor[key]) for key in keys if processor.get(key)), "")


def _defaults(processor: Mapping[str, Any]) -> Defaults | None:
    match = re.fullmatch(r"(\w+?)(ImageProcessor|FeatureExtractor)(Fast|Pil)?", _name(processor))
    return PROCESSORS.get(match[1]) if match else None


def _get(processor: Mapping[str, Any], key: str, default: Any) -> Any:
    """A value that may be missing, or null."""
    value = processor.get(key)
    return default if value is None else value


def pixels_of(processor: Mapping[str, Any], name: str) -> dict[str, Any]:
    """'mean' and 'std' of pixels in [0, 1], equivalent to a processor's rescaling and normalization
    of bytes; {} if they are unknown.

    Raises:
        UserError: the processor does something else, too.
    """
    if not processor:
        return {}
    for key in ("offset", "rescale_offset"):
        if _get(processor, key, False):
            raise UserError(
                f"{name} has {key}: true in preprocessor_config.json, which is not supported: "
                "remove it from the file, and pass --mean and --std"
            )
    rescale = _get(processor, "do_rescale", True)
    factor = _get(processor, "rescale_factor", 1 / 255) if rescale else 1.0
    if type(factor) not in (int, float) or not math.isfinite(factor) or factor <= 0:
        raise UserError(f"{name}: rescale_factor={factor!r} should be a positive number")
    mean, std = _normalized(processor)
    if not mean:
        return {}
    scale = 255 * factor  # (255 u factor - mean) / std = (u - mean / scale) / (std / scale)
    if math.isclose(scale, 1, rel_tol=1e-6):
        return dict(mean=mean, std=std)
    logger.warning(
        "%s multiplies bytes by %g, not by 1/255: mean and std of its preprocessor_config.json are "
        "divided by %g",
        *(name, factor, scale),
    )
    if not all(isinstance(v, (int, float)) for v in (*mean, *std)):
        raise UserError(f"{name}: image_mean={mean} and image_std={std} should be numbers")
    return dict(mean=[v / scale for v in mean], std=[v / scale for v in std])


def _normalized(processor: Mapping[str, Any]) -> tuple[list, list]:
    """Mean and standard deviation of rescaled pixels; [], [] if unknown."""
    if not _get(processor, "do_normalize", True):
        return [0.0], [1.0]
    known = _defaults(processor)
    mean, std = known.pixels if known else ([], [])
    listed = lambda value: value if isinstance(value, list) else [value]
    return listed(_get(processor, "image_mean", mean)), listed(_get(processor, "image_std", std))


def images_of(processor: Mapping[str, Any], pretrained: Mapping[str, Any], size) -> Images:
    """The transforms equivalent to the preprocessing of a network.

    Args:
        processor: preprocessor_config.json, or {}.
        pretrained: pretrained_cfg of timm, or {}.
        size: (height, width) of our images.
    """
    if pretrained:
        return _of_timm(pretrained, size)
    return _of_processor(processor, size) if processor else Images("", "")


def _of_processor(processor: Mapping[str, Any], size: tuple[int, int]) -> Images:
    where, known = "preprocessor_config.json", _defaults(processor)
    if known is None and _name(processor):
        return Images("", f"{where} is of {_name(processor)}")
    resample = _get(processor, "resample", known.resample if known else None)
    square = known.square if known else None
    resized = _sides(_get(processor, "size", known.size if known else None), square=square)
    crop = None
    if _get(processor, "do_center_crop", known.crop if known else False):
        crop = _sides(_get(processor, "crop_size", 224 if known else None), square=True)
        if not isinstance(crop, tuple):
            return Images("", f"{where} crops to {processor.get('crop_size')}")
    if _get(processor, "do_pad", False):
        return Images("", f"{where} pads images")
    if not _get(processor, "do_resize", True):
        return _specified(
            None, crop, "", "down", size, "" if crop else f"{where} resizes no images"
        )
    if type(resample) is not int or resample not in KERNELS:
        return Images("", f"{where} has resample={resample!r}")
    if resized is None or (crop is None and isinstance(resized, int)):
        return Images("", f"{where} has size={processor.get('size')}")
    if crop and max(crop) > (resized if isinstance(resized, int) else min(resized)):
        return Images("", f"{where} crops {crop[0]} x {crop[1]} of {resized} pixels")
    return _specified(resized, crop, KERNELS[resample], "down", size, "")


def _sides(size: Any, *, square: bool | None) -> int | tuple[int, int] | None:
    """The shorter side, or (height, width), of a size in a file; None: neither.

    Args:
        size: as in the file.
        square: whether one number is the side of a square; None: unknown.
    """
    positive = lambda *sides: all(type(side) is int and side > 0 for side in sides)
    match size:
        case int() if positive(size) and square is not None:
            return (size, size) if square else size
        case {"height": h, "width": w} if len(size) == 2 and positive(h, w):
            return h, w
        case {"shortest_edge": s} if len(size) == 1 and positive(s):
            return s
    return None


def _of_timm(pretrained: Mapping[str, Any], size: tuple[int, int]) -> Images:
    kernel, mode = (
        _get(pretrained, "interpolation", "bicubic"),
        _get(pretrained, "crop_mode", "center"),
    )
    share, shape = _get(pretrained, "crop_pct", 0.875), _get(pretrained, "input_size", [3, *size])
    valid = isinstance(shape, list) and len(shape) == 3 and all(type(n) is int for n in shape)
    if not valid or type(share) not in (int, float) or not 0 < share <= 1:
        return Images("", f"timm's pretrained_cfg has input_size={shape} and crop_pct={share}")
    if kernel not in KERNELS.values():
        return Images("", f"timm's pretrained_cfg has interpolation={kernel!r}")
    if mode not in ("center", "squash") or (mode == "center" and shape[1] != shape[2]):
        return Images("", f"timm's pretrained_cfg has crop_mode={mode!r} of {shape}")
    larger = tuple(math.floor(side / share) for side in shape[1:])
    resize = larger if mode == "squash" else larger[0]
    return _specified(resize, tuple(shape[1:]), kernel, "even", size, "")


def _specified(resize, crop, kernel: str, rounding: str, size, remark: str) -> Images:
    """The spec of a resize, to (height, width) or of the shorter side, and a crop; scaled to the
    size of our images if theirs differ.
    """
    final = crop or resize
    if final is None:
        return Images("", remark)
    factors = [new / old for new, old in zip(size, final, strict=True)]
    if isinstance(resize, int):
        resize = round(resize * max(factors))
    elif resize is not None:
        resize = tuple(round(side * f) for side, f in zip(resize, factors, strict=True))
    if tuple(final) != tuple(size):
        remark = f"{final[0]} x {final[1]} pixels are changed to {size[0]} x {size[1]}"
    if resize is None:
        return Images(f"center_crop({tuple(size)})", remark)
    down = ", rounding=down" if isinstance(resize, int) else ""
    steps = [f"resize({resize}, kernel={kernel}{down})"]
    if crop is not None and tuple(size) != resize:
        even = ", rounding=even" if rounding == "even" else ""
        steps.append(f"center_crop({tuple(size)}{even})")
    return Images("|".join(steps), remark)
