"""`mae-jax explain`: writes the page, its pictures and its numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mae_jax.explain.page import page
from mae_jax.explain.subject import Subject, load
from mae_jax.explain.view import SECTIONS, Shown, View
from mae_jax.figures.reconstructions import draw_pictures
from mae_jax.spec import build_all, choices, resolve
from mae_jax.types import UserError


def make_views(text: str | None) -> list[View]:
    """The views that a spec string names, in the order of the page.

    Args:
        text: e.g. 'attention(blocks=(-1,))|colors'; None: all of the library.

    Raises:
        UserError: an unknown view or argument, or the same view twice.
    """
    text = "|".join(choices(resolve("explain"))) if text is None else text
    views = build_all(text, "explain", View)
    names = [view.name for view in views]
    if not views or len({*names}) < len(names):
        raise UserError(f"--views {text!r}: name each view once, e.g. 'attention|colors'")
    order = list(SECTIONS)
    return sorted(views, key=lambda view: (order.index(view.section), view.order))


def explain(
    source: str,
    out: Path,
    *,
    images: str | None = None,
    against: str | None = None,
    views: str | None = None,
    count: int = 8,
    sample: int = 512,
    on_error: str | None = None,
) -> list[Path]:
    """Writes `page.html`, PNG files and `numbers.json`.

    Args:
        source, images, against, on_error: see `subject.load`.
        out: folder to write into, which need not exist.
        views: see `make_views`.
        count: number of images to show.
        sample: number of images for statistics.

    Returns:
        The paths of all files, the page first.

    Raises:
        UserError: see `subject.load` and `make_views`; or a view that was named does not apply.
    """
    if not 1 <= count <= sample or sample < 2:
        raise UserError(
            f"--count {count} --sample {sample}: show at least one image, and no more than the "
            "sample has, which needs at least 2"
        )
    made = make_views(views)
    with jax.default_matmul_precision("highest"):
        subject = load(
            source, images=images, against=against, count=count, sample=sample, on_error=on_error
        )
        reasons = {view.name: view.check(subject) for view in made}
        left_out = {view.title: reasons[view.name] for view in made if reasons[view.name]}
        if views is not None and left_out:
            raise UserError("; ".join(f"--views {n}: {r}" for n, r in reasons.items() if r))
        made = [view for view in made if not reasons[view.name]]
        shown = {view.name: view.draw(subject) for view in made}
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / "page.html"]
    paths[0].write_text(page(subject, shown, made, left_out), encoding="utf-8")
    for name, one in shown.items():
        paths += write_pictures(out, name, one)
    path = out / "numbers.json"
    path.write_text(json.dumps(numbers(subject, shown, left_out)) + "\n", encoding="utf-8")
    return [*paths, path]


def write_pictures(out: Path, name: str, shown: Shown) -> list[Path]:
    """Writes the PNG files of a view, and returns their paths."""
    paths = [draw_pictures(shown.tiles, out / f"{name}.png")] if shown.tiles else []
    for chart, (png, _) in shown.charts.items():
        paths.append(out / f"{chart}.png")
        paths[-1].write_bytes(png)
    return paths


def numbers(
    subject: Subject, shown: Mapping[str, Shown], left_out: Mapping[str, str]
) -> dict[str, Any]:
    """The content of `numbers.json`."""
    return {
        "run": subject.network.name,
        "method": subject.network.kind,
        "encoder": subject.network.spec,
        "against": None if subject.against is None else subject.against.name,
        "images": len(subject.images),
        "sample": len(subject.sample),
        "grid": list(subject.grid),
        "views": {name: dict(one.numbers) for name, one in shown.items()},
        "findings": {name: list(one.findings) for name, one in shown.items()},
        "left_out": dict(left_out),
    }
