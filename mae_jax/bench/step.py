"""Speed and utilization of a config's training step on this machine.

The batch is synthetic and stays on the devices, so no input pipeline is timed. The step, its parts,
a large matrix product and, with `peer`, the same model in another library are timed in interleaved
turns. Model FLOPs utilization is the step's model FLOP/s over the FLOP/s of the matrix product, in
the same type and turn, times the number of devices: the peak is measured, not taken from a data
sheet. Fake devices of a CPU count as one.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict
from rich.box import SIMPLE
from rich.table import Table

from mae_jax.bench.flops import count
from mae_jax.bench.parts import DISJOINT, Live
from mae_jax.bench.peer import make_peers
from mae_jax.bench.residuals import kept
from mae_jax.bench.setup import Setup, make_setup
from mae_jax.bench.timing import Work, check_times, measure, repeat, shown, spread
from mae_jax.checks import check_batch_size
from mae_jax.data.loader import cores
from mae_jax.engine.costs import Costs
from mae_jax.engine.memory import check_state, explained, step_advice

SIDES = {"cpu": (1024, 2048, 3072)}
"""Platform -> sides of the square matrix products; the fastest one counts."""
LARGE_SIDES = (4096, 8192)

Report = dict[str, Any]


def bench_step(
    config: ConfigDict,
    *,
    image_size: Sequence[int] = (),
    turns: int = 5,
    seconds: float = 2.0,
    peer: str = "",
) -> Report:
    """Measures the training step of a config.

    Args:
        image_size: see `make_setup`.
        turns, seconds: see `measure`.
        peer: 'hf' to measure the same model in `transformers` too, see `peer.make_peers`.

    Returns:
        All numbers, ready for JSON; `tables` draws them.

    Raises:
        UserError: a config that cannot be built, too little memory, a peer that is not installed.
    """
    check_times(turns, seconds)
    with explained(lambda: step_advice(config)):
        setup = make_setup(config, image_size)
        check_state(setup.abstract_state)
        check_batch_size(setup.example, setup.batch_size, setup.mesh)
        works, notes = make_peers(setup, peer) if peer else ({}, [])
        compiled, costs, compiling = compile_twice(setup)
        live = Live(setup, compiled)
        # The step and its peers, whose ratio is reported, are timed next to each other.
        works = {"ours": repeat(live.step), **works}
        parts = live.calls()
        works |= {f"part {name}": repeat(call) for name, call in parts.items()}
        works |= products(setup.dtype)
        times = measure(works, turns, seconds)
    report = summary(setup, times, costs) | dict(compile_seconds=compiling, notes=notes)
    report["memory"] = memory(compiled, costs)
    report["xla_compiled_gflops"] = _compiled_gflops(setup, compiled)
    return report


def compile_twice(setup: Setup) -> tuple[Callable, Costs, dict[str, float]]:
    """The compiled step, its costs (see `Setup.compile`), and the seconds from tracing to the
    program: 'cold', and 'cached' with only the persistent cache, a temporary folder, kept.
    """
    seconds, compiled = {}, []
    with _private_cache():
        for name in ("cold", "cached"):
            jax.clear_caches()
            begun = time.perf_counter()
            step, costs = setup.compile()
            seconds[name] = time.perf_counter() - begun
            compiled.append((step, costs))
    return *compiled[0], seconds  # a program from the cache lacks some analyses


@contextlib.contextmanager
def _private_cache():
    """Uses an empty persistent compilation cache, and restores the settings afterwards."""
    now = jax.config
    old = dict(
        jax_enable_compilation_cache=now.jax_enable_compilation_cache,
        jax_persistent_cache_min_compile_time_secs=now.jax_persistent_cache_min_compile_time_secs,
        jax_compilation_cache_dir=now.jax_compilation_cache_dir,
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            _configure(dict(zip(old, (True, 0.0, folder), strict=True)))
            yield
        finally:
            _configure(old)


def _configure(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # otherwise JAX keeps the folder of its first use


def products(dtype: str) -> dict[str, Work]:
    """'matmul SIDE' -> product of square matrices on one device; see `product_flops`."""
    device = jax.local_devices()[0]

    def work(side: int) -> Work:
        matrix = jax.random.normal(jax.random.key(0), (side, side), jnp.float32) / side**0.5
        matrix = jax.device_put(matrix.astype(dtype), device)
        multiply = jax.jit(lambda a, b: a @ b)
        holder = [matrix]

        def call() -> jax.Array:
            holder[0] = multiply(holder[0], matrix)  # sequential, as in a network
            return holder[0]

        return repeat(call)

    return {f"matmul {side}": work(side) for side in SIDES.get(device.platform, LARGE_SIDES)}


def product_flops(name: str) -> int:
    """Operations of the product 'matmul SIDE'."""
    return 2 * int(name.split()[1]) ** 3


def summary(setup: Setup, found: dict[str, list[float]], costs: Costs) -> Report:
    """The report of a measurement.

    Args:
        found: name -> seconds per call, one for each turn, from `measure`.
        costs: from `Setup.compile`.
    """
    step, images = np.array(found["ours"]), setup.batch_size
    rates = {
        name: product_flops(name) / np.array(values)
        for name, values in found.items()
        if name.startswith("matmul ")
    }
    machine = np.max(list(rates.values()), axis=0) * devices(setup)
    at_once = images // setup.microbatches // setup.mesh.size
    report = dict(
        config=setup.config.to_dict(),
        image_shape=setup.shape,
        inputs={name: setup.example[name].shape[1:] for name in setup.method.inputs},
        batch_size=images,
        dtype=setup.dtype,
        attention=costs["attention"],
        device=costs["device"],
        devices=devices(setup),
        threads=cores(),
        jax=jax.__version__,
        turns=len(step),
        seconds={name: values for name, values in found.items()},
        parameters=costs["parameters"],
        ms_per_step=spread(1e3 * step),
        images_per_second=spread(images / step),
        matmul_gflops_per_second={name: spread(rate / 1e9) for name, rate in rates.items()},
        machine_gflops_per_second=spread(machine / 1e9),
        xla_program_gflops=costs["gflops_per_image"],
        kept_megabytes=kept(setup.method, setup.shape, at_once, costs["attention"]),
        parts=_parts(setup, found, step),
        peers=beside(found, images),
    )
    if counted := count(setup.method, setup.shape):
        train = sum(counted.train.values())
        report["model_gflops"] = train / 1e9
        report["model_gflops_by_part"] = {k: v / 1e9 for k, v in counted.train.items()}
        report["mfu"] = spread(train * images / step / machine)
        for name, flops in counted.train.items():
            if name in report["parts"]:
                share = flops * images / report["parts"][name]["ms"]["median"] / np.median(machine)
                report["parts"][name]["mfu"] = float(1e3 * share)
    return report


def devices(setup: Setup) -> int:
    """Number of devices with their own arithmetic units; those of a CPU share its cores."""
    return 1 if setup.mesh.devices.flat[0].platform == "cpu" else setup.mesh.size


def _parts(setup: Setup, found: dict[str, list[float]], step: np.ndarray) -> Report:
    """The time of each part in a step, and its share of the step's time in the same turn."""
    parts = {}
    for name, values in found.items():
        if name.startswith("part "):
            name = name.removeprefix("part ")
            total = np.array(values) * (1 if name == "optimizer" else setup.microbatches)
            parts[name] = dict(ms=spread(1e3 * total), share=spread(total / step))
    return parts


