"""Steps compiled for devices that are not here: reports, faults and mistakes."""

import json
import os

import jax
import pytest

from mae_jax import cli
from mae_jax.bench import compile as bench_compile
from mae_jax.bench import compile_child, compile_run, compile_tables
from mae_jax.bench.compile_child import FACTS, OUT_OF_MEMORY, STEP, environment, options_for
from mae_jax.bench.compile_run import Dump
from mae_jax.bench.machines import MACHINES, parse_topology
from mae_jax.config import to_json
from mae_jax.types import UserError
from tests.helpers import programs, tiny
from tests.helpers.compilers import needs_libtpu
from tests.helpers.jobs import ROOT


def dump(name, **changes):
    """A canned one."""
    text = {part: programs.read(f"{name}.{part}") for part in ("hlo", "buffers")}
    made = Dump(programs.FACTS[name], text["hlo"], text["buffers"], "", "", 1.0)
    return made._replace(**changes)


def report(name, **changes):
    """Of a canned dump."""
    topology = parse_topology(programs.TOPOLOGIES[name])
    return bench_compile.report(dump(name, **changes), topology)


def test_a_report_by_hand():
    found = report("v5e_data")
    assert found["fits"] and not found["faults"] and found["images_per_device"] == 2
    v5e = MACHINES["v5e"]
    assert found["memory"]["share"] == found["memory"]["total"] / v5e.memory
    bounds = found["bounds"]
    assert bounds["memory"] == found["traffic"]["total"] / 8.19e11
    assert bounds["arithmetic"] == 2 * 27700224 / 197e12
    assert bounds["mfu"] == bounds["arithmetic"] / bounds["memory"] < 1
    assert "cycles" not in found and "optimal_seconds" not in json.dumps(found)
    assert [type(table).__name__ for table in compile_tables.tables(found)] == ["Table"] * 5
    cells = [list(column.cells) for column in compile_tables.tables(found)[0].columns]
    rows = dict(zip(*cells, strict=True))
    assert rows["attention"] == found["attention"][0] == "pallas for 17 tokens, 2 heads of 32"
    assert rows["compiler options"] == "xla_tpu_of_a_config=1" and "note" not in rows


def test_loops_of_unknown_length_are_a_note():
    program = programs.read("v5e_data.hlo") + (
        "ENTRY %main () -> s32[] {\n  ROOT %w = s32[] while(%i), condition=%c, body=%b\n}\n"
    )
    found = report("v5e_data", program=program)
    assert found["notes"] == ["loops of unknown length, which count once: 1"]
    rows = compile_tables.tables(found)[0].columns
    assert list(rows[1].cells)[list(rows[0].cells).index("note")] == found["notes"][0]


def test_cycles_of_a_final_program():
    line = '  %a = f32[8] negate(%p), metadata={op_name="jit(step)/jvp(MAE)/encoder/'
    final = "ENTRY %main (p: f32[8]) -> f32[8] {\n"
    for name, cycles in (("block_0/attention/mul", 300), ("block_0/mlp/add", 100)):
        final += f'{line}{name}"}}, backend_config={{"estimated_cycles":"{cycles}"}}\n'.replace(
            "%a =", f"%a.{cycles} ="
        )
    found = report("v5e_data", final=final + "}\n")
    assert found["cycles"] == {"encoder attention": 300, "encoder dense": 100}
    table = compile_tables.tables(found)[-1]
    shares = list(table.columns[3].cells)
    assert "75.0" in shares and "25.0" in shares


def test_what_does_not_fit_is_a_fault():
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (48.33G) exceeds available HBM (15.75G). More 9."
    )
    found = report("v5e_data", refused=message, program="")
    assert not found["fits"]
    (line,) = found["faults"]
    assert line.startswith("it does not fit") and line.endswith("available HBM (15.75G).")
    assert len(compile_tables.tables(found)) == 1
    whole = dump("h100_fsdp")
    more = "allocation 9999: size 90000000000, constant:\n"
    larger = whole._replace(buffers=whole.buffers + more)
    found = bench_compile.report(larger, parse_topology("h100:4"))
    assert not found["fits"] and "it needs 90.01 GB and a device has 63.71" in found["faults"][0]


