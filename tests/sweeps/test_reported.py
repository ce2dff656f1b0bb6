"""Reported results beside those of a sweep: pairs, spread and orderings worked out by hand."""

import json
import math

import pytest
from ml_collections import ConfigDict

from mae_jax.configs import ablations
from mae_jax.sweeps import reported
from mae_jax.sweeps.comparison import Finished
from mae_jax.types import Metric, UserError
from tests.helpers.commands import mistake, run

COMPARE = dict(value="linear", column="frozen", metric="logistic")
RATIOS = dict(
    name="Mask ratio",
    axis="mask ratio",
    key="method.args.mask_ratio",
    prefix="ratio ",
    relative=False,
    rows=[dict(x=0.5, linear=70.0), dict(x=0.75, linear=73.5), dict(x=0.9, linear=66.0)],
)
MASKS = dict(
    name="Masks",
    rows=[
        dict(row="base", linear=73.5),
        dict(row="block 75%", linear=63.9),
        dict(row="grid 75%", linear=66.0),
    ],
)
VALUES = {
    "base": (0.30, 0.32, 0.31),  # sample deviation 1 point
    "ratio 0.5": (0.25,),
    "ratio 0.9": (0.34,),
    "ratio 0.3": (0.20,),
    "block 75%": (0.30,),
    "fused": (0.9, 0.92, 0.91),
}
RATIO = {"ratio 0.5": 0.5, "ratio 0.9": 0.9, "ratio 0.3": 0.3}


@pytest.fixture
def swept():
    """Runs and their configs."""
    runs, configs = [], {}
    for row, values in VALUES.items():
        for seed, value in enumerate(values):
            metrics = {"logistic": Metric()}
            results = {"raw pixels": {"logistic": 0.1}, "mae": {"logistic": value}}
            one = dict(row=row, column="frozen", seed=str(seed), step=1)
            runs.append(Finished(**one, results=results, metrics=metrics))
            args = dict(mask_ratio=RATIO.get(row, 0.75))
            configs[runs[-1].name] = ConfigDict(dict(method=dict(args=args)))
    return runs, configs


def test_lines_of_a_table_by_name_and_by_value(swept):
    by_name = reported.pair(MASKS, *swept, COMPARE)
    assert [(p.label, p.reported, len(p.ours)) for p in by_name] == [
        ("base", 73.5, 3),
        ("block 75%", 63.9, 1),
        ("grid 75%", 66.0, 0),
    ]
    by_value = reported.pair(RATIOS, *swept, COMPARE)
    assert [(p.x, p.reported, list(p.ours)) for p in by_value] == [
        (0.3, None, [0.20]),
        (0.5, 70.0, [0.25]),
        (0.75, 73.5, [0.30, 0.32, 0.31]),
        (0.9, 66.0, [0.34]),
    ]
    relative = reported.pair(RATIOS | dict(relative=True), *swept, COMPARE)
    assert [p.x for p in relative if p.ours] == pytest.approx([0.4, 2 / 3, 1, 1.2])


def test_orderings_count_beyond_the_spread(swept):
    ratios, masks = (reported.pair(table, *swept, COMPARE) for table in (RATIOS, MASKS))
    error = reported.pooled([*ratios, *masks])
    assert error == pytest.approx(1.0)
    twice = reported.Pairing(label="ratio 0.9", reported=66.0, ours=(0.33, 0.37))
    # Squares of 2 and of 8; `base` is in both tables, and counts once.
    assert reported.pooled([*ratios, *masks, twice]) == pytest.approx(math.sqrt((2 + 8) / 3))
    both = [p for p in ratios if p.reported]
    # 25 and 31: certain, as reported. 34 and 31 exceed 2 sqrt(1 + 1/3) = 2.31; 34 and 25: certain.
    text = reported.agreement(both, error)
    assert text == (
        "Orderings of two rows: 1 the same, 0 within our spread, 2 reversed. Reversed: "
        "mask ratio 0.5 and mask ratio 0.9; mask ratio 0.75 and mask ratio 0.9."
    )
    masks = [p for p in masks if p.ours]
    assert "0 the same, 1 within our spread, 0 reversed" in reported.agreement(masks, error)
    assert reported.agreement(both, None).endswith("No row has several seeds, so none counts.")
    assert reported.pooled([p for p in ratios if len(p.ours) == 1]) is None


def test_the_section_of_a_report(swept, tmp_path):
    (tmp_path / "figures").mkdir()
    content = dict(source="A paper", compare=[COMPARE], tables=[RATIOS, MASKS])
    text = "\n\n".join(reported.section(content, *swept, tmp_path))
    assert "| mask ratio 0.75 | 73.5 | 31.0 ± 1.0 |" in text
    assert "| mask ratio 0.3 |  | 20.0 |" in text and "| grid 75% | 66.0 |  |" in text
    (picture,) = (tmp_path / "figures").iterdir()
    assert f"figures/{picture.name}" in text and "<svg" in picture.read_text()
    none = dict(COMPARE, column="finetuned")
    assert not reported.section(content | dict(compare=[none]), *swept, tmp_path)


def test_what_is_reported_has_rows_of_the_ablations():
    """Every name and key of the shipped file is one of its config at the paper's size."""
    paper, configs = reported.load("mae_paper"), ablations.get_configs("L/16")
    rows = {name.split("/")[0] for name in configs}
    columns = {name.split("/")[1] for name in configs}
    assert {one["column"] for one in paper["compare"]} - {"frozen"} <= columns
    for table in paper["tables"]:
        if "key" not in table:
            assert {row["row"] for row in table["rows"]} <= rows, table["name"]
            continue
        base, found = configs["base/pretrained/0"], set()
        for name, config in configs.items():
            if name.startswith((table["prefix"], "base/")) and "/pretrained/" in name:
                found.add(reported.value_at(config, table["key"]))
        scale = reported.value_at(base, table["key"]) if table["relative"] else 1
        assert sorted(found) == pytest.approx([row["x"] * scale for row in table["rows"]])
    assert all(math.isfinite(r.get("linear", 0)) for t in paper["tables"] for r in t["rows"])


def test_mistakes(tmp_path, capsys):
    with pytest.raises(UserError, match="--reported paper: choose mae_paper, or pass a JSON file"):
        reported.load("paper")
    (tmp_path / "own.json").write_text(json.dumps(dict(source="", compare=[], tables=[dict()])))
    with pytest.raises(UserError, match="docs/sweeps.md"):
        reported.load(str(tmp_path / "own.json"))
    (tmp_path / "results.jsonl").touch()
    said = mistake(capsys, "report", "--sweep", tmp_path, "--reported", "x")
    assert said.startswith("--reported x: choose mae_paper")


def test_a_report_with_and_without(tmp_path):
    line = dict(row="base", column="frozen", seed="0", step=1, results=dict(mae=dict(logistic=0.3)))
    other = line | dict(row="grid 75%", results=dict(mae=dict(logistic=0.2)))
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, (line, other))))
    assert run("report", "--sweep", tmp_path) == 0
    assert "Beside" not in (tmp_path / "report" / "report.md").read_text()
    assert run("report", "--sweep", tmp_path, "--reported", "mae_paper") == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| grid 75% | 66.0 | 20.0 |" in text and "so none counts" in text
