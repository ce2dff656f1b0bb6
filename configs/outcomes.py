"""Fine-tuning for several classes per image, for numbers and for ordered classes, on
`fashion_scenes`; the argument is 'multilabel', 'regression' or 'ordered'.

    mae-jax train --config scenes
    mae-jax train --config outcomes:multilabel --config.init_from.path=runs/scenes
    mae-jax train --config outcomes:regression --config.init_from.path=runs/scenes
    mae-jax train --config outcomes:ordered --config.init_from.path=runs/scenes
    mae-jax train --config outcomes:regression,probe --config.init_from.path=runs/scenes
    mae-jax train --config outcomes:regression,probe,heads --config.init_from.path=runs/scenes

'multilabel' learns which garments a scene of one to six shows, at 64 pixels. 'regression' learns
the size of the one garment in a scene, from 0.5 to 0.9 of the side, and 'ordered' five classes of
that size, each with the same weight. All learn from 3,000 labeled scenes. After a comma, 'probe'
trains a linear probe of the frozen encoder, 'heads' one with five learning rates of which a tenth
of the training scenes selects the best, and 'absolute' minimizes the absolute error of numbers.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common, scenes
from mae_jax.types import UserError

KINDS = ("multilabel", "regression", "ordered")
WORDS = ("probe", "absolute", "heads")
LR_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
INTERVALS = "bootstrap=1000"
FROZEN = {
    "multilabel": "|knn(field=labels)|logistic(field=labels)",
    "regression": "|knn(field=value)|ridge",
    "ordered": "|knn|logistic",
}
"""Kind -> evaluators of the frozen features, beside a linear probe."""


def get_config(arg: str = "multilabel") -> ConfigDict:
    """The experiment for 'KIND' or 'KIND,WORD'."""
    kind, *words = arg.split(",")
    needed = (("absolute", (kind,), "regression"), ("heads", words, "probe"))
    lacks = any(word in words and other not in given for word, given, other in needed)
    if kind not in KINDS or set(words) - {*WORDS} or lacks:
        raise UserError(
            f"configs/outcomes.py:{arg}: write {', '.join(KINDS)}, and after a comma probe, or "
            "probe,heads, or of regression absolute"
        )
    config = scenes.get_config("several" if kind == "multilabel" else "")
    objective, classes = {
        "multilabel": ("multilabel", 10),
        "regression": (f"regression(error={'absolute' if 'absolute' in words else 'squared'})", 1),
        "ordered": ("ordered(class_weights=balanced)", 5),
    }[kind]
    args = dict(encoder=scenes.ENCODER, objective=objective, classes=classes)
    if "probe" in words:
        config.method.name = "tasks.linear_probe"
        several = dict(lr_factors=LR_FACTORS) if "heads" in words else {}
        config.method.args = common.method_args(
            "tasks.linear_probe", pool="mean", **args, **several
        )
    else:
        config.method.name = "tasks.finetune"
        still = dict(mixup=0.0, cutmix=0.0, smoothing=0.0, dtype="float32")
        config.method.args = common.method_args("tasks.finetune", **args, **still)
    config.data.update(batch_size=64, subset="share(0.25)")
    config.data.held_out = 0.1 if "heads" in words else 0.0
    config.optimizer.b2 = 0.999
    config.schedule.update(base_lr=2e-3, epochs=20.0, warmup_epochs=2.0, min_lr=1e-6)
    config.checkpoint.every = 200
    config.log.every = 10
    config.evals.update(every=0, run=evaluators(kind, words), figures="curves")
    if kind == "multilabel":
        config.data.update(
            fields=("labels",), train_transform="random_resized_crop(64, scale=(0.8, 1))|flip"
        )
        config.schedule.update(epochs=6.0, warmup_epochs=0.6)
        return config
    # Crops of another scale would change the size.
    config.data.update(fields=("value",), train_transform="flip")
    if kind == "ordered":
        config.data.update(
            train="fashion_scenes(split=train, size=32, label=size)",
            test="fashion_scenes(split=test, size=32, label=size)",
            fields=("label",),
        )
        config.evals.figures = "curves" if "heads" in words else "curves|confusion|calibration"
    return config


def evaluators(kind: str, words: list[str]) -> str:
    """The spec of the evaluators."""
    if "heads" in words:
        return f"probe{FROZEN[kind]}"
    spec = f"{kind}({INTERVALS})"
    spec += f"|classes({INTERVALS})|classify" if kind == "ordered" else ""
    return spec + (FROZEN[kind] if "probe" in words else "")
