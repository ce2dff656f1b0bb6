"""Checkpoints of the train state: written in the background, verified when read. The only module
that imports Orbax.

Orbax does not verify array data: a flipped bit would restore a wrong value silently. So a digest of
every leaf is stored with the state and compared on restore. A checkpoint that fails is renamed, and
the one before it is used.
"""

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.experimental import multihost_utils

from mae_jax.engine.digest import digest, shapes_of
from mae_jax.engine.multihost import raise_together
from mae_jax.types import UserError

logger = logging.getLogger(__name__)


class OtherModel(UserError):
    """A checkpoint is intact, but of another model."""


class Checkpoints:
    """The checkpoints of one run, `<folder>/<step>`.

    Use as a context manager: its exit waits for a write in progress.

    Args:
        folder: folder of the checkpoints; created if missing.
        every: steps between two saves.
        keep: number of newest checkpoints to keep; at least 2, so that a broken one has a fallback.
        read_only: change nothing in the folder, as a run may be writing there.
    """

    def __init__(self, folder: str | Path, *, every: int, keep: int = 2, read_only: bool = False):
        check_checkpoints(every=every, keep=keep)
        self.folder = Path(folder).absolute()
        self.every = every
        self.read_only = read_only
        self._digest = jax.jit(digest)
        if read_only:
            options = dict(read_only=True, save_interval_steps=0, create=False)
        else:
            options = dict(max_to_keep=keep, cleanup_tmp_directories=True)
        self._options = ocp.CheckpointManagerOptions(**options)
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        logger, level = logging.getLogger("absl"), logging.getLogger("absl").level
        if self.read_only:  # of which Orbax warns
            logger.setLevel(logging.ERROR)
        try:
            return ocp.CheckpointManager(
                self.folder, options=self._options, item_names=("state", "leaves")
            )
        finally:
            logger.setLevel(level)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def steps(self) -> list[int]:
        """Steps with a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def due(self, step: int) -> bool:
        """Whether the state after this many steps should be saved."""
        return step % self.every == 0

    def save(self, state: Any, step: int) -> None:
        """Starts writing the state after `step` steps, unless that step has a checkpoint.

        Raises:
            UserError: the disk is full.
        """
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            leaves=ocp.args.JsonSave(self._leaves(state)),
        )
        with self._disk_full():
            self._manager.wait_until_finished()
            self._check_room(state)
            self._manager.save(step, force=True, args=args)

    def _check_room(self, state: Any) -> None:
        # Orbax writes a part per process, then merges the parts: for a while twice the state.
        needed = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + 2**20
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free")

    @contextlib.contextmanager
    def _disk_full(self):
        """Turns an error of a full disk, also from an earlier write, into a one-line UserError."""
        try:
            yield
        except Exception as error:  # TensorStore raises ValueError, the file system OSError
            full = errno.ENOSPC, errno.EDQUOT
            named = any(os.strerror(number) in str(error) for number in full)
            if not named and not (isinstance(error, OSError) and error.errno in full):
                raise
            steps = [int(path.name) for path in self.folder.iterdir() if path.name.isdigit()]
            last = f"the last good one is at step {max(steps)}" if steps else "there is none yet"
            reason = _first_line(error) if isinstance(error, OSError) else "a write failed"
            raise UserError(
                f"disk full: no room for a checkpoint in {self.folder} ({reason}); {last}: free "
                "some space and run again to resume"
            ) from error

    def restore(self, abstract_state: Any) -> Any | None:
        """Restores the newest intact checkpoint; None if there are no checkpoints.

        Args:
            abstract_state: shapes and shardings of the state to restore, or such a state.

        Raises:
            UserError: no checkpoint is intact, or the newest is of another model.
        """
        steps, broken = self.steps(), {}
        for step in reversed(steps):
            try:
                state = self._read(abstract_state, step)
            except UserError:
                raise
            except Exception as error:  # Orbax raises many types for damaged files
                broken[step] = _first_line(error)
                logger.warning(
                    "checkpoint %s is unreadable (%s); trying the one before", step, broken[step]
                )
            else:
                if not self.read_only:
                    self._set_aside(list(broken))
                return state
        aside = [path.name for path in self.folder.glob("broken-*")]
        if steps or aside:
            raise UserError(
                f"no readable checkpoint in {self.folder} ({broken or ', '.join(aside)}): remove "
                "the folder to start from the beginning"
            )
        return None

    def leaves(self, step: int) -> dict[str, list]:
        """Reads what is stored with a state: path -> [shape, digest]."""
        with contextlib.closing(ocp.JsonCheckpointHandler()) as handler:
            return handler.restore(self.folder / str(step) / "leaves", ocp.args.JsonRestore())

    def _read(self, abstract_state: Any, step: int) -> Any:
        """Reads a state in all processes, or raises in all. Uses Orbax's handlers, as its manager
        makes the processes wait for each other, even for one that has raised.
        """
        saved, state = raise_together(lambda: self._load(abstract_state, step))
        raise_together(lambda: self._verify(saved, state))
        return state

    def _load(self, abstract_state: Any, step: int) -> tuple[dict[str, list], Any]:
        saved = self.leaves(step)
        self._check_model(abstract_state, saved)
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), abstract_state
        )
        args, folder = ocp.args.StandardRestore(target), self.folder / str(step) / "state"
        with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
            return saved, handler.restore(folder, args=args)

    def _verify(self, saved: dict[str, list], state: Any) -> None:
        wrong = [name for name, leaf in self._leaves(state).items() if saved[name] != leaf]
        if wrong:
            raise ValueError(f"digest of {wrong[0]} differs from what was saved")

    def _leaves(self, state: Any) -> dict[str, list]:
        """Computes what is stored with a state: path -> [shape, digest]."""
        digests = jax.device_get(self._digest(state))
        return {name: [shape, int(digests[name])] for name, shape in shapes_of(state).items()}

    def _check_model(self, abstract_state: Any, saved: dict[str, list]) -> None:
        """Raises OtherModel if a checkpoint has leaves of other names or shapes."""
        wanted = shapes_of(abstract_state)
        stored = {name: shape for name, (shape, _) in saved.items()}
        differ = [path for path in {*wanted, *stored} if wanted.get(path) != stored.get(path)]
        # Name a parameter first: its optimizer moments differ as well, under longer names.
        for path in sorted(differ, key=lambda path: (not path.startswith("params/"), path))[:1]:
            theirs, ours = (shapes.get(path, "not in it") for shapes in (stored, wanted))
            raise OtherModel(
                f"the checkpoint in {self.folder} is of another model: {path} is {theirs} there "
                f"and {ours} here"
            )

    def _set_aside(self, steps: list[int]) -> None:
        """Renames broken checkpoints, so that their steps can be saved again."""
        if not steps:
            return
        self._manager.close()
        if jax.process_index() == 0:
            for step in steps:
                number = len(list(self.folder.glob(f"broken-{step}-*")))
                os.replace(self.folder / str(step), self.folder / f"broken-{step}-{number}")
        multihost_utils.sync_global_devices("broken checkpoints are set aside")
        self._manager = self._open()

    def close(self) -> None:
        """Waits until everything is written.

        Raises:
            UserError: the last write failed because the disk is full.
        """
        with self._disk_full():
            try:
                self._manager.wait_until_finished()
            finally:
                self._manager.close()


def check_checkpoints(*, every: int, keep: int = 2) -> None:
    """Raises UserError unless the arguments of `Checkpoints` are in range."""
    if every < 1 or keep < 2:
        raise UserError(
            f"config.checkpoint: every={every}, keep={keep}: need every >= 1 and keep >= 2"
        )


def read_leaves(folder: str | Path, parts: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads the newest checkpoint of any run without knowing its model: path -> array.

    Args:
        folder: folder of the checkpoints.
        parts: fields of the state to read, 'params' or 'extra'; each path begins with its field.

    Raises:
        UserError: there is no checkpoint, or the newest is damaged. There is no fallback to the one
            before, which would silently be another initialization.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise UserError(f"there are no checkpoints in {folder}")
    with Checkpoints(folder, every=1, read_only=True) as checkpoints:
        if not checkpoints.steps():
            raise UserError(f"there is no checkpoint yet in {folder}")
        step = checkpoints.steps()[-1]
        try:
            return _read_leaves(folder / str(step), checkpoints.leaves(step), parts)
        except Exception as error:  # Orbax raises many types for damaged files
            raise UserError(
                f"checkpoint {step} in {folder} is unreadable ({_first_line(error)}): resume that "
                "run, which falls back to the checkpoint before and writes this one again"
            ) from error


def _read_leaves(folder: Path, leaves: dict[str, list], parts) -> dict[str, np.ndarray]:
    saved = {path: leaf for path, leaf in leaves.items() if path.split("/")[0] in parts}
    tree = traverse_util.unflatten_dict(
        {path: np.zeros(shape, np.float32) for path, (shape, _) in saved.items()}, sep="/"
    )
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    args = ocp.args.PyTreeRestore(item=tree, restore_args=as_numpy, partial_restore=True)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.restore(folder / "state", args=args)
    digests = jax.device_get(jax.jit(digest)(tree))
    for path, (_, expected) in saved.items():
        if int(digests[path]) != expected:
            raise ValueError(f"digest of {path} differs from what was saved")
    flat = traverse_util.flatten_dict(tree, sep="/")
    return {path: np.asarray(values) for path, values in flat.items()}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).split(" See full")[0][:200]
