"""Loads a trained run from its workdir, for evaluation, features, reconstructions and export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from mae_jax import weights
from mae_jax.checks import check_channels
from mae_jax.checks import check_vocabulary as check_vocabulary_size
from mae_jax.config import AUTO
from mae_jax.data import vocabulary
from mae_jax.data.fields import OPTIONAL
from mae_jax.data.identity import VOCABULARY, check_vocabulary
from mae_jax.data.other_images import source_like, spacing_notes
from mae_jax.methods import make_method
from mae_jax.run import Run, build
from mae_jax.types import TrainState, UserError, image_shape
from mae_jax.workdir import check_class_names, is_folder_of_weights, read_config


def load_run(
    workdir: Path,
    *,
    images: str | None = None,
    train: str | None = None,
    test: str | None = None,
    on_error: str | None = None,
    evals: str | None = None,
) -> tuple[Run, TrainState]:
    """Loads a run and its newest state on the devices of this machine. The workdir is only read, so
    the run may still be training.

    Args:
        workdir: workdir of a run with a checkpoint, or a folder of imported weights.
        images, train, test, on_error, evals: see `open_run`.

    Raises:
        UserError: see `open_run`; there is no checkpoint, or the training data have other classes
            now.
    """
    options = dict(images=images, train=train, test=test, on_error=on_error, evals=evals)
    run = open_run(workdir, **options)
    if is_folder_of_weights(workdir):
        return run, weights.read_state(workdir, run.abstract_state)
    if images is None and train is None:
        check_class_names(workdir, run.class_names)
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir} has no checkpoint yet")
    with run.open_checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state = run.restore(checkpoints, workdir)
    if state is None:
        raise UserError(f"{workdir} has no checkpoint yet")
    return run, state


def open_run(
    workdir: Path,
    *,
    images: str | None = None,
    train: str | None = None,
    test: str | None = None,
    on_error: str | None = None,
    evals: str | None = None,
) -> Run:
    """Builds a run, with its data and without its weights, for the devices of this machine.

    Args:
        workdir: workdir of a run, or a folder of imported weights.
        images: a folder of images or the spec of a source that replaces all data of the run.
        train, test: the same, to replace only the run's training or test set.
        on_error: 'raise' or 'skip' for unreadable images; None: as in the run's config.
        evals: spec of the evaluators; None: those of the run's config, or none if `images` are
            given.

    Raises:
        UserError: `workdir` is not a workdir, the images have other channels, or their texts
            another vocabulary.
    """
    config = read_config(workdir)
    recorded = _recorded(config, workdir)
    # The mesh and the batch size of training may not fit this machine.
    config.update(mesh=dict(data=-1, fsdp=1), accumulate=1)
    config.init_from = ConfigDict(dict(path=""))
    config.data.batch_size = 64 * jax.device_count()
    config.compiler = dict(tpu="", gpu="", cpu="")  # this XLA may not accept the run's options
    # With other images and batch sizes the schedule and the profiled steps may be invalid.
    config.profile, config.schedule.min_lr = "", 0.0
    config.method.args.update(weights.portable_args(config.method.args))
    if is_folder_of_weights(workdir):  # without data of its own, and it may name no extension
        config.data.update(train="", test="")
    trained = config.data.train
    source = lambda folder: source_like(trained, folder, weights.image_of(workdir))
    if images is not None:
        inputs = make_method(**config.method).inputs
        fields = (*OPTIONAL, *(field for field in config.data.fields if field in inputs))
        config.data.update(train=source(images), test="", fields=fields, subset="", held_out=0.0)
        config.evals.update(run="", figures=AUTO)
    if train is not None:
        config.data.update(train=source(train), subset="", held_out=0.0)
    if test is not None:
        config.data.test = source(test)
    if is_folder_of_weights(workdir) and images is None:
        if test is None:
            raise UserError(f"{workdir} holds weights without images: give --images FOLDER")
        config.data.fields = OPTIONAL
    if images is None:
        given = dict(train=train, test=test)
        _complete_texts(config, workdir, [split for split in given if given[split] is not None])
        # Without --train, `cli.weights.check` refuses evaluators that learn, so none reads this.
        config.data.train = config.data.train or config.data.test
    if on_error is not None:
        config.data.on_error = on_error
    if evals is not None:
        config.evals.run = evals
    run, image = build(config), weights.image_of(workdir)
    if "text" in config.data.fields:
        for split, data in run.data.sources.items():
            check_vocabulary(f"config.data.{split}", recorded, data)
        check_vocabulary_size(run.method, run.data, f"read them with the tokenizer of {workdir}")
    check_channels(str(workdir), image, image_shape(run.data.example("eval")))
    _note_spacing(run, trained, train=images or train, test=test)
    return run


def _note_spacing(run: Run, trained: str, **given: str | None) -> None:
    """Adds notes to the splits that are given, if their volumes are not spaced as in training.

    Args:
        trained: spec of the run's own training set.
    """
    for split in (split for split, images in given.items() if images is not None):
        source = run.data.source(split)
        source.notes = (*source.notes, *spacing_notes(trained, source))


def _recorded(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Removes the fingerprints of the data from the config of a run, and returns them; of imported
    weights that of their tokenizer.
    """
    recorded = {}
    if "fingerprints" in config:  # a hand-written config may have none
        recorded = config.fingerprints.to_dict()
        del config.fingerprints
    if is_folder_of_weights(workdir) and (workdir / vocabulary.FILE).is_file():
        recorded[VOCABULARY] = vocabulary.load(workdir).fingerprint
    return recorded


def _complete_texts(config: ConfigDict, workdir: Path, splits: Sequence[str]) -> None:
    """Adds empty texts, and the tokenizer of the run, to the images of some splits, if the method
    reads texts. `zero_shot` classifies such images, and other evaluators need only the images.

    Args:
        splits: those whose images replace the run's own.
    """
    if not splits:
        return
    example = make_method(**config.method).example(weights.image_of(workdir) or (1, 1, 1))
    if "text" not in example:
        return
    own, length = workdir / vocabulary.FILE, example["text"].shape[-1]
    tokenizer = str(own) if own.is_file() else ""
    for split in splits:
        config.data[split] = f"uncaptioned({config.data[split]!r}, {tokenizer=}, {length=})"
    fields = (*OPTIONAL, *config.data.fields, "text", "text_valid")  # training needs no labels
    config.data.fields = tuple(dict.fromkeys(fields))