def beside(found: dict[str, list[float]], batch_size: int) -> Report:
    """Peer -> its speed, and the 'ratio' of our speed to it, in the same turn.

    Args:
        found: name -> seconds per call, one for each turn, from `measure`.
    """
    step = np.array(found["ours"])
    return {
        name: dict(
            ms_per_step=spread(1e3 * np.array(values)),
            images_per_second=spread(batch_size / np.array(values)),
            ratio=spread(np.array(values) / step),
        )
        for name, values in found.items()
        if name != "ours" and not name.startswith(("part ", "matmul "))
    }


def memory(compiled, costs: Costs) -> dict[str, float | None]:
    """Megabytes of a device: of the 'step' and its 'temporary' part, from the compiler; and the
    'peak' of this process, including parts and peers, if the device records it.
    """
    analysis = compiled.memory_analysis()
    stats = jax.local_devices()[0].memory_stats() or {}
    return dict(
        step=costs["step_megabytes"],
        temporary=analysis.temp_size_in_bytes / 1e6 if analysis else None,
        peak=stats["peak_bytes_in_use"] / 1e6 if "peak_bytes_in_use" in stats else None,
    )


def _compiled_gflops(setup: Setup, compiled) -> float | None:
    """XLA's count for the compiled program, per image. Library calls may count nothing, and the
    body of a loop counts once.
    """
    flops = (compiled.cost_analysis() or {}).get("flops")
    return flops * setup.mesh.size * setup.microbatches / setup.batch_size / 1e9 if flops else None


