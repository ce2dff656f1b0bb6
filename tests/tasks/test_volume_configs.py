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


def test_the_comparison_is_the_same_with_and_without_pretraining(root):
    configs = load_configs(str(root / "configs" / "volume_transfer.py"))
    assert len(configs) == 8
    for name, config in configs.items():
        row, column, seed = name.split("/")
        check(config)
        assert config.seed == int(seed) and f"seed={seed}" in config.data.subset
        assert config.init_from.path == ("runs/volumes" if row == "mae" else "")
        other = configs[f"scratch/{column}/{seed}"]
        for section in ("data", "schedule", "optimizer", "evals"):
            assert config[section] == other[section]
    encoder = load_config(str(root / "configs" / "volumes.py")).method.args.encoder
    for column, field in {"segmentation": "segmentation", "classes": "label"}.items():
        config = configs[f"mae/{column}/0"]
        assert config.method.args.encoder == encoder
        assert field in trace(config, (32, 32, 32, 1)).labels()


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
