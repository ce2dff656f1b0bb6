"""The contract of methods, for every file in methods/ and tasks/: a new one is found and tested by
itself, with the arguments in tests/methods/tiny or tests/tasks/tiny.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.engine.mesh import infer_shardings, make_mesh, put_batch
from mae_jax.learner import build_learner
from mae_jax.rules import map_rules, path_of
from mae_jax.types import Method, UserError
from tests.helpers import tiny as small
from tests.helpers.tiny_args import CONV, NAMES, VIT, make_tiny, tiny

KEY = jax.random.key(0)


CONVOLVED = ("methods.mae",)
"""Methods that slow tests run with the encoder that is not their own; the thorough ones do all."""
SPLIT = ("methods.mae", "tasks.segment")
"""Methods of several kinds that slow tests run on two devices; the thorough ones do all."""


def cases():
    """(name, changes of its arguments) of all methods; those that are slow once more with the
    encoder that is not their own, if they say of no others.
    """
    for name in NAMES:
        try:
            mine = tiny(name)
        except pytest.fail.Exception:  # as will the fixture
            yield pytest.param((name, {}), id=name)
            continue
        marks = [pytest.mark.thorough] if mine.COSTLY else []
        yield pytest.param((name, {}), id=name, marks=marks)
        for word, changes in mine.OTHERS.items():
            yield pytest.param((name, changes), id=f"{name}-{word}")
        for word, changes in mine.RARE.items():
            yield pytest.param((name, changes), id=f"{name}-{word}", marks=pytest.mark.thorough)
        if not mine.OTHERS and mine.ARGS.get("encoder") == VIT:
            marks = [pytest.mark.slow, *([] if name in CONVOLVED else [pytest.mark.thorough])]
            yield pytest.param((name, {"encoder": CONV}), id=f"{name}-conv", marks=marks)


class Case:
    """A method with parameters, and what is compiled once for all of its tests."""

    def __init__(self, name, changes):
        self.name, self.changes = name, changes
        self.method, self.tiny = make_tiny(name, **changes), tiny(name)
        self.batch = make_batch(self.tiny.IMAGE)
        self.params, self.extra = jax.device_get(jax.jit(self.method.init)(KEY, self.batch))
        self.again = changes.get("encoder") == CONV

    def loss(self, params, extra, batch, key, step):
        """Loss and the rest of the output, for `jax.grad`."""
        output = self.method.loss(params, extra, batch, key, step)
        return output.loss, (output.extra, output.metrics)

    @functools.cached_property
    def gradient(self):
        """Compiled: ((loss, (extra, metrics)), gradient)."""
        return jax.jit(jax.value_and_grad(self.loss, has_aux=True))

    @functools.cached_property
    def first(self):
        """Loss and gradient at the start."""
        (loss, _), gradient = self.gradient(self.params, self.extra, self.batch, KEY, 0)
        return jax.device_get((loss, gradient))

    @functools.cached_property
    def rules(self):
        """The factor of the learning rate of each leaf, None where it does not learn."""
        rules = map_rules(self.params, self.method.rules())
        return jax.tree.map(lambda rule: rule and rule[0], rules, is_leaf=is_rule)


def is_rule(x):
    """None and tuples are leaves."""
    return x is None or isinstance(x, tuple)


@pytest.fixture(scope="module", params=cases())
def case(request):
    """A method, its parameters, and what is compiled of it."""
    return Case(*request.param)


@pytest.fixture
def split(case, request):
    """Skips but for SPLIT, and but for all methods where the tests are thorough."""
    if not (case.name in SPLIT and not case.changes or request.config.getoption("thorough")):
        pytest.skip("thorough: bash launch/test.sh --thorough")


def make_batch(shape):
    """Four images [H, W, C] with large, plain areas, a second view of each, texts, one of which is
    empty, and labels, also of pixels, some of which have none.
    """
    height, width, channels = shape
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (4, height // 8, width // 4, channels))
    smooth = blocks.repeat(8, axis=1).repeat(4, axis=2)
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.25, 1, 1], [0, 0, 0, 0]], np.float32)
    box_labels = np.array([[0, 1, -1], [2, 3, -1], [1, -1, -1], [-1, -1, -1]], np.int32)
    return {
        "image": smooth.astype(np.uint8),
        "box": np.where(box_labels[..., None] < 0, 0, boxes),  # [4, 3, 4]
        "box_label": box_labels,
        "box_mask": np.full((4, 3, 8, 8), 255, np.uint8),
        "image2": smooth[:, :, ::-1].astype(np.uint8),
        "label": np.arange(4, dtype=np.int32),
        "labels": np.uint8([[1, 0, 0, 255], [1, 1, 0, 0], [0, 1, 1, 255], [0, 0, 1, 1]]),
        "value": np.arange(4, dtype=np.float32),
        "text": np.arange(24, dtype=np.int32).reshape(4, 6) % 16,
        "text_valid": np.arange(6) < np.array([[6], [4], [1], [0]]),
        "segmentation": np.where(smooth < 16, 255, smooth // 64)[..., 0].astype(np.int32),
    }


@pytest.fixture
def learner(case):
    """Every method but those that use networks as they are."""
    if not case.tiny.LEARNS:
        with pytest.raises(UserError, match="learns nothing"):
            case.method.loss({}, {}, {}, KEY, 0)
        pytest.skip("learns nothing")
    return case


def shapes(tree):
    """The shape and type of each leaf."""
    return jax.tree.map(lambda x: (np.shape(x), np.dtype(x.dtype)), tree)


def test_the_loss_falls_on_a_fixed_batch(learner):
    """Of two networks that work against each other, the discriminator's loss."""
    params, extra, losses = learner.params, learner.extra, []
    after = jax.jit(learner.method.after_update)
    for step in range(30):
        key = jax.random.fold_in(KEY, step)
        (loss, (extra, metrics)), gradient = learner.gradient(
            params, extra, learner.batch, key, step
        )
        params = jax.tree.map(descend, learner.rules, params, gradient, is_leaf=is_rule)
        extra = after(params, extra, step)
        losses.append(float(metrics.get("discriminator", loss)))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert all(np.shape(value) == () for value in metrics.values())