def tables(report: Report) -> list[Table]:
    """The report of `bench_step` as tables."""
    inputs = [f"{name}s of {' x '.join(map(str, x))}" for name, x in report["inputs"].items()]
    title = f"{report['batch_size']} {' and '.join(inputs)}, {report['dtype']}, {report['device']}"
    drawn = Table(title=title, box=SIMPLE, show_header=False, pad_edge=False)
    gigas = lambda value: "unknown" if value is None else f"{value:,.3f}"
    drawn.add_row("images/s", shown(report["images_per_second"]))
    drawn.add_row("ms per step", shown(report["ms_per_step"]))
    if "mfu" in report:
        drawn.add_row("model FLOPs utilization, %", shown(report["mfu"], scale=100))
    drawn.add_row("fastest product, GFLOP/s", shown(report["machine_gflops_per_second"], 0))
    drawn.add_row("GFLOPs per image, formula", gigas(report.get("model_gflops")))
    drawn.add_row("  XLA, as written", gigas(report["xla_program_gflops"]))
    drawn.add_row("  XLA, as compiled", gigas(report["xla_compiled_gflops"]))
    drawn.add_row("parameters, million", f"{report['parameters'] / 1e6:,.2f}")
    for line in report["attention"]:
        drawn.add_row("attention", line)
    for name, value in report["memory"].items():
        drawn.add_row(f"memory of a device, MB: {name}", gigas(value))
    for name, value in (report["kept_megabytes"] or {}).items():
        drawn.add_row(f"  kept by blocks for the backward pass, remat={name}", gigas(value))
    for name, value in report["compile_seconds"].items():
        drawn.add_row(f"compilation, s: {name}", f"{value:.2f}")
    return [drawn, _parts_table(report), *_peer_tables(report)]


def _parts_table(report: Report) -> Table:
    drawn = Table(title="parts, timed separately", box=SIMPLE, pad_edge=False)
    for column in ("", "ms", "% of the step", "utilization, %"):
        drawn.add_column(column, justify="right" if column else "left")
    for name, part in report["parts"].items():
        used = f"{100 * part['mfu']:.1f}" if "mfu" in part else ""
        drawn.add_row(name, shown(part["ms"]), f"{100 * part['share']['median']:.1f}", used)
    together = DISJOINT if "encoder" in report["parts"] else ("gradient", "optimizer")
    rest = 1 - sum(report["parts"][name]["share"]["median"] for name in together)
    drawn.add_row("the rest of the step", "", f"{100 * rest:.1f}", "")
    return drawn


def _peer_tables(report: Report) -> list[Table]:
    if not report["peers"]:
        return []
    title = f"the same model in another library, {report['threads']} threads each"
    drawn = Table(title=title, box=SIMPLE, pad_edge=False)
    for column in ("", "images/s", "ours over theirs"):
        drawn.add_column(column, justify="right" if column else "left")
    drawn.add_row("ours", shown(report["images_per_second"]), "")
    for name, peer in report["peers"].items():
        drawn.add_row(name, shown(peer["images_per_second"]), shown(peer["ratio"], 2))
    return [drawn]
