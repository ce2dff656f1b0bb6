"""The benchmark of the input pipeline measures what it says."""

import io
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mae_jax.bench import data as bench
from mae_jax.data.transforms import make_transforms
from mae_jax.types import UserError

CROP = "random_resized_crop(32)|flip"


def test_the_jpegs_are_of_the_size_that_is_said():
    files = list(bench.jpegs())[:40]
    assert all(Image.open(io.BytesIO(data)).size == (500, 375) for data in files)
    assert 65_000 < np.median([len(data) for data in files]) <= 110_000
    assert max(map(len, files)) <= 115_000 and len(set(files)) == len(files)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_rate_counts_all_threads(monkeypatch, threads):
    clock = SimpleNamespace(now=7.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(bench, "time", clock)

    def advance():
        clock.now += 0.25

    together = threading.Barrier(threads, advance, timeout=60)
    rate = bench.spread(lambda i: together.wait(), 10, 1.0)
    assert rate(threads) == 4 * threads


def test_a_table_has_every_source_and_its_ratios(tmp_path):
    for i, data in zip(range(3), bench.jpegs()):
        (tmp_path / f"{i}.jpg").write_bytes(data)
    source = f"folder({str(tmp_path)!r})"
    table = bench.bench_data(source=source, transform=CROP, workers=(1,), turns=1, seconds=0.05)
    columns = [list(column.cells) for column in table.columns]
    names = ["ours: the same files in memory", f"ours: {source}"]
    assert columns[0] == [bench.DECODE, bench.PILLOW, *names]
    rates = [float(rate) for rate in columns[2]]
    assert min(rates) > 0 and columns[5][0] == columns[6][1] == "1.00"
    # Rates are rounded, and small on a busy machine.
    np.testing.assert_allclose(float(columns[6][2]), rates[2] / rates[1], rtol=0.1, atol=0.02)


def test_sources_without_files_have_no_references():
    options = dict(source="fashion_scenes(num_examples=8)", turns=1, seconds=0.05, workers=(2,))
    table = bench.bench_data(transform="resize(16)", **options)
    assert list(table.columns[0].cells) == ["ours: fashion_scenes(num_examples=8)"]
    assert list(table.columns[6].cells) == [""]


def test_other_transforms_are_not_compared_with_pillow():
    rates = bench.references(list(bench.jpegs())[:1], make_transforms("resize(32)"), 0.01)
    assert list(rates) == [bench.DECODE]


@pytest.mark.parametrize("wrong", [{"turns": 0}, {"seconds": 0.0}, {"workers": (1, 0)}])
def test_numbers_that_make_no_sense(wrong):
    with pytest.raises(UserError, match="must be above 0"):
        bench.bench_data(**{"source": "", "transform": CROP, **wrong})


def test_crops_of_an_image_that_is_decoded_once_have_a_row():
    options = dict(source="fashion_scenes(num_examples=8)", turns=1, seconds=0.05, workers=(1,))
    table = bench.bench_data(transform="random_resized_crop(16)", repeats=4, **options)
    name = "ours: fashion_scenes(num_examples=8)"
    assert list(table.columns[0].cells) == [name, f"{name}, repeats=4"]
    with pytest.raises(UserError, match="--repeats 5 must divide the 32 rows"):
        bench.bench_data(transform="resize(16)", repeats=5, **options)
