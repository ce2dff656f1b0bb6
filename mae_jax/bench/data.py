"""Throughput of the input pipeline, compared with raw decoding and a common Pillow pipeline.

All rates of a table come from one run, and each is the median of several interleaved turns, so that
noise on the machine affects all of them equally.
"""

import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image
from rich.box import SIMPLE
from rich.table import Table

from mae_jax.data import arrays
from mae_jax.data.images import BadImage, Encoded
from mae_jax.data.loader import Loader, cores
from mae_jax.data.named import source_spec
from mae_jax.data.order import training_rows
from mae_jax.data.prepare import prepare
from mae_jax.data.sources import Source
from mae_jax.data.sources.fashion_scenes import photographs
from mae_jax.data.transforms import Transform, draw, make_transforms
from mae_jax.data.transforms.random_resized_crop import RandomResizedCrop
from mae_jax.spec import build
from mae_jax.types import UserError

DECODE = "libjpeg-turbo decode"
PILLOW = "Pillow pipeline"
BATCH = 32
SAMPLE = 256
"""Maximum number of image files for the references."""

Rate = Callable[[int], float]
"""Number of threads -> images/s, one measurement."""


class Memory(Source):
    """A source of image files in memory.

    Args:
        files: encoded images.
    """

    def __init__(self, files: Sequence[Encoded]):
        self.files, self.num_examples = files, len(files)

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """'image': encoded files, without a cached decoded image."""
        return {"image": [self.files[i].fresh() for i in indices]}

    def name(self, index: int) -> str:
        """The index, for messages."""
        return f"[{index}]"


def bench_data(
    *,
    source: str,
    transform: str,
    workers: Sequence[int] = (),
    turns: int = 5,
    seconds: float = 2.0,
    repeats: int = 1,
) -> Table:
    """Measures a source with transforms, raw decoding, and a common Pillow pipeline on the same
    files, with different numbers of threads.

    Args:
        source: spec string; empty: generated JPEGs of 500 x 375 pixels, in memory, in a folder and
            as ArrayRecord.
        transform: spec string of training transforms.
        workers: numbers of threads; empty: one, and one for each core.
        turns: number of measurements of each rate.
        seconds: duration of a measurement.
        repeats: also measures this number of copies of each decoded image, see `make_data`; a
            divisor of `BATCH`.

    Raises:
        UserError: a source or transform that cannot be built, or a number that is not positive.
    """
    for name, value in [("turns", turns), ("seconds", seconds), *(("workers", n) for n in workers)]:
        if not value > 0:
            raise UserError(f"--{name} {value} must be above 0")
    if repeats < 1 or BATCH % repeats:
        raise UserError(f"--repeats {repeats} must divide the {BATCH} rows of a batch")
    transforms = make_transforms(transform)
    with tempfile.TemporaryDirectory() as folder:
        sources = (
            {source: build(source_spec(source, "--source"), "data.sources")}
            if source
            else made(Path(folder))
        )
        files = sample(next(iter(sources.values())))
        if files and source:
            sources = {"the same files in memory": Memory(files), **sources}
        data = [file.data for file in files]
        rates = references(data, transforms, seconds) if files else {}
        for copies in sorted({1, repeats}):
            end = f", repeats={copies}" if copies > 1 else ""
            rates |= {
                f"ours: {k}{end}": ours(v, transforms, seconds, copies) for k, v in sources.items()
            }
        workers = workers or sorted({1, cores()})
        medians = measure(rates, workers, turns)
    size = statistics.mean(map(len, data)) if files else None
    return table(medians, f"{transform}, median of {turns}", size)


def made(folder: Path) -> dict[str, Source]:
    """Generated JPEGs in three kinds of sources: in memory, in a folder, and as ArrayRecord."""
    (folder / "jpeg").mkdir()
    for i, data in enumerate(jpegs()):
        (folder / "jpeg" / f"{i:03}.jpg").write_bytes(data)
    prepared = prepare(folder / "jpeg", folder / "prepared", name="bench")
    names = {
        "folder": f"folder({str(folder / 'jpeg')!r})",
        "ArrayRecord": f"tfds({str(prepared.folder)!r})",
    }
    sources = {name: build(text, "data.sources") for name, text in names.items()}
    return {"in memory": Memory(sample(sources["folder"])), **sources}


def jpegs() -> Iterator[bytes]:
    """`SAMPLE` JPEGs of 500 x 375 pixels and 60 to 110 kB, each of four crops of the library's
    photographs, which are smaller.
    """
    pictures = photographs("train")
    rng = np.random.default_rng(0)
    for _ in range(SAMPLE):
        image = Image.new("RGB", (500, 375))
        for left, top in itertools.product((0, 250), (0, 188)):
            picture = pictures[rng.integers(len(pictures))]
            x, y = rng.integers(picture.width - 249), rng.integers(picture.height - 187)
            image.paste(picture.crop((x, y, x + 250, y + 188)), (left, top))
        for quality in (96, 94, 92, 89, 85, 80, 70):
            file = io.BytesIO()
            image.save(file, "JPEG", quality=quality)
            if file.tell() <= 110_000:
                break
        yield file.getvalue()