def test_parameters_gathered_by_all_reduce_are_a_fault():
    """Every all-gather of the program replaced by what a TPU does over 64 chips."""
    assert not report("v5e_fsdp")["faults"]
    lines = []
    text = programs.read("v5e_fsdp.hlo")
    for place, line in enumerate(text.splitlines()):
        if " all-gather(" in line:
            put = f"%put.{place}"
            shape = line.split(" = ")[1].split(" all-gather(")[0]
            lines.append(f"  {put} = {shape} dynamic-update-slice(%zeros, %shard, %i)")
            before, _, after = line.partition(" all-gather(")
            line = f"{before} all-reduce({put}{after[after.index(')') :]}"
        lines.append(line)
    found = report("v5e_fsdp", program="\n".join(lines) + "\n")
    assert found["gathered"]["all_gather"] == 0
    assert found["gathered"]["all_reduce"] > 516224
    assert "parameters are gathered by all-reduce (1 MB" in found["faults"][0]


@pytest.mark.parametrize(
    "name, slices, match",
    [
        ("v5e:4", 1, "KIND:SHAPE, such as v5e:4x4"),
        ("v5e:4x4x4", 1, "KIND:SHAPE"),
        ("v9:4x4", 1, "KIND:SHAPE"),
        ("v5p:0x4x4", 1, "KIND:SHAPE"),
        ("h100", 1, "KIND:SHAPE"),
        ("v5e:4x4", 0, "--slices 0 must be 1 or more"),
        ("h100:8", 2, "--slices is for TPUs: write h100:2x8"),
    ],
)
def test_topologies_that_are_none(name, slices, match):
    with pytest.raises(UserError, match=match):
        parse_topology(name, slices)


def test_topologies_as_jax_wants_them():
    assert parse_topology("v5e:4x4", 2).arguments() == dict(
        platform="tpu", topology_name="v5e:4x4", num_slices=2
    )
    assert parse_topology("v5e:1x1").arguments()["chips_per_host_bounds"] == (1, 1, 1)
    assert parse_topology("v4:2x2x1").arguments()["chip_config_name"] == "megacore"
    gpus = parse_topology("h100:2x8").arguments()
    assert gpus["topology"] == "1x2x8" and "NVIDIA H100" in gpus["target_config"]


@pytest.mark.parametrize(
    "name, match",
    [("v5e:2x2", "pip install --no-deps --target compilers .libtpu"), ("h100:8", "plugin")],
)
def test_compilers_that_are_not_installed(monkeypatch, name, match):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=match):
        compile_run.check_compiler(parse_topology(name))


CHILD = """\
import json, pathlib, sys, time
task = json.load(sys.stdin)
folder = pathlib.Path(task["folder"])
{}
"""


@pytest.fixture
def child(monkeypatch, tmp_path):
    """Puts a script in the place of the child process, and compiles with it."""
    monkeypatch.setattr(compile_run, "check_compiler", lambda topology: None)

    def run(script, **options):
        module = tmp_path / "fake_compile_child.py"
        module.write_text(CHILD.format(script))
        env = dict(os.environ, PYTHONPATH=str(tmp_path))
        monkeypatch.setattr(compile_run, "environment", lambda folder: env)
        monkeypatch.setattr(compile_run, "CHILD", "fake_compile_child")
        options = dict(image_size=(), full=False) | options
        return compile_run.compile_in_child(tiny.get_config(), parse_topology("v5e:2x2"), **options)

    return run


def test_a_child_is_ended_once_its_program_is_there(child):
    found = child(
        f"""
(folder / "{FACTS}").write_text('{{"devices": 4}}')
for name in ("_after_buffer_assignment", "-buffer-assignment"):
    (folder / f"module_0001.{STEP}.x.after_optimizations{{name}}.txt").write_text(name + "}}")
time.sleep(600)
"""
    )
    assert found.facts == {"devices": 4} and found.seconds < 60 and not found.refused
    assert (found.program, found.buffers) == ("_after_buffer_assignment}", "-buffer-assignment}")


