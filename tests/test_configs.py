"""Every experiment for ImageNet is one that can be built: nothing of it is computed here."""

import jax
import jax.numpy as jnp
import pytest

from mae_jax.config import load_config, load_configs
from mae_jax.configs import compare_methods, scenes
from mae_jax.engine.optim import make_optimizer, make_plan
from mae_jax.models import convnext, vit
from mae_jax.run import check
from mae_jax.settings import make_evaluators, make_method
from mae_jax.spec import call_section
from mae_jax.types import UserError
from tests.helpers.jobs import ROOT

EXPERIMENTS = {
    "bigan:B/8": 64,
    "clip:B/16": 224,
    "clip:B/16,siglip": 224,
    "colorization:T": 224,
    "contrastive_tuning:B/16": 224,
    "context_encoder:T": 224,
    "fcmae:T": 224,
    "finetune:B/16": 224,
    "finetune:L/16,repository": 224,
    "finetune:S/16": 224,
    "finetune:T": 224,
    "hpm:B/16": 224,
    "jigsaw:T": 255,
    "linear_probe:B/16": 224,
    "linear_probe:T": 224,
    "m3ae:L/16": 256,
    "mae:L/16": 224,
    "mae:B/16,cross": 224,
    "mae:L/16,mff,green": 224,
    "mae:S/16,repeats": 224,
    "mae:H/16,pixio": 256,
    "mocov3:S/16": 224,
    "mocov3:B/16": 224,
    "relative_position:T": 255,
    "rotation:T": 224,
    "segment:ade20k:B/16": 512,
    "segment:ade20k:L/16": 512,
    "segment:cityscapes:T": 512,
    "segment:voc:B/16,linear": 512,
    "simclr:T": 224,
    "simclr:B/16": 224,
    "supervised:B/16": 224,
    "vae:B/8": 64,
    "vqvae": 224,
}
"""Config and argument -> side of its training images in pixels."""
REPEATED = (
    *(
        "clip:B/16,siglip",
        "finetune:L/16,repository",
        "finetune:S/16",
        "linear_probe:T",
        "mae:S/16,repeats",
    ),
    *("mocov3:S/16", "segment:ade20k:L/16", "segment:voc:B/16,linear", "simclr:T"),
)
"""Those that are like another one, and are left to thorough tests."""


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    """Two blocks of each encoder, or one a stage, say what the others would, which are equal."""
    for size, shape in vit.SIZES.items():
        monkeypatch.setitem(vit.SIZES, size, shape | dict(depth=2))
    for size, shape in convnext.SIZES.items():
        monkeypatch.setitem(convnext.SIZES, size, shape | dict(depths=(1,) * len(shape["depths"])))


@pytest.mark.parametrize(
    ("name", "side"),
    [
        pytest.param(name, side, marks=pytest.mark.thorough if name in REPEATED else ())
        for name, side in EXPERIMENTS.items()
    ],
)
def test_an_experiment_fits_together(name, side):
    file, _, arg = name.partition(":")
    config = load_config(f"configs/{file}.py:{arg}")
    if "decoder_depth" in config.method.args:  # as for encoders
        config.method.args.decoder_depth = 2
    assert f"({side}" in config.data.train_transform
    plan = call_section(
        make_plan,
        config.schedule,
        "schedule",
        batch_size=config.data.batch_size,
        num_examples=1_281_167,
    )
    method = call_section(make_method, config.method, "method", total_steps=plan.steps)
    batch = {
        name: jax.ShapeDtypeStruct((2, *row.shape[1:]), row.dtype)
        for name, row in method.example((side, side, 3)).items()
    }
    assert method.views == config.data.views
    params, extra = jax.eval_shape(method.init, jax.random.key(0), batch)
    output = jax.eval_shape(method.loss, params, extra, batch, jax.random.key(0), 0)
    assert output.loss.shape == () and output.loss.dtype == jnp.float32
    tx = call_section(
        make_optimizer, config.optimizer, "optimizer", schedule=plan.schedule, rules=method.rules()
    )
    jax.eval_shape(tx.init, params)
    assert make_evaluators(config.evals.run)


