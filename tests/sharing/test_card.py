"""Model cards: everything in them is what the workdir records, and the hub can read them."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from mae_jax import weights
from mae_jax.sharing.card import FILL_IN, card, pipeline_tag, write_card
from mae_jax.sharing.facts import read_facts
from mae_jax.sharing.loading import fitted, loading, timm_args
from mae_jax.weights import Model
from tests.helpers.commands import mistake, run
from tests.weights import models


@pytest.fixture(scope="module")
def facts(runs):
    """Name of a run -> its facts."""
    return {name: read_facts(workdir) for name, workdir in runs.items()}


@pytest.fixture(scope="module")
def cards(facts):
    """Name of a run -> its card."""
    return {
        name: card(found, where=str(found.folder), layout=None, figures=["figures/curves.png"])
        for name, found in facts.items()
    }


def rows(text):
    """First cell -> second cell, of all tables."""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]
    return {row[0].strip().strip("`"): row[1].strip() for row in cells}


@pytest.mark.parametrize("name", ["mae", "finetune"])
def test_the_hub_reads_the_front_matter(name, runs, cards):
    hub = pytest.importorskip("huggingface_hub")
    recorded = json.loads((runs[name] / "results.json").read_text())
    data = hub.ModelCard(cards[name]).data
    tags = {"mae": "image-feature-extraction", "finetune": "image-classification"}
    assert data.library_name == "mae_jax" and data.pipeline_tag == tags[name]
    assert data.license == "unknown" and data.datasets == [] and name in data.tags
    own = [*recorded["results"].values()][-1]
    unit = {"nll": 1}
    expected = {metric: value * unit.get(metric, 100) for metric, value in own.items()}
    if "top1" in expected:
        expected["accuracy"] = expected.pop("top1")
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == pytest.approx(expected, abs=1e-3) and found
    assert {result.dataset_name for result in data.eval_results} == {
        "fashion_scenes(split=test, size=16, num_examples=12)"
    }


@pytest.mark.parametrize("name", ["mae", "finetune"])
def test_its_numbers_are_those_of_the_workdir(name, runs, cards):
    text = cards[name]
    config = json.loads((runs[name] / "config.json").read_text())
    costs = json.loads((runs[name] / "costs.json").read_text())
    step, batch = json.loads((runs[name] / "results.json").read_text())["step"], 8
    assert f"- {step} steps of a batch of {batch}\n" in text
    assert f"- {step * batch} training examples seen, {step * batch / 32:g} epochs of 32\n" in text
    flops = float(re.search(r"- (\S+) FLOPs:", text)[1])
    assert flops == pytest.approx(costs["gflops_per_image"] * step * batch * 1e9, rel=1e-2)
    found = rows(text)
    assert found["image size"] == "8 x 12" and found["channels"] == "3"
    assert found["mean of pixels in [0, 1]"] == "0.485, 0.456, 0.406"
    total = sum(array.size for array in weights.read(runs[name])[0].params.values())
    assert found["parameters"].startswith(f"{total:,}, {costs['encoder_parameters']:,} of them")
    shown = found["data.train_transform"].replace("\\|", "|").strip("`")
    assert shown == config["data"]["train_transform"]
    assert float(found["schedule.base_lr"].strip("`")) == config["schedule"]["base_lr"]
    assert found["train"] == "`fashion_scenes(split=train, size=16, num_examples=32)`"
    left_out = ("log.", "checkpoint.", "mesh.", "fingerprints", "data.workers", "evals.")
    assert not [key for key in found if key.startswith(left_out)]
    assert "`results_other.json`: other images" in text and "results_earlier" not in text
    assert ", 12 examples." in text and "in-domain: both splits are of `fashion_scenes`" in text
    assert "![curves](figures/curves.png)" in text and text.count(FILL_IN) >= 4


def test_baselines_are_beside(cards, runs):
    results = json.loads((runs["mae"] / "results.json").read_text())["results"]
    first = cards["mae"].partition("## Results")[2]
    for name, values in results.items():
        shown = " | ".join(f"{100 * value:.1f}" for value in values.values())
        assert f"| {name} | {shown} |" in first
    assert "the baselines beside it: raw pixels, random encoder." in cards["mae"]
    assert "Lower is better: ece, nll." in cards["finetune"]


def test_the_lines_that_load_it_run(runs, cards, at, tmp_path):
    at(tmp_path)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save("image.png")
    for name in runs:
        block, scope = (
            re.search(r"^```python\n(import mae_jax.*?)^```", cards[name], re.M | re.S),
            {},
        )
        exec(block[1], scope)
        if name == "mae":
            assert scope["features"].shape == (1, 16)
        else:
            assert scope["found"]["probability"].shape == (1, 10)


def test_other_packages_where_they_can_hold_it(facts, cards):
    assert "ViTMAEForPreTraining.from_pretrained('exported')" in cards["mae"]
    assert "BeitForImageClassification" not in cards["finetune"], "its images are not square"
    assert "With transformers: not possible. Transformers' BEiT" in cards["finetune"]
    assert "--format timm --out exported.safetensors" in cards["finetune"]
    text = "\n".join(loading(facts["mae"], "out", "hf"))
    assert "from_pretrained('out')" in text and "load_file('exported.safetensors')" in text
    args = dict(encoder="convnext(widths=(8, 16), depths=(1, 1), stem=2, kernel=3)", mean=(0.5,))
    other = facts["mae"]._replace(model=Model({}, "fcmae", args, (32, 32, 3)))
    text = "\n".join(loading(other, "run", None))
    assert text.count("not possible. Convnext(") == 3 and "hold only vision transformers" in text
    target = facts["mae"].model.args | {"target": "hog"}
    other = facts["mae"]._replace(model=facts["mae"].model._replace(args=target))
    assert "transformers (the encoder only)" in "\n".join(loading(other, "run", None))


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (models.mae(depth=1), dict(num_classes=0, global_pool="token", img_size=[32, 32])),
        (models.tuned("cls"), dict(num_classes=7, global_pool="token", patch_size=8)),
        (models.tuned("mean"), dict(num_classes=7, global_pool="avg", img_size=[24, 16])),
    ],
)
def test_timm_is_built_with_the_shapes_of_the_arrays(model, changes):
    made, part = fitted(model, "timm")
    args = timm_args(model, made)
    assert {name: args[name] for name in changes} == changes and not part
    height, width = args["img_size"]
    patches = height * width // args["patch_size"] ** 2
    assert made.arrays["pos_embed"].shape == (1, 1 + patches, args["embed_dim"])
    assert f"blocks.{args['depth'] - 1}.norm1.weight" in made.arrays
    assert f"blocks.{args['depth']}.norm1.weight" not in made.arrays


def test_tags_of_what_is_no_image(facts):
    volume = facts["mae"].model._replace(image=(8, 8, 8, 1))
    assert pipeline_tag(facts["mae"]._replace(model=volume)) is None


def test_two_folders_are_not_called_one_domain(facts):
    found = facts["mae"]
    config = found.config.copy_and_resolve_references()
    config.data.update(train="folder('a/train')", test="folder('a/val')")
    text = card(found._replace(config=config), where="x", layout=None, figures=[])
    assert "in-domain" not in text and "All results of the run are on `folder('a/val')`" in text


def test_imported_weights_claim_no_training(tmp_path):
    weights.write_run(models.mae(depth=1), tmp_path / "imported")
    out = write_card(read_facts(tmp_path / "imported"), tmp_path / "card.md", where="x")
    text = out.read_text()
    assert "records nothing of their training" in text and "No evaluation of these" in text
    for claim in ("## Recipe", "## Data", "steps of a batch", "model-index", "in-domain"):
        assert claim not in text, claim


def test_the_command(runs, tmp_path, capsys):
    out = tmp_path / "cards" / "mine.md"
    assert run("card", "--run", runs["mae"], "--out", out) == 0
    (link,) = re.findall(r"!\[curves\]\((.*?)\)", out.read_text())
    assert (out.parent / link).is_file() and FILL_IN in capsys.readouterr().out
    line = mistake(capsys, "card", "--run", runs["mae"], "--out", out)
    assert line.endswith("mine.md already exists: remove it, or choose another --out")
    assert "is not a run" in mistake(capsys, "card", "--run", tmp_path)


def test_an_export_has_a_card_beside_it(runs, tmp_path, capsys):
    out = tmp_path / "exported"
    assert run("weights", "export", "--run", runs["mae"], "--format", "hf", "--out", out) == 0
    text = (out / "README.md").read_text()
    assert "library_name: transformers" in text and f"from_pretrained('{out}')" in text
    assert (out / "figures" / "curves.png").is_file() and "](figures/curves.png)" in text
    file = tmp_path / "alone" / "model.safetensors"
    export = ["weights", "export", "--run", runs["mae"], "--format", "timm", "--out"]
    assert run(*export, file) == 0
    assert "library_name: mae_jax" in (file.parent / "README.md").read_text()
    (file.parent / "README.md").write_text("mine")
    assert run(*export, file.with_name("other.safetensors")) == 0
    assert (file.parent / "README.md").read_text() == "mine"
    capsys.readouterr()
    assert run(*export, tmp_path / "beside.safetensors") == 0
    assert not (tmp_path / "README.md").exists()
    said = capsys.readouterr().out
    assert f"mae-jax card --run {runs['mae']} --out {tmp_path / 'beside.md'}" in said
