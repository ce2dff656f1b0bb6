"""A run from its workdir, as the tools use it that look at what was trained."""

from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from mae_jax import weights
from mae_jax.checks import check_channels
from mae_jax.config import AUTO
from mae_jax.methods import make_method
from mae_jax.run import Run, build
from mae_jax.spec import parse
from mae_jax.types import TrainState, UserError, image_shape
from mae_jax.workdir import is_folder_of_weights, read_config


def load_run(
    workdir: Path,
    *,
    images: str | None = None,
    train: str | None = None,
    test: str | None = None,
    on_error: str | None = None,
) -> tuple[Run, TrainState]:
    """A run from its workdir, and its newest state, on the devices of this machine. Nothing is
    changed in the workdir, where the run may still be training.

    Args:
        workdir: of a run that has written a checkpoint, or a folder of imported weights.
        images: a folder of images, or the spec string of a source, to use instead of the run's own
            data.
        train, test: the same, to use instead of the run's training or test set only.
        on_error: what to do about images that cannot be read, 'raise' or 'skip', if not what the
            run does.

    Raises:
        UserError: not a workdir, or nothing to load from it.
    """
    config = read_config(workdir)
    if "fingerprints" in config:  # what was written by hand may have none
        del config.fingerprints
    # Neither the mesh nor the batch of training need to fit this machine.
    config.update(mesh=dict(data=-1, fsdp=1), accumulate=1)
    config.init_from = ConfigDict(dict(path=""))
    config.data.batch_size = 64 * jax.device_count()
    config.compiler = dict(tpu="", gpu="", cpu="")  # this compiler may be another version
    # Nor do the steps and learning rates of other images in other batches need to make sense.
    config.profile, config.schedule.min_lr = "", 0.0
    config.method.args.update(weights.portable_args(config.method.args))
    like = lambda folder: _source_like(config.data.train, folder, weights.image_of(workdir))
    if images is not None:
        inputs = make_method(**config.method).inputs
        fields = ("label", *(field for field in config.data.fields if field in inputs))
        config.data.update(train=like(images), test="", fields=fields, subset="", held_out=0.0)
        config.evals.update(run="", figures=AUTO)
    if train is not None:
        config.data.update(train=like(train), subset="", held_out=0.0)
    if test is not None:
        config.data.test = like(test)
    if is_folder_of_weights(workdir) and images is None:
        if test is None:
            raise UserError(f"{workdir} holds weights without images: give --images FOLDER")
        # Without --train, evaluators that learn are refused before they see this.
        config.data.update(train=config.data.train or config.data.test, fields=("label",))
    if on_error is not None:
        config.data.on_error = on_error
    run, image = build(config), weights.image_of(workdir)
    check_channels(str(workdir), image, image_shape(run.data.example("eval")))
    if is_folder_of_weights(workdir):
        return run, weights.read_state(workdir, run.abstract_state)
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir} has no checkpoint yet")
    with run.open_checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state = run.restore(checkpoints, workdir)
    if state is None:
        raise UserError(f"{workdir} has no checkpoint yet")
    return run, state


def _source_like(source: str, images: str, shape: Sequence[int] | None) -> str:
    """The spec of a folder, read like the source that a run was trained on, with the channels of
    its images [*space, C] if these are known; what is a spec already stays as it is.

    Raises:
        UserError: folders have no such images.
    """
    if "(" in images and not Path(images).exists():
        return images
    try:
        name, _, options = parse(source or "folder")[0]
    except UserError:  # a folder that was named by its path alone, and need not be here any more
        name, options = "folder", {}
    if name not in ("tiff", "dicom", "nifti"):
        name = "folder"
        if shape and len(shape) != 3:
            raise UserError(
                f"{images}: the run's images are {list(shape)}, and folders are of 2-D images: "
                f"give a source, e.g. \"array_file('scans.npy', rank={len(shape) - 1})\""
            )
        known = {"channels": shape[-1]} if shape else {}
        same = ("channels", "window", "background", "max_pixels")
        options = known | {key: options[key] for key in same if key in options}
    options.pop("path", None)
    return f"{name}({', '.join([repr(images), *(f'{k}={v!r}' for k, v in options.items())])})"
