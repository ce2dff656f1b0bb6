"""Color jitter against the float64 formulas, which Pillow rounds after each operation."""

import numpy as np
import pytest

from mae_jax.data.random import hash_words
from mae_jax.data.transforms import draw, make_transforms
from mae_jax.types import UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
LUMA = np.array([0.299, 0.587, 0.114])


def jitter(text, params, image=IMAGE):
    (transform,) = make_transforms(text)
    example = {"image": image, "label": 3}
    found = transform.apply(example, np.array(params))
    assert found["label"] == 3 and found["image"].shape == image.shape
    return found["image"].astype(np.float64)


def blend(base, image, factor):
    return np.clip(base + factor * (image - base), 0, 255)


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.37])
def test_each_operation(factor):
    gray = IMAGE @ LUMA
    expected = {
        0: blend(0, IMAGE, factor),
        1: blend(np.floor(gray.mean() + 0.5), IMAGE, factor),
        2: blend(np.repeat(gray[..., None], 3, 2), IMAGE, factor),
    }
    for number, image in expected.items():
        factors = [factor if i == number else 1.0 for i in range(3)]
        assert np.abs(jitter("color_jitter", [*factors, 0, 0, 0]) - image).max() <= 1.5


def test_the_order_is_that_of_the_last_numbers():
    """Brightness after contrast clips other pixels than before it."""
    first = jitter("color_jitter", [1.4, 1.4, 1, 0.1, 0.2, 0.3])
    last = jitter("color_jitter", [1.4, 1.4, 1, 0.2, 0.1, 0.3])
    assert np.abs(first - last).max() > 3
    mean = np.floor((np.clip(1.4 * IMAGE, 0, 255) @ LUMA).mean() + 0.5)
    assert np.abs(first - blend(mean, np.clip(1.4 * IMAGE, 0, 255), 1.4)).max() <= 3


def test_factors_are_uniform_and_a_strength_of_0_changes_nothing():
    (transform,) = made = make_transforms("color_jitter(brightness=0.4, contrast=2, saturation=0)")
    params = draw(made, hash_words(np.arange(4000)))[0]
    for column, (low, high) in enumerate(((0.6, 1.4), (0, 3), (1, 1))):
        values = params[:, column]
        assert low <= values.min() and values.max() <= high
        np.testing.assert_allclose(values.mean(), (low + high) / 2, atol=0.05)
    orders = {tuple(row) for row in np.argsort(params[:, 3:], axis=1)}
    assert len(orders) == 6
    np.testing.assert_array_equal(
        jitter("color_jitter(brightness=0, contrast=0, saturation=0)", params[0]), IMAGE
    )
    assert transform.strengths == (0.4, 2, 0)


def test_gray_images_have_no_saturation():
    gray = IMAGE[..., :1]
    np.testing.assert_array_equal(jitter("color_jitter", [1, 1, 3, 0, 0, 0], gray), gray)
    assert (jitter("color_jitter", [1.2, 1, 1, 0, 0, 0], gray) != gray).any()


def test_mistakes():
    for text, said in (
        ("contrast=-1", "contrast=-1 should be"),
        ("brightness=x", "brightness='x'"),
    ):
        with pytest.raises(UserError, match=f"color_jitter: {said}"):
            make_transforms(f"color_jitter({text})")
    with pytest.raises(UserError, match="color_jitter: images of 2 channels"):
        jitter("color_jitter", [1, 1, 1, 0, 0, 0], IMAGE[..., :2])
