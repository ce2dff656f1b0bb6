"""Fine-tuning on clips with classes; the argument is the folder of videos.

    mae-jax train --config clips:videos --workdir runs/videos
    mae-jax train --config classify_clips:actions,12 --config.init_from.path=runs/videos

actions/train and actions/test hold a sub-folder for each of 12 classes, with videos as in
configs/clips.py. Clips are 16 frames at a stride of 4, cut to 64 x 64 pixels. `classify` evaluates
the middle of each video; `views` averages five clips and three crops of each, as VideoMAE does on
Kinetics (Tong et al. 2022, arXiv 2203.12602).
"""

from ml_collections import ConfigDict

from mae_jax.configs import clips, common
from mae_jax.types import UserError


def get_config(arg: str = "actions,12") -> ConfigDict:
    """The experiment for 'FOLDER,CLASSES'."""
    folder, _, classes = arg.partition(",")
    if not classes.isdigit():
        raise UserError(
            f"configs/classify_clips.py:{arg}: write a folder and the number of classes, e.g. "
            "classify_clips:actions,12"
        )
    config = clips.get_config(folder)
    encoder = config.method.args.encoder
    config.method.name = "tasks.finetune"
    config.method.args = common.method_args("tasks.finetune", encoder=encoder, classes=int(classes))
    config.data.update(
        train=f"frames('{folder}/train', frames=0)",
        test=f"frames('{folder}/test', frames=0)",
        train_transform="random_clip(16, stride=4)|random_crop((16, 64, 64))|flip",
        batch_size=32,
        repeats=2,
    )
    config.optimizer.b2 = 0.999
    config.schedule.update(base_lr=1e-3, epochs=100.0, warmup_epochs=5.0)
    config.evals.update(
        run="classify|views(size=(16, 64, 64), stride=4, clips=5, crops=3)", figures="auto"
    )
    return config
