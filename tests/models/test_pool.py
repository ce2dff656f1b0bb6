"""Features from several class tokens: their mean, or side by side."""

import jax
import numpy as np
import pytest

from mae_jax.models.encoder import pooled
from tests.helpers.tiny_args import VIT, make_tiny, tiny

ENCODER = VIT.replace(")", ", class_tokens=3)")


def test_class_tokens_side_by_side():
    tokens = np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)
    found = pooled(jax.numpy.asarray(tokens), "cls_concat", prefix=3)
    np.testing.assert_array_equal(found, np.concatenate(list(tokens[:, :3].swapaxes(0, 1)), axis=1))
    mean = pooled(jax.numpy.asarray(tokens), "cls", prefix=3)
    np.testing.assert_allclose(mean, tokens[:, :3].mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("methods.mae", None),
        ("methods.rotation", None),
        ("methods.jigsaw", None),
        ("methods.vae", None),
        pytest.param("methods.bigan", None, marks=pytest.mark.thorough),
        pytest.param("methods.simclr", None, marks=pytest.mark.thorough),
        pytest.param("methods.mocov3", None, marks=pytest.mark.thorough),
        ("tasks.finetune", ("head", "kernel")),
        ("tasks.linear_probe", ("head_0", "kernel")),
    ],
)
def test_methods_read_features_of_that_width(name, head):
    """Of shapes alone: heads have as many inputs as there are features."""
    method = make_tiny(name, encoder=ENCODER, pool="cls_concat")
    assert method.feature_width == 48
    image = jax.ShapeDtypeStruct((2, *tiny(name).IMAGE), np.uint8)
    batch = dict(image=image, image2=image, label=jax.ShapeDtypeStruct((2,), np.int32))

    def run(batch):
        params, extra = method.init(jax.random.key(0), batch)
        loss = method.loss(params, extra, batch, jax.random.key(1), 0).loss
        return params, loss, method.predict(params, extra, batch, outputs=("features",))

    params, loss, found = jax.eval_shape(run, batch)
    assert loss.shape == ()
    if name != "methods.vae":  # whose features are the mean of its posterior
        assert found["features"].shape == (2, 48)
    if head:
        kernel = params[head[0]][head[1]]
        assert kernel.shape[0] == 48
        assert "norm" in params["encoder"], "the final norm stays"
