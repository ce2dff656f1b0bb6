"""Reports of sweeps: their numbers against ones worked out by hand, and pages that need nothing."""

import base64
import io
import json
import re
import shutil
from xml.etree import ElementTree

import pytest
from PIL import Image

from mae_jax import cli
from mae_jax.config import from_json
from mae_jax.sweeps.comparison import Finished, comparison_table
from mae_jax.sweeps.page import page
from mae_jax.sweeps.progress import examples, minutes, over_seeds
from mae_jax.sweeps.report import described
from mae_jax.types import Metric, UserError
from tests.helpers import commands

BASELINES = {
    "mae": {},
    "simclr": {"raw pixels": {"knn": 0.25}, "random encoder": {"knn": 0.125}},
    "a|b": {"raw pixels": {"knn": 0.5}, "random encoder": {"knn": 0.5}},
}

# A row's k-NN accuracies of two seeds, its images/s of three log lines, its arguments.
ROWS = {
    "mae": ((0.5, 0.52), (50.0, 200.0, 100.0), {"mask_ratio": 0.75, "dtype": "float32"}),
    "simclr": ((0.5102, 0.51), (100.0, 100.0, 100.0), {"temperature": 0.1, "dtype": "float32"}),
    "a|b": ((0.4, 0.3), (25.0, 25.0, 25.0), {"dtype": "bfloat16"}),
}


def make_run(
    workdir, name, results, speeds=(), accuracies=(), costs=None, method=("mae", {}), metrics=None
):
    """Writes the workdir of a run of 20 steps of 10 images, and returns its line of the results."""
    folder = workdir / name
    (folder / "figures").mkdir(parents=True)
    row, column, seed = name.split("/")
    config = {
        "data": {"batch_size": 10, "workers": 0},
        "method": {"name": method[0], "args": method[1]},
        "seed": int(seed),
    }
    (folder / "config.json").write_text(json.dumps(config))
    lines = [
        {"step": step, "loss": 20 / step, "lr": 0.1, "images_per_s": speed}
        for step, speed in zip((10, 16, 20), speeds)
    ]
    lines += [{"step": 10 * n, "eval/knn": value} for n, value in enumerate(accuracies)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if costs:
        (folder / "costs.json").write_text(json.dumps(costs))
    line = dict(row=row, column=column, seed=seed, step=20, results=results)
    return json.dumps(line | ({"metrics": metrics} if metrics else {})) + "\n"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The workdir of a sweep without training: three rows, two columns, two seeds."""
    workdir = tmp_path_factory.mktemp("sweep")
    lines, names = "", []
    for seed in (0, 1):
        for row, (knn, speeds, arguments) in ROWS.items():
            own = {"knn": knn[seed], "head": 3.0, "robustness/fog": 0.4}
            lines += make_run(
                workdir,
                f"{row}/pretrain/{seed}",
                BASELINES[row] | {"method": own},
                speeds=speeds,
                accuracies=(0.1, knn[seed]),
                costs={
                    "parameters": 2_500_000,
                    "encoder_parameters": 1_250_000,
                    "gflops_per_image": 12.34,
                    "step_megabytes": 1234.5,
                    "device": "TPU v4 x 8",
                    "jax": "0.10.2",
                }
                if row == "mae"
                else None,
                method=(row, arguments),
            )
        for row, nll in (("mae", 1.25), ("simclr", 1.5), ("tuned", 1.75)):
            names.append(f"{row}/10%/{seed}")
            if (row, seed) != ("simclr", 1):
                results = {"tasks.finetune": {"top1": 0.75, "nll": nll}}
                lines += make_run(workdir, f"{row}/10%/{seed}", results, speeds=(50.0, 50.0, 50.0))
    for name in ("mae/pretrain/1", "a|b/pretrain/0", "a|b/pretrain/1"):
        Image.new("RGB", (8, 8)).save(workdir / name / "figures/reconstructions.png")
    Image.new("RGB", (8, 8)).save(workdir / "mae/pretrain/0/figures/curves.png")
    Image.new("RGB", (8, 8)).save(workdir / "a|b/pretrain/0/figures/attention.png")
    (workdir / "results.jsonl").write_text(lines)
    (workdir / "experiments.json").write_text(json.dumps(names))
    return workdir


def run(capsys, *arguments):
    """Exit code and what is said by `mae-jax report`."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", *map(str, arguments)])
    said = capsys.readouterr()
    return exit_.value.code, said.out + said.err


@pytest.fixture(scope="module")
def reported(swept, tmp_path_factory):
    """Markdown and HTML of it."""
    folder = tmp_path_factory.mktemp("reported")
    notes, out = folder / "notes.md", folder / "out"
    notes.write_text("## What it says\n\n<script>alert(1)</script> *Little*.\n")
    options = "--sweep", swept, "--out", out, "--notes", notes, "--title", "A < B"
    assert commands.run("report", *options) == 0
    return tuple((out / f"report.{end}").read_text() for end in ("md", "html"))


