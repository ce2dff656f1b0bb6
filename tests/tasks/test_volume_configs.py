"""The experiments on volumes and clips after pre-training: they fit together, and nothing of them
is computed here.
"""

import jax
import pytest

from mae_jax.config import load_config, load_configs
from mae_jax.run import check
from mae_jax.settings import make_method
from mae_jax.types import UserError


def trace(config, shape):
    """Shapes of the loss for a batch of two."""
    method = make_method(**config.method)
    batch = {
        name: jax.ShapeDtypeStruct((2, *row.shape[1:]), row.dtype)
        for name, row in method.example(shape).items()
    }
    params, extra = jax.eval_shape(method.init, jax.random.key(0), batch)
    output = jax.eval_shape(method.loss, params, extra, batch, jax.random.key(0), 0)
    assert output.loss.shape == ()
    return method


@pytest.mark.parametrize(
    ("domain", "shape", "fields"),
    [
        ("volumes", (32, 32, 32, 1), {"segmentation": 4, "label": 4}),
        ("clips", (8, 32, 32, 3), {"label": 10}),
        ("multispectral", (32, 32, 8), {"segmentation": 5, "label": 5}),
    ],
)
def test_the_comparison_is_the_same_with_and_without_pretraining(root, domain, shape, fields):
    configs = load_configs(f"{root / 'configs' / 'domains.py'}:{domain}")
    assert len(configs) == 10
    found = {}
    for name, config in configs.items():
        row, column, seed = name.split("/")
        check(config)
        assert config.seed == int(seed)
        if column == "frozen":
            assert config.data.subset == "" and config.init_from.path == ""
            continue
        assert config.data.subset.endswith(f", seed={seed})")
        assert config.init_from.path == (f"mae/frozen/{seed}" if row == "mae" else "")
        other = configs[f"scratch/{column}/{seed}"]
        for section in ("data", "schedule", "optimizer", "evals"):
            assert config[section] == other[section]
        start = configs[f"mae/frozen/{seed}"].method.args
        for key in ("encoder", "mean", "std"):
            assert config.method.args[key] == start[key]
        if row == "mae" and seed == "0":
            found = trace(config, shape).labels() | found
    assert found == fields


@pytest.mark.parametrize(
    ("name", "shape", "fields"),
    [
        ("segment_volumes:organs,14", (64, 64, 64, 1), {"segmentation": 14}),
        ("classify_clips:actions,12", (16, 64, 64, 3), {"label": 12}),
    ],
)
def test_experiments_for_folders_fit_together(root, name, shape, fields):
    file, _, arg = name.partition(":")
    config = load_config(f"{root / 'configs' / file}.py:{arg}")
    check(config)
    assert trace(config, shape).labels() == fields
    with pytest.raises(UserError, match="write a folder and the number of classes"):
        load_config(f"{root / 'configs' / file}.py:organs")


def test_crops_may_have_sides_of_their_own(root):
    config = load_config(str(root / "configs" / "segment_volumes.py"))
    config.method.args.crop = (16, 32, 32)
    assert make_method(**config.method).crop == (16, 32, 32)


@pytest.mark.parametrize("words", ["large,centimeters", "centimeters,large"])
def test_words_apply_in_any_order(root, words):
    args = load_config(f"{root / 'configs' / 'volumes.py'}:scans,{words}").method.args
    assert args.encoder == "vit(B, patch=8, remat=dots, spacing=(1.0, 1.0, 1.0))"