def test_mistakes_and_failures_of_a_child_are_a_line(child):
    with pytest.raises(UserError, match="^batch of 7$"):
        child("print('batch of 7'); sys.exit(2)")
    with pytest.raises(UserError, match="the compiler failed: ValueError: mosaic"):
        child("print('0x12', file=sys.stderr); raise ValueError('mosaic')")
    found = child(
        f"(folder / '{FACTS}').write_text('{{}}'); print('RESOURCE_EXHAUSTED'); "
        f"sys.exit({OUT_OF_MEMORY})"
    )
    assert found.refused == "RESOURCE_EXHAUSTED"
    with pytest.raises(
        UserError, match="^the compiler wrote no program, or XLA's dump has unexpected"
    ):
        child(f"(folder / '{FACTS}').write_text('{{}}'); (folder / 'module.x.txt').touch()")


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command with a canned dump; its code and what it prints."""

    def run(*arguments, name="v5e_data", **changes):
        def compile_in_child(config, topology, **options):
            if config.data.batch_size == 7:
                raise UserError("7 is not divisible")
            return dump(name, **changes)

        monkeypatch.setattr(bench_compile, "compile_in_child", compile_in_child)
        with pytest.raises(SystemExit) as end:
            cli.main(["bench", "compile", *arguments])
        return end.value.code, capsys.readouterr()

    return run


def test_the_command_prints_and_writes_what_it_found(command, tmp_path):
    path = tmp_path / "found" / "one.json"
    code, said = command("--config", "mae:B/16", "--topology", "v5e:2x2", "--out", str(path))
    assert code == 0 and "traffic of main memory" in said.out
    assert json.loads(path.read_text())["fits"]
    code, said = command(
        "--config", "mae:B/16", "--topology", "v5e:2x2", refused="hbm is full", program=""
    )
    assert code == 1 and "mae:B/16 on v5e:2x2: it does not fit: hbm is full" in said.err


def test_several_configs_and_topologies_are_a_table(command, tmp_path):
    path = tmp_path / "table.md"
    both = ("--config", "mae:B/16", "--config", "mae:L/16,fsdp", "--topology", "v5e:2x2,v6e:4x4")
    code, said = command(*both, "--out", str(path))
    lines = path.read_text().splitlines()
    assert code == 0 and len(lines) == 6
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| mae:B/16 | v5e:2x2 | data 4 x fsdp 1 | 2 | 0.01 | 0 | 0.0 |")
    assert lines[5].startswith("| mae:L/16,fsdp | v6e:4x4 |")
    code, said = command(*both, "--config.data.batch_size=7", "--out", str(path))
    assert code == 1 and "mae:B/16 on v6e:4x4: 7 is not divisible" in said.err
    assert path.read_text().count("7 is not divisible") == 4


def test_mistakes_are_a_line_and_code_2(command):
    one = ("--config", "mae:B/16", "--topology", "v5e:2x2")
    assert command(*one, "--config.data.batch_size=7")[0] == 2
    code, said = command(*one, "--out", "table.txt")
    assert code == 2 and "write FILE.json or FILE.md" in said.err
    code, said = command("--config", "mae:B/16", "--topology", "v5e")
    assert code == 2 and "KIND:SHAPE" in said.err


@pytest.mark.slow
@needs_libtpu
def test_a_small_step_for_a_tpu(monkeypatch):
    """The program of a real compiler, and its refusals."""
    monkeypatch.chdir(ROOT)
    config = tiny.get_config()
    config.data.batch_size = 16
    found = bench_compile.bench_compile(config, parse_topology("v5e:2x2"), image_size=[16])
    assert found["fits"] and not found["faults"] and found["devices"] == 4
    assert set(found["collectives"]) == {"all-reduce"}
    payload = found["collectives"]["all-reduce"]["payload"]
    assert payload == pytest.approx(found["parameter_bytes"], rel=0.01)
    with pytest.raises(UserError, match="16 is not divisible by 32 devices"):
        bench_compile.bench_compile(config, parse_topology("v5e:4x4", 2), image_size=[16])
    with pytest.raises(UserError, match="v5e:3x5"):
        bench_compile.bench_compile(config, parse_topology("v5e:3x5"), image_size=[16])


def test_the_facts_of_a_child(monkeypatch):
    monkeypatch.setattr(compile_child, "topology_devices", lambda arguments: jax.devices())
    config = tiny.get_config()
    config.compiler.cpu = "xla_cpu_enable_fast_math=true"
    task = dict(config=to_json(config), image_size=[16], topology={})
    lowered, facts = compile_child.lower(task)
    assert "stablehlo" in lowered.as_text() and facts["devices"] == jax.device_count()
    assert facts["compiler_options"] == {"xla_cpu_enable_fast_math": "True"}
    assert all(line.startswith("xla for ") for line in facts["attention"]) and facts["attention"]


def test_options_of_a_config_win():
    name = "xla_gpu_enable_triton_gemm"
    assert options_for("gpu", {name: "True", "xla_a": "1"}) == {name: "True", "xla_a": "1"}
    assert options_for("gpu", {}) == {name: "False"} and options_for("tpu", {}) == {}


def test_the_environment_of_a_child(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--mine")
    env = environment(tmp_path)
    assert env["XLA_FLAGS"].startswith(f"--mine --xla_dump_to={tmp_path} ")
    assert env["JAX_PLATFORMS"] == "cpu" and env["TPU_SKIP_MDS_QUERY"] == "1"
