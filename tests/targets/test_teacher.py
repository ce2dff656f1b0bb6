"""Features of a teacher as targets: their definition, and how a teacher is loaded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mae_jax import plan, weights
from mae_jax.config import load_config
from mae_jax.methods import mae, make_method
from mae_jax.ops.pixels import normalize
from mae_jax.run import build
from mae_jax.spec import build as build_spec
from mae_jax.targets import TargetContext
from mae_jax.types import UserError
from mae_jax.weights.init_from import InitFrom
from mae_jax.workdir import read_config
from tests.helpers.runs import ROOT
from tests.weights import models

STUDENT = dict(
    encoder="vit(width=16, depth=1, heads=2, patch=4)",
    **dict(decoder_width=8, decoder_depth=1, decoder_heads=2, mean=(0.4,), std=(0.3,)),
)
VIT = "vit(width=8, depth=3, heads=1, patch=4)"
CONV = "convnext(widths=(8, 16), depths=(1, 1), stem=2, kernel=3)"


def standardized(x):
    """Rows of mean 0 and variance 1, in float64."""
    x = np.asarray(x, np.float64)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


OPTIONS = {
    "": ((0.4,), (0.3,)),
    ", blocks=2": ((0.4,), (0.3,)),
    ", normalize=False, mean=(0.5,), std=(0.2,)": ((0.5,), (0.2,)),
}
"""Options of the teacher -> mean and std of its inputs, those of the method by default."""


@pytest.mark.parametrize("encoder", [VIT, pytest.param(CONV, marks=pytest.mark.thorough)])
def test_targets_are_the_tokens_of_the_teacher(encoder):
    """Of whole images, at the masked patches."""
    # Stages of a convolutional encoder have maps of different sizes.
    options = {
        text: both for text, both in OPTIONS.items() if encoder == VIT or "blocks" not in text
    }
    targets = {text: build_spec(f"teacher({encoder!r}{text})", "targets") for text in options}
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3)).astype(np.uint8)
    masked = np.array([[5, 0, 3], [2, 1, 4]])[:, :, None]
    context = TargetContext(
        patch=(4, 4),
        take=lambda x: jnp.take_along_axis(x, masked, axis=1),
        normalize=lambda x: normalize(x, (0.4,), (0.3,)),
    )
    teacher = targets[""].encoder

    @jax.jit
    def everything():
        constants = targets[""].initial(images, (4, 4))
        variables = {"params": constants["encoder"]}
        apply = lambda x, **more: teacher.apply(variables, x, **more)
        inputs = {statistics: normalize(images, *statistics) for statistics in options.values()}
        return (
            {text: target.make(constants, images, context) for text, target in targets.items()},
            {str(key): apply(x)[:, teacher.prefix :] for key, x in inputs.items()},
            [apply(x, method="maps") for x in inputs.values()][0],
        )

    found, tokens, maps = everything()
    for text, statistics in options.items():
        expected = np.asarray(tokens[str(statistics)])
        if "blocks" in text:
            expected = np.mean([np.asarray(x).reshape(2, 6, 8) for x in maps[-2:]], axis=0)
        expected = expected if "normalize" in text else standardized(expected)
        expected = np.take_along_axis(expected, masked, axis=1)
        np.testing.assert_allclose(found[text], expected, atol=2e-4)
        assert found[text].shape == (2, 3, teacher.width) and found[text].dtype == np.float32


@pytest.fixture
def config(tmp_path):
    """An experiment whose student differs from its teacher, which is in a folder of weights."""
    model = models.mae(depth=1, image=(16, 16, 1), patch=8)
    weights.write_run(model, tmp_path / "teacher")
    made = load_config(str(ROOT / "tests" / "example_project" / "experiments.py") + ":image")
    made.data.update(train="example.waves(space=(16, 16))", test="")
    target = "teacher('vit(Ti, patch=8, depth=1)')"
    args = STUDENT | dict(encoder="vit(width=16, depth=2, heads=2, patch=8)", target=target)
    made.method = ConfigDict(dict(name="mae", args=args))
    made.evals.run = ""
    made.init_from.teacher = dict(path=str(tmp_path / "teacher"), into="extra/target/encoder")
    return made, model


@pytest.mark.thorough
def test_a_teacher_of_another_architecture_is_loaded(config, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests" / "example_project")
    config, model = config
    run = build(config)
    state = run.loaded_state()
    kernel = state.extra["target"]["encoder"]["block_0"]["mlp"]["fc1"]["kernel"]
    np.testing.assert_array_equal(kernel, model.params["encoder/block_0/mlp/fc1/kernel"])
    assert state.params["encoder"]["embed"]["kernel"].shape == (64, 16)
    (line,) = (line for line in plan.lines(run) if line.startswith("extra/target/encoder"))
    assert line.endswith("M values in each checkpoint")
    del config.init_from.teacher
    (line,) = (line for line in plan.lines(build(config)) if "extra/target/encoder" in line)
    assert "they stay random: to load a teacher, set config.init_from.teacher" in line
    # With other heads its arrays would fit.
    args = dict(config.method.args) | dict(target="teacher('vit(Ti, patch=8, depth=1, heads=2)')")
    section = ConfigDict(dict(name="mae", args=args))
    rows = run.init_from.rows
    other = InitFrom(
        rows=rows, args=args, method=make_method(**section), image=(16, 16, 1), inflate="mean"
    )
    with pytest.raises(UserError, match=r"another architecture: .* config.method.args.target=teac"):
        other.load(state)


def test_imported_weights_name_no_modules_inside_a_target(tmp_path):
    weights.write_run(models.mae(depth=1, image=(16, 16, 1), patch=8), tmp_path / "weights")
    path = tmp_path / "weights" / "config.json"
    content = json.loads(path.read_text())
    content["method"]["args"]["target"] = "teacher('evil.encoder(width=4)')"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"config.method.args.target names the module evil.encoder"):
        read_config(tmp_path / "weights")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (f"teacher({VIT!r}, blocks=4)", "has 3"),
        (f"teacher({VIT!r}, mean=(0.5,))", "give both, or neither"),
        (f"teacher({CONV!r}, blocks=2)", "outputs of different sizes: set blocks=0"),
        (f"teacher({VIT!r}, dtype=float16)", "dtype 'float16' is unknown"),
        (
            "teacher('vit(width=8, depth=1, heads=1, patch=8)')",
            "6 tokens for an image of 24 patches: give it the patch",
        ),
    ],
)
def test_mistakes_are_named(target, message):
    images = jax.ShapeDtypeStruct((1, 16, 24, 3), np.uint8)
    with pytest.raises(UserError, match=message):
        method = mae.make(**STUDENT, target=target)
        params, extra = jax.eval_shape(method.init, jax.random.key(0), {"image": images})
        loss = lambda *args: method.loss(*args, jax.random.key(0), 0).loss
        jax.eval_shape(loss, params, extra, {"image": images})