def descend(factor, leaf, gradient):
    """A leaf after a step of 3e-3, as Adam's steps are, in the direction of its gradient."""
    gradient = np.asarray(gradient)
    size = np.sqrt(np.mean(gradient**2)) + 1e-20
    return leaf if factor is None else np.asarray(leaf - 3e-3 * factor * gradient / size)


@pytest.mark.slow
def test_loss_and_gradient_do_not_depend_on_the_mesh(split, learner):
    """One device, against two that hold half of the batch and of each parameter."""
    if learner.again:
        pytest.skip("how this encoder is split, a method of its own shows, and each with a ViT")
    mesh = make_mesh(fsdp=2)
    split = lambda tree: jax.tree.map(jax.device_put, tree, infer_shardings(tree, mesh))
    (loss, _), gradient = learner.gradient(
        split(learner.params), split(learner.extra), put_batch(learner.batch, mesh), KEY, 0
    )
    alone, expected = learner.first
    np.testing.assert_allclose(loss, alone, rtol=2e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for (path, leaf), found in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(gradient)
    ):
        atol = 1e-4 * np.abs(leaf).max() + 1e-6 * largest
        np.testing.assert_allclose(found, leaf, rtol=0, atol=atol, err_msg=str(path))


SHIFT = "['predictor']['predict']['bias']"
"""A leaf of `hpm` that shifts all predicted losses alike, of which only the order counts: its
gradient is 0, or the error of rounding.
"""


def test_every_leaf_that_learns_receives_a_gradient(learner):
    _, gradient = learner.first
    heard = jax.tree.map(
        lambda factor, leaf: factor is None or bool(np.any(leaf)),
        learner.rules,
        gradient,
        is_leaf=is_rule,
    )
    paths = jax.tree_util.tree_leaves_with_path(heard)
    silent = {jax.tree_util.keystr(path) for path, yes in paths if not yes}
    assert silent <= {SHIFT}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(learner.params))


def test_predictions_are_deterministic_features_of_each_image_alone(case):
    predict = jax.jit(
        lambda batch: case.method.predict(case.params, case.extra, batch, outputs=("features",))
    )
    features = np.asarray(predict(case.batch)["features"])
    assert features.ndim == 2 and len(features) == 4 and features.dtype == jnp.float32
    np.testing.assert_array_equal(features, predict(case.batch)["features"])
    turned = {name: rows[::-1] for name, rows in case.batch.items()}
    np.testing.assert_allclose(predict(turned)["features"], features[::-1], rtol=1e-5, atol=1e-5)
    assert features.std(axis=0).max() > 1e-3, "features do not depend on the image"


