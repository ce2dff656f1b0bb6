"""Features of inner layers: equal to encoders that end there, named, refused, and evaluated."""

import functools

import jax
import numpy as np
import pytest

from mae_jax.evals import knn, logistic, spectrum
from mae_jax.methods import fcmae, mae
from mae_jax.models import vit
from mae_jax.models.convnext import ConvNeXt
from mae_jax.settings import make_evaluators
from mae_jax.tasks import finetune, linear_probe
from mae_jax.types import UserError, layer_output
from tests.evals.test_knn import Splits, clusters
from tests.helpers.compiled import compiled
from tests.helpers.tiny_args import CONV

SHAPE = dict(width=16, heads=2, patch=4, class_tokens=2)
ENCODER = "vit(depth=3, width=16, heads=2, patch=4, class_tokens=2)"
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), np.uint8)


@functools.cache
def method():
    """A masked autoencoder with three blocks, and parameters that are not the initial ones."""
    ours = mae.make(encoder=ENCODER, pool="cls", decoder_width=8, decoder_depth=1, decoder_heads=2)
    params, _ = compiled(ours, "init")(jax.random.key(0), {"image": IMAGES})
    wave = lambda x: np.float32(x + 0.1 * np.cos(np.arange(x.size)).reshape(x.shape))
    return ours, jax.tree.map(wave, jax.device_get(params))


def predicted(*outputs):
    ours, params = method()
    predict = functools.partial(ours.predict, outputs=outputs)
    return jax.device_get(jax.jit(predict)(params, {}, {"image": IMAGES}))


def truncated(depth):
    """The tokens of an encoder with the first blocks only, and the same final norm."""
    ours, params = method()
    encoder, pixels = params["encoder"], ours.normalize(IMAGES)
    late = {f"block_{i}" for i in range(depth, 3)}
    rest = {name: leaf for name, leaf in encoder.items() if name not in late}
    network = vit.make(depth=depth, **SHAPE)
    return np.asarray(compiled(network, "apply")({"params": rest}, pixels))


def test_a_layer_is_an_encoder_that_ends_there():
    names = ["features/0", "features/1/mean", "features/-2/cls_concat", "tokens/-3", "features"]
    found = predicted(*names, "features/*", "features/-1")
    first, second, last = (truncated(depth) for depth in (1, 2, 3))
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    near(found["features/0"], first[:, :2].mean(axis=1))
    near(found["features/1/mean"], second[:, 2:].mean(axis=1))
    near(found["features/-2/cls_concat"], second[:, :2].reshape(3, 32))
    near(found["tokens/-3"], first)
    near(found["features"], last[:, :2].mean(axis=1))
    near(found["features/-1"], found["features"])
    every = np.stack([x[:, :2].mean(axis=1) for x in (first, second, last)], axis=1)
    near(found["features/*"], every)
    assert np.abs(found["features/0"] - found["features/1/mean"]).max() > 0.1


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("features/3", "layer 3 is not one of 3: choose 0 to 2, or -1, the last"),
        ("features/-4/mean", "layer -4 is not one of 3"),
        ("features/1/max", "pool 'max' is unknown: choose cls, mean, cls_concat"),
        ("features/last", "output 'features/last': write features/LAYER, features/LAYER/POOL or"),
        ("tokens/1/mean", "output 'tokens/1/mean': write"),
    ],
)
def test_layers_that_do_not_exist(output, message):
    ours, params = method()
    ours.check_output("mae", output)  # it is of a family that exists
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda p: ours.predict(p, {}, {"image": IMAGES}, outputs=(output,)), params)


def test_a_pool_of_class_tokens_needs_some():
    ours = mae.make(encoder="vit(depth=1, width=16, heads=2, patch=4, class_tokens=0)", pool="mean")
    shapes = jax.eval_shape(ours.init, jax.random.key(0), {"image": IMAGES})[0]
    predict = functools.partial(ours.predict, outputs=("features/0/cls",))
    with pytest.raises(UserError, match="pool='cls' needs a class token"):
        jax.eval_shape(lambda p: predict(p, {}, {"image": IMAGES}), shapes)


