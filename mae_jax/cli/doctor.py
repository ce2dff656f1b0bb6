"""`mae-jax doctor`: reports devices, versions, memory, and missing packages."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil

import jax
from rich.console import Console
from rich.table import Table

from mae_jax import __version__

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "ml-collections",
    "numpy",
    "pillow",
    "simplejpeg",
    "cykooz-resizer",
)
OPTIONAL = {
    "tensorflow": "the tf.data pipeline (data.pipeline=tf)",
    "tensorflow_datasets": "prepared data sets (the source tfds, mae-jax prepare)",
    "array_record": "data sets in ArrayRecord files",
    "tifffile": "the source tiff",
    "imagecodecs": "compressed TIFF and DICOM files",
    "pydicom": "the source dicom",
    "nibabel": "the source nifti",
    "tensorstore": "the source ome_zarr",
    "apache_beam": "mae-jax prepare --beam",
    "faster_coco_eval": "masks of objects, the evaluator detection",
    "torch": "weights in .pth files, mae-jax bench step --peer hf, the tests against PyTorch",
    "transformers": "mae-jax bench step --peer hf, the tests against Hugging Face",
    "huggingface_hub": "weights from and to the hub (hf://org/name, mae-jax weights push)",
    "wandb": "the writer wandb (log.writers)",
    "mlflow": "the writer mlflow (log.writers)",
    "av": "the source frames, for videos",
    "tokenizers": "captions in pieces of words, mae-jax tokenizer",
    "jax2onnx": "mae-jax weights export --format onnx, mae-jax demo --static",
    "starlette": "mae-jax demo",
    "uvicorn": "mae-jax demo",
}


def report() -> int:
    """Prints the report. Returns exit code 0, or 2 if a required package is missing."""
    console = Console()
    table = Table("what", "found", title=f"mae_jax {__version__}", show_header=False)
    table.add_row("python", f"{platform.python_version()} on {platform.platform()}")
    missing = []
    for name in PACKAGES:
        try:
            table.add_row(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            table.add_row(name, "[red]missing[/red]")
    for device in jax.local_devices():
        table.add_row(f"device {device.id}", f"{device.device_kind}{_memory(device)}")
    table.add_row("processes", str(jax.process_count()))
    table.add_row("cores", str(os.cpu_count()))
    table.add_row("host memory", f"{_host_memory() / 2**30:.1f} GiB")
    table.add_row("disk", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free in this folder")
    cache = jax.config.jax_compilation_cache_dir
    table.add_row("compilation cache", cache or "off: set JAX_COMPILATION_CACHE_DIR to a folder")
    for name, purpose in OPTIONAL.items():
        installed = importlib.util.find_spec(name) is not None
        table.add_row(name, "installed" if installed else f"not installed; needed for {purpose}")
    console.print(table)
    if jax.local_devices()[0].platform == "cpu":
        console.print(
            "No accelerator: JAX runs on the CPU. For NVIDIA GPUs: pip install 'jax\\[cuda12]'; "
            "for TPUs: pip install 'jax\\[tpu]'.",
            highlight=False,
        )
    if missing:
        console.print(
            f"Missing: {', '.join(missing)}. Install with: pip install {' '.join(missing)}"
        )
    return 2 if missing else 0


def _memory(device) -> str:
    stats = device.memory_stats() or {}
    return f", {stats['bytes_limit'] / 2**30:.1f} GiB" if "bytes_limit" in stats else ""


def _host_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
