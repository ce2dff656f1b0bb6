"""Makes the two small runs of an older version, and what that version computed of them.

Run by the code at 66e86cc, from the root of its checkout (OTHER is where this file is):

    git worktree add --detach /tmp/old 66e86cc && cd /tmp/old
    PYTHONPATH=. JAX_PLATFORMS=cpu python OTHER/tests/golden/make_run_66e86cc.py
"""

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file

from mae_jax.restore import load_run

FOLDER = Path(__file__).parent
NAME = "run_66e86cc"
KEPT = ("config.json", "costs.json", "origin.json", "results.json", "metrics.jsonl", "checkpoints")


def main() -> None:
    """Trains, records and packs."""
    with tempfile.TemporaryDirectory() as place:
        runs = train(Path(place))
        expected = {}
        for name, workdir in runs.items():
            expected |= {f"{name}/{key}": value for key, value in record(workdir).items()}
        np.savez_compressed(FOLDER / f"{NAME}.npz", **expected)
        pack(runs)


def train(place: Path) -> dict[str, Path]:
    """A masked autoencoder of 12 steps, and a classifier of 4 that starts from it."""
    runs = {"mae": place / "mae", "finetune": place / "finetune"}
    every = ("--config.checkpoint.every=100", "--config.log.every=4")
    command("train", "--config", "tests/tiny.py", "--workdir", runs["mae"], *every,
            "--config.schedule.epochs=3.0", "--config.evals.run=knn(k=3)")  # fmt: skip
    command("train", "--config", "tests/tiny_tasks.py:finetune", "--workdir", runs["finetune"],
            *every, f"--config.init_from.path={runs['mae']}", "--config.method.args.ema=0.5",
            "--config.optimizer.name=sgd")  # fmt: skip
    return runs


def command(*args) -> None:
    """One command of the checkout that Python runs in."""
    subprocess.run([sys.executable, "-m", "mae_jax", *map(str, args)], check=True)


def record(workdir: Path) -> dict[str, np.ndarray]:
    """Features (and logits) of eight images, the loss of a batch, and digests of exports."""
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 12, 3), dtype=np.uint8)
    labels = np.arange(8, dtype=np.int32) % 10
    run, state = load_run(workdir)
    outputs = run.predictor(state)({"image": images, "mask": np.ones(8, bool)})
    kept = {key: np.asarray(outputs[key]) for key in ("features", "logits") if key in outputs}
    batch = {"image": images, "label": labels}
    loss = jax.jit(run.method.loss)(state.params, state.extra, batch, jax.random.key(7), 3).loss
    kept |= {"images": images, "labels": labels, "loss": np.asarray(loss)}
    exports = {"timm": workdir.with_suffix(".safetensors")}
    if workdir.name == "mae":
        exports["hf"] = workdir.with_suffix(".hf")
    for layout, out in exports.items():
        more = ("--encoder-only",) if "hf" in exports and layout == "timm" else ()
        command("weights", "export", "--run", workdir, "--format", layout, "--out", out, *more)
        kept[layout] = np.array(digest(out / "model.safetensors" if layout == "hf" else out))
    return kept


def digest(path: Path) -> str:
    """Of the names, shapes and bytes of all arrays of a safetensors file."""
    total = hashlib.sha256()
    for name, array in sorted(load_file(path).items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def pack(runs: dict[str, Path]) -> None:
    """Archives the workdirs, without figures and locks and without times of files."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
        return info

    with tarfile.open(FOLDER / f"{NAME}.tar.xz", "w:xz") as archive:
        for name, workdir in runs.items():
            for kept in KEPT:
                if (workdir / kept).exists():
                    archive.add(workdir / kept, f"{name}/{kept}", filter=plain)


if __name__ == "__main__":
    main()
    print(json.dumps({p.name: p.stat().st_size for p in FOLDER.glob(f"{NAME}.*")}))
