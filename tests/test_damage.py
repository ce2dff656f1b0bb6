"""Damaged files in a workdir: what is whole is kept, nothing is lost, one line says what to do."""

import json

import pytest
from ml_collections import ConfigDict

from mae_jax import evaluate
from mae_jax.sweeps import experiments, report
from mae_jax.types import Metric, UserError
from mae_jax.workdir import read_config, read_results
from tests.helpers.commands import mistake

DAMAGE = [b"", b"{", b"\x80\xff", b"\0\0\0\0", b"[]", b"null", b'{"step": 4}', b"[" * 100_000]
KINDS = ["empty", "cut", "no UTF-8", "zeros", "a list", "null", "incomplete", "deep"]
RESULTS = {"mae": {"knn": 0.25}}


@pytest.mark.parametrize("content", DAMAGE, ids=KINDS)
def test_damaged_results_are_set_aside_and_written_anew(tmp_path, caplog, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path} is damaged .*: mae-jax evaluate writes a new one"):
        read_results(path)
    evaluate.write_results(path, 40, RESULTS, [], ended_by="knn")
    found = {"step": 40, "results": RESULTS, "final": RESULTS, "evaluators": "knn"}
    assert found.items() <= read_results(path).items()
    assert (tmp_path / "results.damaged-0.json").read_bytes() == content
    assert "it is set aside as results.damaged-0.json" in caplog.text


def test_results_that_are_whole_are_added_to(tmp_path, caplog):
    path = tmp_path / "results.json"
    evaluate.write_results(path, 40, RESULTS, [], ended_by="knn")
    evaluate.write_results(path, 40, {"mae": {"logistic": 1}, "raw pixels": {"knn": 0.5}}, [])
    assert read_results(path)["results"] == {
        "mae": {"knn": 0.25, "logistic": 1},
        "raw pixels": {"knn": 0.5},
    }
    assert not caplog.records


@pytest.mark.parametrize("content", DAMAGE, ids=KINDS)
def test_a_run_of_a_sweep_with_damaged_results_is_evaluated_again(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    assert not experiments.finished(tmp_path, ConfigDict())


@pytest.mark.parametrize("content", DAMAGE, ids=KINDS)
def test_a_damaged_config_says_how_to_get_it_back(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config.json is damaged \(.*\); to restore it, start"):
        read_config(tmp_path)


@pytest.mark.parametrize("content", DAMAGE[:-1], ids=KINDS[:-1])
def test_a_damaged_origin_is_not_taken_for_another_one(root, tmp_path, capsys, content):
    command = "sweep", "--config", "tests/helpers/tiny_sweep.py", "--workdir", tmp_path, "--list"
    folder = tmp_path / "mae/small/0"
    folder.mkdir(parents=True)
    (folder / "origin.json").write_bytes(content)
    line = mistake(capsys, *command, "--config.init_from.path=tests")
    assert line.startswith(f"{folder}/origin.json is damaged (")
    assert line.endswith("remove it to start from the current weights, or use another --workdir")


@pytest.mark.parametrize(
    "metrics", [[], {"knn": 3}, {"knn": {"unit": 3}}, {"knn": {"decimals": True}}], ids=str
)
def test_damaged_declarations_are_damage(tmp_path, metrics):
    path = tmp_path / "results.json"
    content = {"step": 4, "results": RESULTS, "final": None}
    path.write_text(json.dumps(content | {"metrics": metrics}))
    with pytest.raises(UserError, match="is damaged"):
        read_results(path)


def test_declarations_are_read_and_may_be_missing_or_from_a_newer_version(tmp_path):
    path = tmp_path / "results.json"
    content = {"step": 4, "results": RESULTS, "final": None}
    path.write_text(json.dumps(content))
    assert read_results(path)["metrics"] == {"knn": Metric()}
    metrics = {"knn": Metric("dB", 2)._asdict() | {"color": "red"}, "x": {}}
    path.write_text(json.dumps(content | {"metrics": metrics}))
    assert read_results(path)["metrics"] == {"knn": Metric("dB", 2)}


LINE = {"row": "mae", "column": "a", "seed": "0", "step": 4, "results": RESULTS}
OTHERS = ["{", "[]", "null", "{}", '{"row": "a"}', json.dumps(LINE | {"results": {"mae": 3}})]


@pytest.mark.parametrize("line", [*OTHERS, "\x80", json.dumps(LINE | {"results": {}})])
def test_a_damaged_line_of_a_sweeps_results_is_named(tmp_path, capsys, line):
    path = tmp_path / "results.jsonl"
    path.write_bytes(f"{json.dumps(LINE)}\n\n{line}\n".encode("latin-1"))
    said = mistake(capsys, "report", "--sweep", tmp_path)
    assert said.startswith(f"line 3 of {path} is damaged (")
    assert said.endswith("run `mae-jax sweep` again to rewrite it")


@pytest.mark.parametrize("content", DAMAGE, ids=KINDS)
def test_a_report_is_without_damaged_costs_and_names(tmp_path, caplog, content):
    (tmp_path / "results.jsonl").write_text(json.dumps(LINE))
    folder = tmp_path / "mae/a/0"
    folder.mkdir(parents=True)
    config = {"data": {"batch_size": 1}, "method": {"name": "mae"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "costs.json").write_bytes(content)
    (folder / "metrics.jsonl").write_bytes(b'\0{"step": 4, "loss": 1.5}\n' + content + b"\n")
    (run,), _ = report.read_runs(tmp_path)
    assert run.costs == {} and "costs.json is damaged" in caplog.text
    assert run.lines == [{"step": 4, "loss": 1.5}] or content == b'{"step": 4}'
    if content != b"[]":
        (tmp_path / "experiments.json").write_bytes(content)
        with pytest.raises(UserError, match="experiments.json is damaged"):
            report.missing([run], tmp_path)