def table(text, number):
    """Cells of a table of the Markdown: row -> column -> text."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    head, _, *body = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in blocks[number].splitlines()
    ]
    return {cells[0]: dict(zip(head[1:], cells[1:], strict=True)) for cells in body}


def test_results_are_means_and_sample_deviations(reported):
    accuracies, further = (table(reported[0], number) for number in (0, 1))
    knn = {row: cells["pretrain: knn\xa0%"] for row, cells in accuracies.items()}
    assert knn == {
        "raw pixels": "25.0 ± 0.0",
        "random encoder": "12.5 ± 0.0",
        "mae": "**51.0 ± 1.4**",  # 0.02 / sqrt(2)
        "simclr": "**51.0 ± 0.0**",  # 51.01: the same as shown
        "a\\|b": "35.0 ± 7.1",
        "tuned": "",
    }
    assert list(accuracies["mae"]) == ["pretrain: knn\xa0%", "10%: top1\xa0%"]
    assert [accuracies[row]["10%: top1\xa0%"] for row in ("raw pixels", "mae", "simclr")] == [
        "",
        "**75.0 ± 0.0**",
        "**75.0**",
    ]
    assert further == {  # less is better, and rows without any value are left out
        "mae": {"10%: nll\xa0nats": "**1.250 ± 0.000**"},
        "simclr": {"10%: nll\xa0nats": "1.500"},
        "tuned": {"10%: nll\xa0nats": "1.750 ± 0.000"},
    }
    assert "raw pixels and random encoder are of `simclr/pretrain`" in reported[0]


def test_costs_are_summed_from_the_log(reported):
    costs = table(reported[0], 2)
    assert costs["mae"] == {
        "training, minutes": "0.045",  # 100 / 50 + 60 / 200 + 40 / 100 = 2.7 s
        "images/s": "100",
        "GFLOPs per image": "12.3",
        "memory of a step, MB": "1,234",
        "parameters, M": "2.5",
        "of the encoder, M": "1.25",
        "examples seen": "200",
        "TFLOPs of training": "2.47",  # 12.34 x 200 / 1000
    }
    assert costs["a\\|b"]["training, minutes"] == "0.133"  # 200 / 25 = 8 s
    assert costs["simclr"]["GFLOPs per image"] == "" and "TPU v4 x 8; jax 0.10.2" in reported[0]


def test_parts_stand_in_their_order_and_missing_runs_are_named(reported):
    text = reported[0]
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    expected = ["A \\< B", "What it says", "Results", "Cost", "Curves under pretrain"]
    assert headings == [*expected, "Figures", "Settings"]
    assert "**Without a result:** `simclr/10%/1`." in text
    linked = re.findall(r"!\[.+?\]\((.+?)\)", text)
    assert linked == [
        "figures/knn_examples.svg",
        "figures/knn_minutes.svg",
        "figures/losses.svg",
        "figures/reconstructions_1_mae.png",
        "figures/attention_3_a_b.png",
        "figures/reconstructions_3_a_b.png",
    ]
    assert "\n`mae/pretrain/1`:" in text and "\n`a|b/pretrain/0`:" in text  # the first that have
    assert "- `simclr/pretrain/0`, unlike `mae/pretrain/0`: `simclr(temperature=0.1)`" in text
    assert "- `mae/10%/0`, unlike `mae/pretrain/0`:" in text and "workers" not in text
    assert "- `tuned/10%/0`, unlike `mae/10%/0`: the same" in text


def test_the_page_needs_nothing_else(reported):
    text = reported[1]
    assert "<title>A &lt; B</title>" in text and "&lt;script&gt;" in text
    assert not re.search(r"<(script|iframe|link(?! rel=\"icon\" href=\"data:))", text)
    assert not re.search(r"(src|href|srcset|action)=(?![\"']data:)|url\(|@import", text)
    pictures = re.findall(r"<img src=\"data:image/(.+?);base64,(.+?)\" alt=\"(.+?)\"", text)
    assert len(pictures) == text.count("<img") == 6
    for kind, data, _ in pictures:
        data = base64.b64decode(data, validate=True)
        if kind == "png":
            assert Image.open(io.BytesIO(data)).size == (8, 8)
        else:
            assert ElementTree.fromstring(data).tag.endswith("svg")
    assert text.count('<div class="scroll" tabindex="0"><table>') == 3 == text.count("<table>")


def test_links_stay_and_pictures_from_elsewhere_are_refused(tmp_path):
    assert '<a href="https://jax.dev">' in page("[jax](https://jax.dev)", tmp_path, "")
    with pytest.raises(UserError, match="https://jax.dev/logo.png"):
        page("![jax](https://jax.dev/logo.png)", tmp_path, "")


def test_a_run_whose_folder_is_gone_is_in_the_first_table_only(swept, tmp_path, capsys):
    (tmp_path / "results.jsonl").write_text((swept / "results.jsonl").read_text().split("\n")[0])
    code, said = run(capsys, "--sweep", tmp_path)
    assert code == 0 and f"{tmp_path / 'report/report.html'}" in " ".join(said.split())
    text = (tmp_path / "report/report.md").read_text()
    assert "| mae | 50.0 |" in text
    assert re.findall("^## (.*)", text, re.MULTILINE) == ["Results"] and "Without" not in text


def test_one_seed_without_evaluations_and_pictures(swept, tmp_path, capsys):
    shutil.copytree(swept / "mae/10%/0", tmp_path / "mae/10%/0")
    lines = (swept / "results.jsonl").read_text().splitlines()
    (tmp_path / "results.jsonl").write_text(next(line for line in lines if "10%" in line))
    assert run(capsys, "--sweep", tmp_path)[0] == 0
    text = (tmp_path / "report/report.md").read_text()
    assert "75.0" in text and "±" not in re.sub("Mean ±", "", text) and "losses.svg" in text
    assert "knn" not in text and "## Figures" not in text


A, TOP1 = {"row": "a", "column": "c"}, {"x": {"top1": 0.5}}


def test_curves_are_means_at_the_steps_that_all_seeds_have():
    timed = [{"step": 10, "images_per_s": 50.0}, {"step": 20, "images_per_s": 100.0}]
    fast = [{"step": 10, "images_per_s": 100.0}, {"step": 20, "images_per_s": 200.0}]
    evaluated = [{"step": step, "eval/top1": step / 100} for step in (0, 5, 15)]
    runs = [
        Finished(**A, seed=seed, step=20, results=TOP1, lines=lines, batch_size=30)
        for seed, lines in (("0", timed + evaluated), ("1", fast + evaluated[::2]))
    ]
    x, values = over_seeds(runs, "top1", minutes)
    # 300 / 50 + 150 / 100 s and half of that; at the end what the results say.
    assert x * 60 == pytest.approx([0, 0.75 * 7.5, 0.75 * 9])
    assert values.tolist() == [[0, 0], [0.15, 0.15], [0.5, 0.5]]
    assert over_seeds(runs, "top1", examples)[0].tolist() == [0, 450, 600]
    assert over_seeds(runs, "knn", examples)[0].size == 0


def test_a_sweep_by_a_new_metric(tmp_path, capsys):
    """Its unit, and which end is better, come from its declaration, also in the curves."""
    metrics = {"psnr": Metric("dB", 2), "fid": Metric("", lower_is_better=True)}
    declared = {name: metric._asdict() for name, metric in metrics.items()}
    text = ""
    for row, psnr, fid in (("mae", 23.4, 9.0), ("vae", 20.0, 8.0)):
        results = {row: {"psnr": psnr, "fid": fid}}
        text += make_run(tmp_path, f"{row}/c/0", results, (50.0, 50.0, 50.0), metrics=declared)
        lines = [{"step": n, "eval/psnr": n * 0.5, "eval/fid": 10 - n * 0.1} for n in (5, 10)]
        with (tmp_path / row / "c/0/metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "results.jsonl").write_text(text)
    assert run(capsys, "--sweep", tmp_path)[0] == 0
    report = (tmp_path / "report/report.md").read_text()
    assert table(report, 0) == {
        "mae": {"c: psnr\xa0dB": "**23.40**", "c: fid": "9.0"},
        "vae": {"c: psnr\xa0dB": "20.00", "c: fid": "**8.0**"},
    }
    assert "baselines included; of fid that is the lowest." in report
    drawn = []
    for name in ("psnr", "fid"):
        svg = (tmp_path / f"report/figures/{name}_examples.svg").read_text()
        drawn += [re.findall("<!-- (.*?) -->", svg)]
    psnr, fid = drawn
    assert "psnr dB, held-out images" in psnr and "fid, held-out images" in fid
    assert psnr.index("mae") < psnr.index("vae") and fid.index("vae") < fid.index("mae")
    assert "20" in psnr and "2000" not in psnr  # no share


def test_best_is_told_only_among_several():
    runs = [Finished(**A, seed="0", step=1, results=TOP1)]
    assert comparison_table(runs) == [["", "c: top1\xa0%"], ["a", "50.0"]]
    assert comparison_table(runs, "further") == []


def test_a_change_is_told_by_its_key():
    old, new = (
        from_json(json.dumps({"method": {"name": "mae", "args": {"mask": mask}}, "seed": mask}))
        for mask in (1, 2)
    )
    assert described(old, new) == "`method.args.mask=2`"


def test_mistakes(swept, tmp_path, capsys):
    none = tmp_path / "none"
    code, said = run(capsys, "--sweep", tmp_path)
    assert code == 2 and "is not the workdir of a sweep: it has no results.jsonl" in said
    code, said = run(capsys, "--sweep", swept, "--notes", none)
    assert code == 2 and f"--notes {none}: no such file" in said
    (tmp_path / "results.jsonl").write_text("\n")
    code, said = run(capsys, "--sweep", tmp_path)
    assert code == 2 and "has finished" in said and not (tmp_path / "report").exists()
    assert said.count("\n") == 1
