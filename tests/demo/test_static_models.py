"""Models of all kinds in the page without a server: the numbers of the run, or a reason."""

import numpy as np
import pytest

from mae_jax.demo.onnx_model import web_model
from mae_jax.demo.trial import load
from mae_jax.types import UserError
from tests.demo.test_static import NEEDS_CONVERTER, check
from tests.demo.test_trial import SHAPE, make_folder
from tests.explain.test_command import written
from tests.helpers.tiny_args import NAMES, tiny

VIT = "vit(width=16, depth=2, heads=2, patch=4)"
DECODER = dict(decoder_width=8, decoder_depth=2, decoder_heads=2)
KINDS = {
    "cross-attention": ("mae", dict(encoder=VIT, decoder="cross", fuse=(1, 2), **DECODER)),
    "fused": ("mae", dict(encoder=VIT, fuse=(0, 2), **DECODER)),
    "mask tokens": ("mae", dict(encoder=VIT, mask_tokens_in_encoder=True, **DECODER)),
    "one-hot": ("mae", dict(encoder=VIT, decoder_gather="onehot", **DECODER)),
    "low-pass": ("mae", dict(encoder=VIT, target="lowpass(radius=0.2)", **DECODER)),
    "hog": ("mae", dict(encoder=VIT, target="hog(cell=4)", **DECODER)),
    "fcmae of a ViT": ("fcmae", dict(encoder=VIT, decoder_width=8, skips=False)),
}
"""Name -> method and arguments that differ from the tiny ones of all methods."""
KINDS |= {n: (n.removeprefix("methods."), dict(tiny(n).ARGS)) for n in NAMES if n != "methods.mae"}


REFUSED = {
    "hog": "stack",
    "methods.colorization": "stack",
    "methods.bigan": "BitCast",  # their pictures draw random numbers
    "methods.vae": "BitCast",
}
"""Name -> the operation that the converter does not know."""


@NEEDS_CONVERTER
@pytest.mark.thorough
@pytest.mark.parametrize("name", KINDS)
def test_every_model(name, tmp_path):
    method, args = KINDS[name]
    shape = tiny(name).IMAGE if name in NAMES else SHAPE
    written(tmp_path / "run", method, args, shape)
    trial = load(str(tmp_path / "run"), images=str(make_folder(tmp_path / "photos")))
    if name in REFUSED:
        with pytest.raises(UserError, match=f"cannot convert this model .*{REFUSED[name]}"):
            web_model(trial)
        return
    content = web_model(trial).content
    length = trial.grid[0] * trial.grid[1]
    check(trial, content, np.zeros(length, bool))
    check(trial, content, np.arange(length) % 4 != 1)