def test_layers_of_other_shapes_are_offered_one_by_one():
    convolved = fcmae.make(encoder=CONV, decoder_width=8)
    names = ("features", "tokens", "features/0", "features/1", "tokens/0", "tokens/1")
    assert convolved.offers() == names
    convolved.check_output("it", "features/-2/cls")
    with pytest.raises(UserError, match=r"'features/\*' is unknown: choose features, tokens, feat"):
        convolved.check_output("it", "features/*")
    shapes, _ = jax.eval_shape(convolved.init, jax.random.key(0), {"image": IMAGES})
    predict = functools.partial(convolved.predict, outputs=names)
    found = jax.eval_shape(predict, shapes, {}, {"image": IMAGES})
    expected = [(3, 16), (3, 7, 16), (3, 8), (3, 16), (3, 25, 8), (3, 7, 16)]
    assert [found[name].shape for name in names] == expected


def test_other_encoders_and_tasks_say_so(monkeypatch):
    probe = linear_probe.make(encoder=CONV, classes=3, layer=-2)
    assert (probe.layer, probe.feature_width) == (0, 8)
    shapes, _ = jax.eval_shape(probe.init, jax.random.key(0), {"image": IMAGES})
    assert shapes["head_0"]["kernel"].shape == (8, 3)
    message = "output of it: 'features/0' is unknown: choose features, head_logits, logits"
    with pytest.raises(UserError, match=message):
        probe.check_output("it", "features/0")
    monkeypatch.setattr(ConvNeXt, "layers", 0)
    with pytest.raises(UserError, match=r"layer=1: convnext\(.*returns no layers"):
        linear_probe.make(encoder=CONV, classes=3, layer=1)
    with pytest.raises(UserError, match="choose features, logits"):
        finetune.make(encoder=ENCODER, classes=3).check_output("it", "tokens/0")
    assert "layer and pool" in knn.make(layer=1).advice and knn.make().advice == ""


def test_names_of_outputs_and_metrics():
    assert layer_output(None) == "features" and layer_output(None, "mean") == "features/-1/mean"
    assert layer_output(2) == "features/2" and layer_output(-2, "cls") == "features/-2/cls"
    text = "knn(k=(1, 3))|knn(k=(1, 3), layer=0)|knn(k=3, layer=-2, pool=mean)|knn(pool=mean)"
    metrics = [[*one.metrics] for one in make_evaluators(text)]
    assert metrics[1:] == [
        ["knn_1_layer_0", "knn_3_layer_0"],
        ["knn_layer_-2_mean"],
        ["knn_mean"],
    ]
    assert [*logistic.make(layer=0).metrics] == ["logistic_layer_0"]
    assert [*spectrum.make(layer=-1).metrics] == ["rankme_layer_-1", "alpha_layer_-1"]
    with pytest.raises(UserError, match="knn is there twice"):
        make_evaluators("knn(layer=0)|knn(k=3, layer=0)")


def test_evaluators_read_their_layer():
    """Of two layers, one whose features are noise."""

    def predict(batch):
        rows = np.asarray(batch["image"])
        noise = np.random.default_rng(0).normal(size=rows.shape)
        return {"features/0": noise, "features/1": rows} | {k: batch[k] for k in ("label", "valid")}

    data = Splits(train=clusters(200), test=clusters(60, seed=1))
    run = lambda module, layer, **options: module.make(layer=layer, **options)(predict, data)
    for module, name in ((knn, "knn"), (logistic, "logistic")):
        good, bad = (run(module, n)[f"{name}_layer_{n}"] for n in (1, 0))
        assert good > bad + 0.2
    rank = run(spectrum, 1, first=1, last=9)["rankme_layer_1"]
    assert rank == pytest.approx(spectrum.rankme(data.splits["test"][0].astype(np.float64)))


def test_a_linear_probe_of_a_layer():
    ours, params = method()
    probe = linear_probe.make(encoder=ENCODER, classes=3, layer=-2)
    assert probe.layer == 1
    head = {"head_0": {"kernel": np.ones((16, 3), np.float32), "bias": np.zeros(3, np.float32)}}
    state = {"encoder": params["encoder"], **head}
    extra = {"mean": np.zeros(16, np.float32), "var": np.ones(16, np.float32)}
    predict = jax.jit(functools.partial(probe.predict, outputs=("features",)))
    found = predict(state, extra, {"image": IMAGES})["features"]
    expected = truncated(2)[:, :2].mean(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
