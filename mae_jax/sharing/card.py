"""Model cards: a README.md with the front matter of the Hugging Face hub. All of it is read from
the run; what a run cannot know, such as a license, is marked to be filled in.
"""

import inspect
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mae_jax
from mae_jax.sharing.facts import Facts
from mae_jax.sharing.loading import loading
from mae_jax.spec import is_extension, maker, parse
from mae_jax.tables import heading, markdown, results_rows, scaled
from mae_jax.types import Metric
from mae_jax.weights import layouts

FILL_IN = "TO FILL IN"
"""Mark of what a run cannot know."""
TAGS = {
    "det_box": "object-detection",
    "segmentation": "image-segmentation",
    "logits": "image-classification",
    "head_logits": "image-classification",
    "multilabel_logits": "image-classification",
    "prediction": None,
    "features": "image-feature-extraction",
}
"""Output of a method -> pipeline_tag of the hub, the first one that a method offers; None: none
fits."""


CHOOSE = ("split", "num_examples", "seed")
"""Arguments of sources that choose some of the examples of a data set."""


def write_card(facts: Facts, out: Path, *, where: str, layout: str | None = None) -> Path:
    """Writes the model card of a run. Returns `out`.

    Args:
        out: file to write; links to figures are relative to it.
        where: how readers load the model, see `loading`.
        layout: layout of the weights at `where`; None: those of a run.
    """
    figures = [Path(os.path.relpath(path, out.parent)).as_posix() for path in facts.figures]
    out.parent.mkdir(parents=True, exist_ok=True)
    text = card(facts, where=where, layout=layout, figures=figures)
    out.write_text(text, encoding="utf-8")
    return out


def card(facts: Facts, *, where: str, layout: str | None, figures: Sequence[str]) -> str:
    """The text of a model card.

    Args:
        figures: relative links to pictures.
    """
    results = _results(facts)
    parts = [
        f"# {facts.name}",
        f"> **{FILL_IN}** before you publish this card: the license of the weights, the data sets "
        "and their licenses, the intended use. All else is read from the run.",
        "## Model",
        *_model(facts),
        *(["## Recipe", *_recipe(facts), "## Data", *_data(facts)] if not facts.imported else []),
        "## Results",
        *(results or ["No evaluation of these weights is recorded."]),
        *(
            ["## Curves and pictures", *(f"![{Path(f).stem}]({f})" for f in figures)]
            * bool(figures)
        ),
        "## Load the model",
        *loading(facts, where, layout),
        "## Known limits",
        _bullets(_limits(facts)),
        f"Written by mae_jax {mae_jax.__version__}.",
    ]
    return front_matter(facts, layout) + "\n\n".join(parts) + "\n"


def pipeline_tag(facts: Facts) -> str | None:
    """The task of the hub that fits a model; None: there is none."""
    shape, offers = facts.model.image, facts.method.offers()
    if "image" not in facts.method.inputs or (shape is not None and len(shape) != 3):
        return None
    return next((tag for output, tag in TAGS.items() if output in offers), None)


def front_matter(facts: Facts, layout: str | None) -> str:
    """The YAML between two lines of ---."""
    tag, quoted = pipeline_tag(facts), json.dumps  # a JSON text is YAML, too
    package = layouts.find(layout).package if layout in layouts.names() else ""
    library = package if package == "transformers" else "mae_jax"
    name = facts.model.method.rpartition(".")[2].replace("_", "-")
    tags = dict.fromkeys(["mae_jax", "jax", "flax", name])
    lines = [f"library_name: {library}", *([f"pipeline_tag: {tag}"] if tag else [])]
    lines += ["tags:", *(f"- {quoted(tag)}" for tag in tags)]
    lines += [
        f"license: unknown  # {FILL_IN}: the license of the weights, e.g. apache-2.0",
        f"datasets: []  # {FILL_IN}: ids on the hub of the data sets that it was trained on",
    ]
    record = facts.results.get("results.json")
    if tag and record:
        lines += _model_index(facts, record, tag)
    return "---\n" + "\n".join(lines) + "\n---\n\n"


def _model_index(facts: Facts, record: Mapping[str, Any], tag: str) -> list[str]:
    """The metrics of the model itself, in the form of the hub."""
    metrics, quoted = record["metrics"], json.dumps
    source = facts.config.data.test or facts.config.data.train
    lines = [
        "model-index:",
        f"- name: {quoted(facts.name)}",
        "  results:",
        f"  - task:\n      type: {tag}",
        f"    dataset:\n      type: unknown  # {FILL_IN}: id on the hub",
        f"      name: {quoted(source)}",
        "    metrics:",
    ]
    values = [*record["results"].values()][-1]
    for name, value in values.items():
        number = round(float(scaled(metrics[name], value)), metrics[name].decimals + 2)
        kind = {"top1": "accuracy"}.get(name, name)
        lines.append(f"    - type: {quoted(kind)}")
        lines.append(f"      name: {quoted(heading(name, metrics[name]))}\n      value: {number}")
    return lines


