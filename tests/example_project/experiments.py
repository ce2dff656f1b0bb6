"""Small experiments of the example project: get_config(name)."""

from ml_collections import ConfigDict

from mae_jax.configs import common

VIT = "vit(width=16, depth=1, heads=2, patch=4)"
MAE = dict(encoder=VIT, decoder_width=8, decoder_depth=1, decoder_heads=2, mean=(0.5,), std=(0.25,))


def _waves(*space: int) -> dict:
    source = f"example.waves(space={space}, seed={{}})"
    data = dict(train=source.format(0), test=source.format(1))
    return dict(name="mae", args=common.method_args("mae", **MAE), data=data, run="knn(k=3)")


def _segment() -> dict:
    scenes = "fashion_scenes(split={}, size=16, num_examples={})"
    return dict(
        name="example.segment",
        args=dict(encoder=VIT, classes=11, mean=(0.5,), std=(0.25,)),
        data=dict(
            train=scenes.format("train", 32),
            test=scenes.format("test", 12),
            train_transform="random_resized_crop(16)|flip",
            eval_transform="resize(16)",
            fields=("label", "segmentation"),
        ),
        run="example.miou|knn(k=3)",
    )


def _words() -> dict:
    data = dict(
        train="example.texts(seed=0)", test="example.texts(seed=1)", fields=("text", "label")
    )
    return dict(name="example.words", args=dict(width=16), data=data, run="knn(k=3)|logistic")


EXPERIMENTS = {
    "signal": lambda: _waves(32),
    "image": lambda: _waves(8, 12),
    "volume": lambda: _waves(8, 4, 8),
    "segment": _segment,
    "words": _words,
}


def get_config(name: str) -> ConfigDict:
    """One of EXPERIMENTS, a run of 8 steps."""
    values, config = EXPERIMENTS[name](), common.base()
    config.method = ConfigDict(dict(name=values["name"], args=ConfigDict(values["args"])))
    config.data.update(dict(batch_size=8, workers=1) | values["data"])
    config.schedule.update(base_lr=0.1, epochs=2.0, warmup_epochs=0.0)
    config.checkpoint.every = 4
    config.log.every = 1
    config.evals.run = values["run"]
    return config
