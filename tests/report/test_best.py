"""What is bold in the tables of a report: the best of a column, baselines included."""

from mae_jax.report.comparison import Finished, accuracy_table

RAW = {"raw pixels": {"knn": 0.5, "nll": 1.0}, "random encoder": {"knn": 0.2, "nll": 3.0}}


def finished(row, column="frozen", seed="0", baselines=None, **own):
    """A finished run."""
    return Finished(row, column, seed, 1, (baselines or {}) | {row: own})


def column(table, number=1):
    """Row -> cell of a column."""
    return {line[0]: line[number] for line in table[1:]}


def test_no_method_is_best_where_a_baseline_is_better():
    runs = [finished("mae", baselines=RAW, knn=0.4, nll=1.5), finished("vae", knn=0.3, nll=2.0)]
    assert column(accuracy_table(runs)) == {
        "raw pixels": "**50.0**",
        "random encoder": "20.0",
        "mae": "40.0",
        "vae": "30.0",
    }
    assert column(accuracy_table(runs, further=True))["raw pixels"] == "**1.000**"  # less is better


def test_a_method_that_beats_the_baselines_is_bold_also_when_it_is_alone():
    runs = [finished("mae", baselines=RAW, knn=0.6)]
    assert column(accuracy_table(runs)) == {
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
    table = accuracy_table(runs)
    assert [row for row, cell in column(table).items() if "*" in cell] == ["raw pixels", "mae"]
    assert column(table, 2) == {
        "raw pixels": "",
        "random encoder": "",
        "mae": "**30.0**",
        "vae": "20.0",
    }


def test_a_row_without_a_number_hides_no_best():
    values = dict(vae=float("nan"), mae=0.4, moco=0.3)
    table = accuracy_table([finished(row, knn=value) for row, value in values.items()])
    assert column(table) == {"vae": "nan", "mae": "**40.0**", "moco": "30.0"}
    table = accuracy_table([finished(row, knn=float("nan")) for row in values])
    assert set(column(table).values()) == {"nan"}