def _model(facts: Facts) -> list[str]:
    """What the model is."""
    model, args, costs = facts.model, facts.model.args, facts.costs
    rows: dict[str, Any] = {"method": f"`{model.method}`", "encoder": _code(args.get("encoder"))}
    if model.image is not None:
        *space, channels = model.image
        rows |= {"image size": " x ".join(map(str, space)), "channels": channels}
    for name, text in (("mean", "mean of pixels in [0, 1]"), ("std", "standard deviation")):
        if args.get(name):
            rows[text] = ", ".join(f"{value:g}" for value in args[name])
    rows["pooling of features"] = _code(args.get("pool"))
    total = sum(array.size for array in model.params.values())
    encoder = sum(a.size for path, a in model.params.items() if path.startswith("encoder/"))
    rows["parameters"] = f"{total:,}" + (f", {encoder:,} of them in the encoder" if encoder else "")
    for field, names in facts.classes.items():
        listed = ", ".join(names) if len(names) <= 30 else f"{len(names)} classes"
        rows[f"classes of {field}"] = listed
    text = [] if is_extension(model.method) else [_paragraph(model.method)]
    if facts.imported:
        text.append("The weights were imported; the folder records nothing of their training.")
    if costs.get("gflops_per_image"):
        rows["training step"] = f"{costs['gflops_per_image']:.4g} GFLOPs per image"
    return [*text, _table(["model", ""], rows)]


def _paragraph(method: str) -> str:
    """The first paragraph of the documentation of a method of the library."""
    text = inspect.getdoc(inspect.getmodule(maker(method, "methods"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _recipe(facts: Facts) -> list[str]:
    """How it was trained: numbers of steps and examples, compute, and the values of the config."""
    config, costs = facts.config, facts.costs
    lines = [f"{facts.step:,} steps of a batch of {config.data.batch_size}"]
    examples = facts.counts.get("train", (0, ""))[0]
    epochs = f", {facts.seen / examples:.4g} epochs of {examples:,}" if examples else ""
    lines.append(f"{facts.seen:,} training examples seen{epochs}")
    if costs.get("gflops_per_image"):
        total = costs["gflops_per_image"] * facts.seen * 1e9
        lines.append(
            f"{total:.3g} FLOPs: {costs['gflops_per_image']:.4g} GFLOPs per example, forward and "
            "backward, as counted in the program before the compiler optimizes it"
        )
    if costs.get("step_megabytes"):
        lines.append(f"{costs['step_megabytes']:.4g} MB of memory per device for a step")
    if "device" in costs:
        speed = f", median {facts.speed:,.4g} examples/s" if facts.speed else ""
        lines.append(f"device: {costs['device']}, jax {costs['jax']}{speed}")
    values = {f"`{path}`": _code(value) for path, value in facts.recipe.items()}
    return [_bullets(lines), _table(["config", "value"], values)]


def _data(facts: Facts) -> list[str]:
    """Sources, numbers of examples and fingerprints."""
    data, rows = facts.config.data, [["split", "source", "examples", "fingerprint of their list"]]
    sources = {
        "train": data.train,
        "test": data.test,
        "val": f"{data.held_out:g} of the split train",
    }
    for split, (count, digest) in sorted(facts.counts.items()):
        rows.append([split, _code(sources.get(split, "")), f"{count:,}", digest or "–"])
    if len(rows) == 1:
        rows.append(["train", _code(data.train), "not recorded", "–"])
    license_ = f"**{FILL_IN}**: the license and the origin of these images."
    return [markdown(_escaped(rows)).rstrip(), license_]


def _results(facts: Facts) -> list[str]:
    """A table for each file of results."""
    texts = []
    for file, record in facts.results.items():
        if not record["results"]:
            continue
        own, baselines = [*record["results"]][-1], [*record["results"]][:-1]
        count = facts.counts.get("test", (0, ""))[0]
        where = f"`{file}`: other images than the run's; their number is not recorded."
        if file == "results.json":
            where = f"Test images: {_code(facts.config.data.test)}"
            where += f", {count:,} examples." if count else "; their number is not recorded."
            if record.get("evaluators"):
                where += f" Evaluators: {_code(record['evaluators'])}."
        where += f" `{own}` is this model" + (
            f"; the baselines beside it: {', '.join(baselines)}." if baselines else "."
        )
        metrics: Mapping[str, Metric] = record["metrics"]
        texts += [where, markdown(_escaped(results_rows(record["results"], metrics))).rstrip()]
    lower = {
        name
        for record in facts.results.values()
        for name, metric in record["metrics"].items()
        if metric.lower_is_better
    }
    return texts + ([f"Lower is better: {', '.join(sorted(lower))}."] if lower else [])


def _limits(facts: Facts) -> list[str]:
    """What is known not to be known."""
    config, results, lines = facts.config, facts.results, []
    if not facts.imported:
        lines.append("One run with one seed: how results vary between seeds is not recorded.")
    if "results.json" in results:
        test = config.data.test
        if _data_set(config.data.train) == _data_set(test):
            lines.append(f"The results are in-domain: both splits are of `{parse(test)[0].name}`.")
        else:
            lines.append(f"All results of the run are on `{test}`.")
        if len(results) == 1:
            lines.append("It was not evaluated on other images than the test images of its config.")
    if facts.model.image is not None:
        size = " x ".join(map(str, facts.model.image))
        fixed = "encoder/positions" in facts.model.params
        lines.append(
            f"It was trained on images of {size} (height, width, channels for 2-D images)"
            + (" and has learned positions of this size only." if fixed else ".")
        )
    lines.append("Fairness, robustness and misuse: nothing beyond the tables above is measured.")
    return lines


def _data_set(source: str) -> list:
    """The parsed spec of a source without the arguments that choose its examples."""
    return [
        (name, args, {key: value for key, value in kwargs.items() if key not in CHOOSE})
        for name, args, kwargs in parse(source)
    ]


def _code(value: Any) -> str:
    """A value in backticks; a dash if there is none."""
    return "–" if value in (None, "") else f"`{value}`"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _escaped(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Rows without characters that end a cell."""
    return [[str(cell).replace("|", "\\|") for cell in row] for row in rows]


def _table(head: Sequence[str], rows: Mapping[str, Any]) -> str:
    return markdown(_escaped([head, *([k, str(v)] for k, v in rows.items())])).rstrip()
