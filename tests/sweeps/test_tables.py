"""Tables of results: how declared metrics are shown, and that the best of a column is bold, also if
it is a baseline.
"""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from mae_jax.metrics import BEFORE
from mae_jax.sweeps import progress
from mae_jax.sweeps.comparison import Finished, comparison_table, declared
from mae_jax.sweeps.experiments import WIDE, tabulate
from mae_jax.tables import heading, results_table, shown, spread
from mae_jax.types import Metric

RAW = {"raw pixels": {"knn": 0.5, "nll": 1.0}, "random encoder": {"knn": 0.2, "nll": 3.0}}


def finished(row, column="frozen", seed="0", baselines=None, **own):
    """A finished run."""
    results = (baselines or {}) | {row: own}
    return Finished(row=row, column=column, seed=seed, step=1, results=results)


def column(table, number=1):
    """Row -> cell of a column."""
    return {line[0]: line[number] for line in table[1:]}


def test_no_method_is_best_where_a_baseline_is_better():
    runs = [finished("mae", baselines=RAW, knn=0.4, nll=1.5), finished("vae", knn=0.3, nll=2.0)]
    assert column(comparison_table(runs)) == {
        "raw pixels": "**50.0**",
        "random encoder": "20.0",
        "mae": "40.0",
        "vae": "30.0",
    }
    assert column(comparison_table(runs, "further"))["raw pixels"] == "**1.000**"  # less is better


def test_curves_are_over_operations_where_all_runs_have_counted_them():
    lines = [{"step": step, "images_per_s": 5.0} for step in (2, 4)]
    known = replace(finished("mae"), step=4, batch_size=8, costs={"gflops_per_image": 500.0})
    known, other = (replace(run, lines=lines) for run in (known, finished("vae")))
    other = replace(other, batch_size=8)
    assert progress.teraflops(known, [0, 1, 4]) == [0, 4, 16]
    assert progress.axes([known]) == [*progress.AXES]
    assert progress.axes([known, other]) == ["examples seen", "minutes of training"]
    assert progress.axes([finished("mae")]) == []


def test_the_table_of_a_sweep_has_a_line_for_each_metric_if_there_are_many():
    runs = [finished("a|b", baselines={"raw": {"knn": 0.3}}, knn=0.4)]
    runs.append(finished("a|b", column="10%", top1=0.5))
    assert tabulate(runs) == [
        ["", "frozen: knn\xa0%", "10%: top1\xa0%"],
        ["a|b", "40.0", "50.0"],
        ["raw", "30.0", ""],
    ]
    runs += [finished("a|b", column=str(number), top1=0.5) for number in range(WIDE - 1)]
    assert tabulate(runs)[:2] == [
        ["", "metric", "frozen", "10%", *map(str, range(WIDE - 1))],
        ["a|b", "knn %", "40.0", *[""] * WIDE],
    ]


def test_a_method_that_beats_the_baselines_is_bold_also_when_it_is_alone():
    runs = [finished("mae", baselines=RAW, knn=0.6)]
    assert column(comparison_table(runs)) == {
        "raw pixels": "50.0",
        "random encoder": "20.0",
        "mae": "**60.0**",
    }


def test_ties_with_a_baseline_and_other_columns():
    runs = [
        finished("mae", baselines=RAW, knn=0.5001),
        finished("vae", knn=0.1),
        finished("mae", column="tuned", knn=0.3),  # no baselines under this condition
        finished("vae", column="tuned", knn=0.2),
    ]
    table = comparison_table(runs)
    assert [row for row, cell in column(table).items() if "*" in cell] == ["raw pixels", "mae"]
    assert column(table, 2) == {
        "raw pixels": "",
        "random encoder": "",
        "mae": "**30.0**",
        "vae": "20.0",
    }


def test_a_row_without_a_number_hides_no_best():
    values = dict(vae=float("nan"), mae=0.4, moco=0.3)
    table = comparison_table([finished(row, knn=value) for row, value in values.items()])
    assert column(table) == {"vae": "nan", "mae": "**40.0**", "moco": "30.0"}
    table = comparison_table([finished(row, knn=float("nan")) for row in values])
    assert set(column(table).values()) == {"nan"}


PSNR = Metric("dB", 2)


def test_a_new_metric_needs_only_its_declaration():
    own = {"mae": {"psnr": 23.401, "fid": 12.0}, "vae": {"psnr": 20.0, "fid": 9.25}}
    for lower, ranked, best in ((True, True, ["vae"]), (False, True, ["mae"]), (True, False, [])):
        fid = Metric("", 1, lower_is_better=lower, table="further", ranked=ranked)
        metrics = {"psnr": PSNR, "fid": fid}
        runs = [
            Finished(row=row, column="c", seed="0", step=1, results={row: values}, metrics=metrics)
            for row, values in own.items()
        ]
        assert comparison_table(runs) == [
            ["", "c: psnr\xa0dB"],
            ["mae", "**23.40**"],
            ["vae", "20.00"],
        ]
        further = comparison_table(runs, "further")
        assert further[0] == ["", "c: fid"]
        assert [row for row, cell in further[1:] if "*" in cell] == best


def test_declarations_decide_and_not_names():
    """'nll' of another evaluator may be anything; only results from before declarations are known
    by name.
    """
    run = finished("a", nll=0.5, val=0.5, **{"robustness/fog": 0.5})
    assert declared([run]) == {
        "nll": BEFORE["nll"],
        "val": Metric(table=""),
        "robustness/fog": Metric(table=""),
    }
    assert comparison_table([run], "further")[1] == ["a", "0.500"]
    assert comparison_table([run]) == []
    own = {"nll": PSNR, "val": Metric()}
    new = Finished(row="a", column="c", seed="0", step=1, results=run.results, metrics=own)
    assert declared([new]) == own | {"robustness/fog": Metric()}
    assert comparison_table([new])[1] == ["a", "0.50", "50.0", "50.0"]


@pytest.mark.parametrize(
    ("metric", "title", "cell", "several"),
    [
        (Metric(), "x %", "50.0", "60.0 ± 14.1"),
        (Metric(decimals=2), "x %", "50.00", "60.00 ± 14.14"),
        (Metric("dB", 2), "x dB", "0.50", "0.60 ± 0.14"),
        (Metric("", 0), "x", "0", "1 ± 0"),
    ],
)
def test_units_and_decimals(metric, title, cell, several):
    assert heading("x", metric) == title and shown(metric, 0.5) == cell
    assert spread(metric, [0.5, 0.7]) == several and spread(metric, []) == ""


@pytest.mark.parametrize("more", [0, 6])
def test_the_table_of_a_run_has_a_dash_where_a_metric_is_missing(more):
    results = {
        "raw pixels": {"knn": 0.25},
        "mae": {"psnr": 23.4, "knn": 0.5} | {f"m{n}": 0.125 for n in range(more)},
    }
    file = io.StringIO()
    metrics = {"psnr": PSNR, "knn": Metric()} | {f"m{n}": Metric() for n in range(more)}
    Console(file=file, width=120).print(results_table(results, metrics, "after 3 steps"))
    said = file.getvalue()
    cells = {w[0]: w[1:] for line in said.splitlines() if (w := line.replace("│", "").split())}
    if more:
        assert cells["psnr"] == ["dB", "–", "23.40"] and cells["m5"] == ["%", "–", "12.5"]
    else:
        assert cells["raw"] == ["pixels", "25.0", "–"] and cells["mae"] == ["50.0", "23.40"]
    assert "after 3 steps" in said