def sample(source: Source) -> list[Encoded]:
    """Up to `SAMPLE` readable image files of a source; [] if they are not all JPEGs."""
    files = []
    for index in np.linspace(0, source.num_examples - 1, min(SAMPLE, source.num_examples)):
        try:
            image = source.read(np.array([int(index)]))["image"][0]
            if not isinstance(image, Encoded) or image.data[:2] != b"\xff\xd8":
                return []
            simplejpeg.decode_jpeg(image.data)
        except (BadImage, ValueError):
            continue
        files.append(image)
    return files


def references(
    files: Sequence[bytes], transforms: Sequence[Transform], seconds: float
) -> dict[str, Rate]:
    """Rates of raw decoding and, if the first transform is a random resized crop, of the common
    pipeline in Pillow: decode, crop, bicubic resize, flip.
    """
    rates = {DECODE: spread(lambda i: simplejpeg.decode_jpeg(files[i]), len(files), seconds)}
    crop = transforms[0] if transforms else None
    if isinstance(crop, RandomResizedCrop):
        params = draw([crop], np.arange(len(files), dtype=np.uint64))[0]

        def usual(i: int) -> np.ndarray:
            image = Image.open(io.BytesIO(files[i])).convert("RGB")
            top, left, height, width = crop.box(image.height, image.width, params[i])
            image = image.crop((left, top, left + width, top + height))
            image = image.resize(crop.size[::-1], Image.Resampling.BICUBIC)
            return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if i % 2 else image)

        rates[PILLOW] = spread(usual, len(files), seconds)
    return rates


def spread(function: Callable[[int], object], count: int, seconds: float) -> Rate:
    """Calls per second of a function of 0, 1, ... count - 1, by threads that share the numbers."""

    def rate(threads: int) -> float:
        begun = time.perf_counter()

        def work(first: int) -> int:
            for done in itertools.count():
                if time.perf_counter() > begun + seconds:
                    return done
                function((first + done * threads) % count)

        with ThreadPoolExecutor(threads) as pool:
            total = sum(pool.map(work, range(threads)))
        return total / (time.perf_counter() - begun)

    return rate


def ours(source: Source, transforms: Sequence[Transform], seconds: float, repeats: int = 1) -> Rate:
    """The rate of the input pipeline, in rows with `repeats` of each image."""
    loader = Loader(source, transforms, fields=(), on_error="raise")
    rows_at = lambda step: training_rows(
        step, seed=0, num_examples=source.num_examples, batch_size=BATCH, repeats=repeats
    )

    def rate(threads: int) -> float:
        done = 0
        batches = arrays.batches(loader, rows_at, itertools.count(), threads)
        next(batches)  # the clock starts when the workers have started
        begun = time.perf_counter()
        while time.perf_counter() < begun + seconds:
            next(batches)
            done += BATCH
        elapsed = time.perf_counter() - begun
        batches.close()
        return done / elapsed

    return rate


def measure(
    rates: dict[str, Rate], workers: Sequence[int], turns: int
) -> dict[tuple[str, int], float]:
    """(name, threads) -> images/s, the median over all turns after one to warm up."""
    values: dict[tuple[str, int], list[float]] = {}
    for turn in range(turns + 1):
        for (name, rate), threads in itertools.product(rates.items(), workers):
            value = rate(threads)
            if turn:
                values.setdefault((name, threads), []).append(value)
    return {key: statistics.median(rates_) for key, rates_ in values.items()}


def table(rates: dict[tuple[str, int], float], title: str, size: float | None) -> Table:
    """A table of the rates, also per thread, and their ratios to the references with as many
    threads.

    Args:
        rates: as `measure` returns them.
        size: mean bytes of a file; None: the source has no files.
    """
    drawn = Table(title=title, box=SIMPLE, padding=(0, 1), pad_edge=False)
    for column in ("", "threads", "images/s", "each", "MB/s", "x decode", "x Pillow"):
        drawn.add_column(column, justify="right" if column else "left", no_wrap=True)
    for (name, threads), rate in rates.items():
        ratios = [rates.get((reference, threads)) for reference in (DECODE, PILLOW)]
        drawn.add_row(
            name,
            str(threads),
            f"{rate:.0f}",
            f"{rate / threads:.0f}",
            f"{rate * size / 1e6:.1f}" if size else "",
            *(f"{rate / other:.2f}" if other else "" for other in ratios),
        )
    return drawn
