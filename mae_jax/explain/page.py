"""The page: one self-contained HTML file with inline style, script, pictures and arrays, which
makes no request.
"""

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import PurePath
from typing import Any

import numpy as np

from mae_jax.explain import heat
from mae_jax.explain.subject import Subject
from mae_jax.explain.view import SECTIONS, Shown, Vectors, View, Weights

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
  style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
"""
NO_SCRIPT = (
    "Maps to click on need JavaScript; the pictures are also beside this page, as PNG files."
)


def page(
    subject: Subject, shown: Mapping[str, Shown], views: Sequence[View], left_out: Mapping[str, str]
) -> str:
    """Renders the page.

    Args:
        shown: name of a view -> what it found.
        views: those of `shown`, in their order.
        left_out: title of a view that does not apply -> the reason.
    """
    title = f"What {PurePath(subject.network.name).name} has learned"
    files = resources.files("mae_jax.explain") / "assets"
    head = HEAD.format(title=html.escape(title), style=(files / "page.css").read_text("utf-8"))
    body = [f"<header><h1>{html.escape(title)}</h1>", facts(subject), contents(views), "</header>"]
    height, width = subject.images.shape[1:3]
    body += [f'<main style="--ratio: {width} / {height}">', pictures(subject)]
    for section, heading in SECTIONS.items():
        of_section = [view for view in views if view.section == section]
        if of_section:
            body.append(f"<h2>{html.escape(heading)}</h2>")
            body += [part(subject, view, shown[view.name]) for view in of_section]
    body += [missing(left_out), "</main>"]
    content = json.dumps(data(subject, shown)).replace("<", "\\u003c")
    body.append(f'<script type="application/json" id="data">{content}</script>')
    body.append(f"<script>{(files / 'page.js').read_text('utf-8')}</script>")
    return head + "\n".join(body) + "\n</body>\n</html>\n"


def facts(subject: Subject) -> str:
    """A paragraph on the model and the images."""
    network, (height, width) = subject.network, subject.images.shape[1:3]
    rows, columns = subject.grid
    name, kind, spec = (f"<code>{html.escape(x)}</code>" for x in network.described)
    text = (
        f"{name}, method {kind}, encoder {spec}. {len(subject.images)} images of {height} x "
        f"{width} pixels, {rows} x {columns} patches; statistics are of {len(subject.sample)} "
        "images."
    )
    if subject.against is not None:
        text += f" Compared with <code>{html.escape(subject.against.name)}</code>."
    return f'<p class="facts">{text}</p>'


def contents(views: Sequence[View]) -> str:
    """Links to the views."""
    links = [f'<a href="#{view.name}">{html.escape(view.title)}</a>' for view in views]
    return f'<nav aria-label="Views">{" ".join(links)}</nav>'


def pictures(subject: Subject) -> str:
    """The images, which the script also copies from."""
    figures = [
        f'<figure><img id="image-{number}" src="{heat.picture_uri(pixels)}" '
        f'alt="{html.escape(title)}"><figcaption>{html.escape(title)}</figcaption></figure>'
        for number, (title, pixels) in enumerate(
            zip(subject.titles(), heat.rgb(subject.images), strict=True)
        )
    ]
    return f'<section id="images"><h2>The images</h2><div>{"".join(figures)}</div></section>'


def part(subject: Subject, view: View, shown: Shown) -> str:
    """The part of the page on one view."""
    lines = [
        f'<section id="{view.name}"><h3>{html.escape(view.title)}</h3>',
        f'<div class="how"><p><b>How to read it.</b> {html.escape(view.reads)}</p>',
        f"<p><b>When it misleads.</b> {html.escape(view.misleads)}</p></div>",
    ]
    lines += [f'<p class="finding">{html.escape(text)}</p>' for text in shown.findings]
    if shown.maps is not None:
        lines.append(f'<noscript>{NO_SCRIPT}</noscript><div class="picker" data-of="{view.name}">')
        lines.append("</div>")
    elif shown.tiles:
        lines.append(sets(subject, shown))
    charts = [
        f'<figure><img src="{heat.uri(chart.png, "image/png")}" '
        f'alt="{html.escape(chart.alt)}"></figure>'
        for chart in shown.charts.values()
    ]
    if charts:
        lines.append(f'<div class="charts">{"".join(charts)}</div>')
    return "\n".join([*lines, "</section>"])


def sets(subject: Subject, shown: Shown) -> str:
    """The tiles of each image, side by side. Of the image itself the page has one copy, which the
    script puts into its place.
    """
    captions = shown.captions or subject.titles()
    own, figures = heat.rgb(subject.images), []
    for number, caption in enumerate(captions):
        tiles = []
        for label, rows in shown.tiles.items():
            same = rows.shape == own.shape and np.array_equal(rows[number], own[number])
            source = (
                f'data-image="{number}"'
                if same
                else f'src="{heat.picture_uri(rows[number], subject.grid)}"'
            )
            alt = html.escape(f"{label} of {caption}")
            tiles.append(f'<div><img {source} alt="{alt}"><span>{html.escape(label)}</span></div>')
        text = f"<figcaption>{html.escape(caption)}</figcaption>"
        figures.append(f'<figure><div class="tiles">{"".join(tiles)}</div>{text}</figure>')
    return f'<div class="sets">{"".join(figures)}</div>'


def missing(left_out: Mapping[str, str]) -> str:
    """The views that do not apply, and why."""
    if not left_out:
        return ""
    rows = [
        f"<li><b>{html.escape(title)}</b>: {html.escape(reason)}.</li>"
        for title, reason in left_out.items()
    ]
    return f'<section id="left-out"><h2>Not shown</h2><ul>{"".join(rows)}</ul></section>'


def data(subject: Subject, shown: Mapping[str, Shown]) -> dict[str, Any]:
    """What the script reads."""
    hexadecimal = lambda colors: ["#" + bytes(color).hex() for color in colors]
    return {
        "grid": subject.grid,
        "size": subject.images.shape[1:3],
        "center": subject.center,
        "titles": subject.titles(),
        "sequential": hexadecimal(heat.palette(heat.SEQUENTIAL, heat.SHADES + 1)),
        "diverging": hexadecimal(heat.palette(heat.DIVERGING, 41)),
        "maps": {name: of_maps(one.maps) for name, one in shown.items() if one.maps is not None},
    }


def of_maps(maps: Weights | Vectors) -> dict[str, Any]:
    """Maps for the script: arrays as compressed bytes."""
    if isinstance(maps, Vectors):
        return {
            "kind": "vectors",
            "blocks": list(maps.values),
            "vectors": [of_vectors(values) for values in maps.values.values()],
        }
    return {
        "kind": "weights",
        "shape": maps.shades.shape,
        "blocks": list(maps.blocks),
        "panels": list(maps.panels),
        "token": maps.class_token,
        "low": maps.low,
        "values": heat.packed(maps.shades),
        # In 255 steps of the square root.
        "peaks": heat.packed(np.rint(255 * np.sqrt(np.minimum(maps.peaks, 1))).astype(np.uint8)),
    }


def of_vectors(values: np.ndarray) -> dict[str, Any]:
    """Vectors [N, L, k] for the script: a byte for each number, and a scale for each coordinate."""
    flat = values.reshape(-1, values.shape[-1])  # [N L, k]
    scales = np.maximum(np.abs(flat).max(axis=0), 1e-12) / 127
    return {
        "scales": [float(f"{scale:.6g}") for scale in scales],
        "values": heat.packed(np.rint(flat / scales).astype(np.int8)),
    }
