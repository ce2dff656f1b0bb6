"""Upgrades stored configs of earlier versions to the current names, so that their runs can resume.

No other module knows the old names. Names of parameters in checkpoints never change.
"""

from ml_collections import ConfigDict

from mae_jax.config import AUTO

ARGUMENTS = {"score": "loss_on", "tuned": "trainable"}
"""Old name of a method's argument -> new name."""
VALUES = {"loss_on": {"hidden": "masked"}}
"""Argument -> old value -> new value."""
LEARNS_CLASSES = ("tasks.finetune", "tasks.linear_probe")
"""Tasks that had no objective but classes."""
ADDED = {
    "mae": dict(
        decoder_positions="sincos",
        decoder_embed_bias=True,
        decoder_class_tokens=False,
        loss_mask="",
    )
}
"""Method -> arguments that were added, with the values that runs had before. Configs that list only
some arguments still do."""
ENCODERS = {"conv(": "convnext("}
"""Old prefix of an encoder's spec -> new prefix."""


def upgrade(config: ConfigDict) -> ConfigDict:
    """Replaces old names in a stored config, in place. Returns it."""
    if "identities" in config:
        config.fingerprints = config.identities
        del config.identities
    if "evals" in config and "figures" not in config.evals:
        config.evals.figures = AUTO
    if "evals" in config and "baselines" not in config.evals:
        config.evals.baselines = True
    if "schedule" in config and "decay" not in config.schedule:
        config.schedule.decay = "cosine"
    if "log" in config and "writers" not in config.log:
        config.log.writers = "tensorboard"
    for name, value in (("repeats", 1), ("sampling", "")):
        if "data" in config and name not in config.data:
            config.data[name] = value
    if "args" in config.method:
        _upgrade_method(config.method)
    return config


def _upgrade_method(method: ConfigDict) -> None:
    args = method.args
    if "normalize_target" in args:
        args["target"] = f"pixels(normalize={args['normalize_target']})"
        del args["normalize_target"]
    if method.name == "conv_mae":
        holes = args.get("masked") == "input"
        method.name = "context_encoder" if holes else "fcmae"
        for name in ("masked",) if holes else ("masked", "unit"):
            if name in args:
                del args[name]
    if method.name == "tasks.linear_probe" and "layer" not in args:
        args["layer"] = -1
    for name, value in ADDED.get(method.name, {}).items():
        if name not in args and "mask_ratio" in args:
            args[name] = value
    for old, new in ARGUMENTS.items():
        if old in args:
            args[new] = args[old]
            del args[old]
    if method.name in LEARNS_CLASSES and "objective" not in args:
        args["objective"] = "classes"
    for name, values in VALUES.items():
        if name in args:
            args[name] = values.get(args[name], args[name])
    for old, new in ENCODERS.items():
        if "encoder" in args and args["encoder"].startswith(old):
            args["encoder"] = new + args["encoder"].removeprefix(old)
