"""Objectives against NumPy in float64: losses, soft targets, weights, units and refusals."""

import functools

import jax
import numpy as np
import pytest

from mae_jax.objectives import balanced, make_objective, weighted
from mae_jax.types import UserError

RNG = np.random.default_rng(0)
SPECS = {
    "classes": RNG.integers(0, 4, 6).astype(np.int32),
    "ordered": np.array([0, 1, 2, 3, 3, 1], np.int32),
    "multilabel": np.array([[0, 1, 255, 1], [1, 1, 0, 0], [255] * 4] * 2, np.uint8),
    "regression": RNG.normal(5, 3, (6, 4)).astype(np.float32),
    "regression(error=absolute)": RNG.normal(5, 3, (6, 4)).astype(np.float32),
}
"""Objective of four classes or values -> labels of six examples."""


def log_softmax(x):
    """Along the last axis, float64."""
    x = x.astype(np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def sigmoid(x):
    """Float64."""
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def expected(spec, outputs, labels, weights):
    """Losses [6] by their definitions."""
    if spec == "classes":
        losses = -np.take_along_axis(log_softmax(outputs), labels[:, None], 1)[:, 0]
        return losses if weights is None else losses * weights[labels]
    if spec == "multilabel":
        p = sigmoid(outputs)
        entries = np.where(labels == 1, -np.log(p), -np.log(1 - p)) * (labels != 255)
        if weights is not None:
            entries = entries * np.where(labels == 1, weights[1], weights[0])
        return entries.sum(axis=1) / 4
    if spec == "ordered":
        gaps = np.log1p(np.exp(32 * (outputs[:, 1:] - outputs[:, :1]).astype(np.float64)))
        above = sigmoid(outputs[:, :1] - np.cumsum(np.pad(gaps, ((0, 0), (1, 0))), axis=1))
        edges = np.concatenate([np.ones((6, 1)), above, np.zeros((6, 1))], axis=1)
        p = np.take_along_axis(edges[:, :-1] - edges[:, 1:], labels[:, None], 1)[:, 0]
        return -np.log(p) * (1 if weights is None else weights[labels])
    standard = (labels - labels.mean(axis=0)) / labels.std(axis=0)
    error = outputs - standard
    return (np.abs(error) if "absolute" in spec else error**2).mean(axis=1)


def constants_of(objective, labels):
    """On the device, as in a state."""
    return jax.device_put(objective.constants(labels)) if objective.sample else {}


@functools.cache
def computed(spec):
    """Outputs of two heads [6, 2, width]; losses of both, and of the first alone; predictions."""
    objective, labels = make_objective(spec, 4), SPECS[spec]
    constants = constants_of(objective, labels)
    outputs = RNG.normal(size=(6, 2, objective.width)).astype(np.float32)
    if spec.startswith("ordered"):  # gaps of the order of one
        outputs[..., 1:] = outputs[..., :1] + outputs[..., 1:] / 32

    @jax.jit
    def both(outputs, labels):
        heads = objective.losses(outputs, labels[:, None], constants)
        alone = objective.losses(outputs[:, 0], labels, constants)
        return heads, alone, objective.predictions(outputs[:, 0], constants)

    return outputs, *jax.device_get(both(outputs, labels))


WEIGHTED = ["classes(class_weights=balanced)", "multilabel(class_weights=balanced)"]
WEIGHTED += ["ordered(class_weights=balanced)"]
SPECS |= {spec: SPECS[spec.partition("(")[0]] for spec in WEIGHTED}


@pytest.mark.parametrize("spec", SPECS)
def test_losses_are_those_of_numpy(spec):
    outputs, heads, alone, _ = computed(spec)
    name, labels, weights = spec.partition("(class")[0], SPECS[spec], None
    if spec in WEIGHTED and name == "multilabel":
        kinds = np.stack([(labels == 0).sum(0), (labels == 1).sum(0)])
        weights = kinds.sum(0) / (2 * np.maximum(kinds, 1))
    elif spec in WEIGHTED:
        counts = np.bincount(labels, minlength=4)
        weights = 6 / (4 * np.maximum(counts, 1))
    for head in (0, 1):
        wanted = expected(name, outputs[:, head], labels, weights)
        np.testing.assert_allclose(heads[:, head], wanted, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(alone, heads[:, 0], rtol=1e-6)


def test_a_probability_for_each_ordered_class():
    """The sum is one, and the classes above k have the sigmoid of the cumulative logit."""
    outputs, _, _, log = computed("ordered")
    np.testing.assert_allclose(np.exp(log).sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.exp(log[:, 1:]).sum(axis=1), sigmoid(outputs[:, 0, 0]), rtol=1e-5)
    objective = make_objective("ordered", 5)
    far = np.array([[200.0, 3, -4, 100], [-200, 1, 1, 1]], np.float32)

    @jax.jit
    def both(outputs):
        loss = lambda x: objective.losses(x, np.array([0, 4]), {}).sum()
        return objective.predictions(np.float32(objective.biases), {}), jax.grad(loss)(outputs)

    equal, gradient = both(far)
    np.testing.assert_allclose(np.exp(equal), 0.2, rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_predictions_are_in_the_units_of_the_values():
    outputs, _, _, found = computed("regression")
    labels = SPECS["regression"].astype(np.float64)
    wanted = outputs[:, 0] * labels.std(axis=0) + labels.mean(axis=0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    one = make_objective("regression", 1)
    constants = one.constants(np.float32([3, 5, 7]))
    assert constants["mean"] == [5] and constants["std"] == pytest.approx([np.sqrt(8 / 3)])
    assert one.constants(np.ones(3))["std"] == [1]
    losses = one.losses(np.zeros((3, 1), np.float32), np.float32([3, 5, 7]), constants)
    np.testing.assert_allclose(losses, [1.5, 0, 1.5], rtol=1e-6)
    with pytest.raises(UserError, match="not finite"):
        one.constants(np.float32([1, np.nan]))


@pytest.mark.parametrize("spec", [s for s in SPECS if s.startswith(("classes", "multilabel"))])
def test_a_mixture_of_targets_has_the_mixture_of_the_losses(spec):
    objective, labels = make_objective(spec, 4), SPECS[spec]
    constants = constants_of(objective, labels)
    outputs = RNG.normal(size=(6, 4)).astype(np.float32)

    weights = np.float32([1, 2, 0, 3, 1, 2])

    @jax.jit
    def both(outputs, labels):
        soft = weighted(objective.targets(labels, constants, 0.0), {"weight": weights})
        mixed = objective.losses(outputs, 0.3 * soft + 0.7 * soft[::-1], constants)
        return mixed, [objective.losses(outputs, x, constants) for x in (labels, labels[::-1])]

    mixed, (first, second) = both(outputs, labels)
    wanted = 0.3 * first * weights + 0.7 * second * weights[::-1]
    np.testing.assert_allclose(mixed, wanted, rtol=1e-5, atol=1e-5)


def test_smoothing_of_several_classes():
    objective, outputs = make_objective("multilabel", 4), RNG.normal(size=(6, 4))
    labels, p = SPECS["multilabel"], sigmoid(outputs)
    soft = np.where(labels == 1, 0.95, 0.05)
    entries = -(soft * np.log(p) + (1 - soft) * np.log(1 - p)) * (labels != 255)
    targets = objective.targets(labels, {}, 0.1)
    np.testing.assert_allclose(
        objective.losses(outputs, targets, {}), entries.mean(axis=1), rtol=1e-5, atol=1e-6
    )


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = RNG.integers(0, 5, 100)
    found = balanced(np.bincount(labels))
    wanted = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert make_objective("classes(class_weights=balanced)", 3).constants(np.array([0, 0, -1, 1]))[
        "weights"
    ].tolist() == pytest.approx([1 / 2, 1, 1])


def test_an_objective_of_ones_own(tmp_path, monkeypatch):
    text = "from mae_jax.objectives.classes import Classes\n\n"
    text += "def make(*, classes: int, scale: float = 1.0):\n    return Classes(classes=classes)\n"
    (tmp_path / "my_objective").mkdir()
    (tmp_path / "my_objective" / "__init__.py").touch()
    (tmp_path / "my_objective" / "one.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert make_objective("my_objective.one(scale=2.0)", 3).classes == 3
    with pytest.raises(UserError, match="there is no 'scal'"):
        make_objective("my_objective.one(scal=2.0)", 3)


@pytest.mark.parametrize(
    ("spec", "classes", "mixing", "message"),
    [
        ("classes", 1, {}, "classes=1 must be at least 2"),
        ("multilabel", 0, {}, "classes=0 must be at least 1"),
        ("regression", 0, {}, "classes=0 must be the number of values"),
        ("regression(error=cubed)", 1, {}, "error 'cubed' is unknown: choose squared, absolute"),
        ("regression(class_weights=balanced)", 1, {}, "there is no 'class_weights'"),
        ("classes(class_weights=inverse)", 3, {}, "choose none, balanced"),
        ("ordered", 3, dict(mixup=0.8, cutmix=0.0), r"\(mixup=0.8\): set config.method.args.mixup"),
        ("regression", 1, dict(smoothing=0.1), "cannot mix or smooth labels"),
        ("regresion", 1, {}, "regression"),
    ],
)
def test_refusals(spec, classes, mixing, message):
    with pytest.raises(UserError, match=message) as error:
        make_objective(spec, classes, mixing)
    assert "\n" not in str(error.value)