def test_every_output_is_computed_where_it_is_asked_for_and_only_there(case):
    """From the declared fields of a batch alone."""
    method = case.method
    assert isinstance(method, Method) and "features" in method.offers()
    for outputs in ((), method.offers()[:1], method.offers()[::-1]):
        batch = {name: case.batch[name] for name in method.reads(outputs)}
        found = jax.eval_shape(
            functools.partial(method.predict, outputs=outputs), case.params, case.extra, batch
        )
        assert tuple(sorted(found)) == tuple(sorted(outputs))
        assert {len(rows) for rows in jax.tree.leaves(found)} <= {4}


def test_an_example_is_a_batch_of_one(case):
    method = case.method
    example = method.example(case.tiny.IMAGE)
    assert {x.shape[0] for x in example.values()} == {1} and set(method.labels()) <= set(example)
    assert example.keys() <= case.batch.keys()
    for name, rows in example.items():
        assert (rows.shape[1:], rows.dtype) == (case.batch[name].shape[1:], case.batch[name].dtype)
    params, extra = jax.eval_shape(method.init, KEY, example)
    assert shapes(params) == shapes(case.params) and shapes(extra) == shapes(case.extra)


def test_collections_keep_their_shapes(case):
    method, expected = case.method, shapes(case.extra)
    for moved in (
        jax.eval_shape(method.after_update, case.params, case.extra, 0),
        jax.eval_shape(method.after_load, case.params, case.extra),
    ):
        assert shapes(moved) == expected
    if not method.sample:
        assert method.constants({}) == {}


def test_what_may_be_loaded_exists_and_fits(case):
    """Every part is in the state; for the images at hand, arrays of it stay as they are."""
    shape = case.tiny.IMAGE
    adapt = case.method.adapt(shape, shape)
    for part, missing in case.method.loads().items():
        tree = {"params": case.params, "extra": case.extra}
        for name in part.split("/"):
            tree = tree[name]
        leaves = {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for path, leaf in leaves.items():
            np.testing.assert_allclose(adapt(path, leaf), leaf, rtol=1e-5, atol=1e-6)
        assert not all(re.search(missing, path) for path in leaves), "something has to be there"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [pytest.param((24, 3), marks=pytest.mark.thorough), (8, 8, 8, 3)])
def test_images_of_another_rank_are_learned_or_refused_in_one_line(name, shape):
    config = small.get_config()
    args = dict(tiny(name).ARGS)
    if "crop" in args and make_tiny(name).rank is None:
        args["crop"] = shape[:-1]
    config.method = dict(name=name.removeprefix("methods."), args=args)
    example = lambda method: method.example(shape)
    build = lambda: build_learner(
        config, make_mesh(), num_examples=32, example=example, sample=lambda count, fields: {}
    )
    if make_tiny(name).rank is None:
        learner = build()
        if tiny(name).LEARNS:
            learner.trace()
        return
    with pytest.raises(UserError, match=r"from images of 2 dimensions, and these are \[") as error:
        build()
    assert "\n" not in str(error.value)


def test_pictures_are_bytes_of_the_size_of_the_images(case):
    draw = case.method.pictures()
    if draw is None:
        return
    found = jax.eval_shape(draw, case.params, case.extra, case.batch)
    *space, channels = case.tiny.IMAGE
    assert len(found) > 1 and {picture.dtype for picture in found.values()} == {np.dtype(np.uint8)}
    assert {picture.shape[:-1] for picture in found.values()} == {(4, *space)}
    assert {picture.shape[-1] for picture in found.values()} <= {channels, 3}


def test_fields_of_a_method_are_given_by_name(case):
    assert all(field.kw_only for field in dataclasses.fields(case.method))


def test_methods_are_found_and_asked_for_their_arguments():
    assert {"methods.mae", "tasks.finetune"} <= set(NAMES)
    assert not {"methods.images", "methods.tiles"} & set(NAMES), "which make nothing"
    with pytest.raises(pytest.fail.Exception, match="write tests/tasks/tiny/nothing.py with ARGS"):
        tiny("tasks.nothing")
