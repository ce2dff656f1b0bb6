"""A masked autoencoder on clips; the argument is the folder of videos.

    mae-jax train --config clips:videos --workdir runs/videos

Videos are folders of frames, animated images, .npy, or files that PyAV decodes. Clips are 16 frames
at a stride of 2 to 4, cut to 64 x 64 pixels; patches are 2 x 8 x 8, 512 of them, of which 90% are
masked (Tong et al. 2022, arXiv 2203.12602; Feichtenhofer et al. 2022, arXiv 2205.09113).
"""

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config(folder: str = "videos") -> ConfigDict:
    """The experiment for a folder."""
    config = common.base()
    config.data.update(
        train=f"frames({folder!r}, frames=0)",
        batch_size=64,
        repeats=4,  # clips of a video that was decoded once
        train_transform="random_clip(16, stride=(2, 4))|random_crop((16, 64, 64))|flip",
        eval_transform="center_clip(16, stride=4)|center_crop((16, 64, 64))",
    )
    config.method.args = common.method_args(
        "mae",
        encoder="vit(width=192, depth=6, heads=3, patch=(2, 8, 8))",
        decoder_width=96,
        decoder_depth=2,
        decoder_heads=3,
        mask_ratio=0.9,
        pool="mean",
    )
    config.schedule.update(base_lr=1e-3, epochs=400.0, warmup_epochs=20.0)
    config.checkpoint.every = 200
    config.log.every = 10
    config.evals.figures = "curves|film"
    return config