SWEEPS = [
    *(path.name for path in (ROOT / "configs").glob("*.py") if "get_configs" in path.read_text()),
    *("ablations.py:scenes,seeds", "ablations.py:L/16", "compare_methods.py:convnext"),
]


@pytest.mark.parametrize("name", SWEEPS)
def test_the_experiments_of_a_sweep_can_be_built(name, monkeypatch):
    monkeypatch.undo()  # some tune more blocks than are left
    configs = load_configs(f"configs/{name}")
    assert configs
    for config in configs.values():
        check(config)


@pytest.mark.parametrize("arg", ["vit", "convnext"])
def test_methods_are_compared_at_equal_images_and_at_equal_compute(arg):
    costs = compare_methods.GFLOPS[arg]
    axes = {"equal images": {}, "equal compute": {}}
    for name, config in compare_methods.get_configs(arg).items():
        row, axis, _ = name.split("/")
        if axis in axes:
            axes[axis][row] = config.schedule.epochs
    assert axes["equal images"] == dict.fromkeys([*compare_methods.METHODS, "supervised"], 4.0)
    spent = {row: epochs * costs[row] for row, epochs in axes["equal compute"].items()}
    assert spent == pytest.approx(dict.fromkeys(compare_methods.METHODS, 4 * costs["supervised"]))


@pytest.mark.thorough
@pytest.mark.parametrize("arg", ["vit", "convnext"])
def test_what_is_compared_differs_in_the_method_alone(arg):
    configs = load_configs(f"configs/compare_methods.py:{arg}")
    frozen = {n.split("/")[0]: c for n, c in configs.items() if n.endswith("equal images/0")}
    assert len(frozen) == 11 and len(configs) == 2 * (4 * 10 + 2)
    budgets = {(c.data.batch_size, c.schedule.epochs, c.evals.run) for c in frozen.values()}
    assert len(budgets) == 1
    encoders = {c.method.args.encoder for name, c in frozen.items() if name != "fcmae"}
    assert len(encoders) == 1
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8)
    batch = dict(image=image, image2=image, label=jax.ShapeDtypeStruct((2,), jnp.int32))
    for config in frozen.values():
        method = call_section(make_method, config.method, "method", total_steps=10)
        params, extra = jax.eval_shape(method.init, jax.random.key(0), batch)
        jax.eval_shape(method.loss, params, extra, batch, jax.random.key(0), 0)


def test_contrastive_tuning_of_scenes_has_a_layer_curve():
    """Of the encoder that it starts from."""
    config, base = map(load_config, ("configs/contrastive_tuning.py:scenes", "configs/scenes.py"))
    assert config.method.args.encoder == base.method.args.encoder
    metrics = [name for one in make_evaluators(config.evals.run) for name in one.metrics]
    assert {"knn", "knn_layer_0", "knn_layer_2"} <= {*metrics}
    method = call_section(make_method, config.method, "method", total_steps=100)
    assert method.views == config.data.views == 2 and method.first_step == 50


def test_variants_of_scenes():
    """Each changes what it names; the learning rate goes with the share that is predicted."""
    plain = load_config("configs/scenes.py")
    for word, changes in scenes.VARIANTS.items():
        config = load_config(f"configs/scenes.py:several,{word}")
        assert config.data.train.endswith("objects=(1, 6))")
        assert {name: config.method.args[name] for name in changes} == changes
        share = changes.get("predict_share", 1)
        assert config.schedule.base_lr == pytest.approx(plain.schedule.base_lr * share)
        call_section(make_method, config.method, "method", total_steps=10)
    with pytest.raises(UserError, match="write words of several, unit, green, attention, cross, f"):
        load_config("configs/scenes.py:gren")


def test_a_table_of_ones_own():
    config = load_config("configs/table.py:my.csv,S/16,balanced", ["method.args.classes=3"])
    assert config.data.train == "table('my.csv', split=(split, train))"
    assert config.data.sampling == "balanced" and "vit(S" in config.method.args.encoder
    check(config)
    with pytest.raises(UserError, match="config.method.args.classes is required"):
        load_config("configs/table.py:my.csv")
    with pytest.raises(UserError, match="configs/table.py:balance: write SIZE/PATCH for a ViT"):
        load_config("configs/table.py:my.csv,balance", ["method.args.classes=3"])
