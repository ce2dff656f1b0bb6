"""Converts Markdown to one self-contained HTML page with inline pictures and style, without scripts
or network requests, for narrow screens and dark mode too.
"""

import base64
import html
import mimetypes
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt

from mae_jax.types import UserError

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --line: #d4d4d4; --tint: #f3f3f3;
  --link: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --ink: #e2e2e2; --paper: #161616; --line: #454545;
  --tint: #262626; --link: #7ab7ff; } }
body { max-width: 960px; margin: 0 auto; padding: 0.5rem 1rem 4rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.25; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
a { color: var(--link); }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
code { background: var(--tint); border-radius: 3px; padding: 0.1em 0.3em; font-size: 0.85em; }
pre, .scroll { overflow-x: auto; overflow-wrap: normal; margin: 1rem 0; }
@media (min-width: 1000px) { /* a wide table may be wider than the text */
  .scroll { width: fit-content; min-width: 100%; max-width: calc(100vw - 3rem);
    position: relative; left: 50%; transform: translateX(-50%); }
}
pre { background: var(--tint); padding: 0.75rem; }
pre code { padding: 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: bottom; background: var(--paper); }
td { white-space: nowrap; }
th:first-child, td:first-child { position: sticky; left: 0; max-width: 40vw; text-align: left;
  white-space: normal; border-right: 1px solid var(--line); }
"""

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
"""


def page(text: str, folder: Path, title: str) -> str:
    """Renders Markdown as an HTML page.

    Args:
        text: Markdown with tables. HTML in it is shown as text.
        folder: base of the relative paths of pictures.
        title: of the window.

    Raises:
        UserError: a picture is missing, or is not an image file.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                child.attrs["src"] = _inlined(folder, unquote(str(child.attrs["src"])))
    body = markdown.renderer.render(tokens, markdown.options, {})
    # A wide table scrolls inside the page, also with the keyboard.
    body = body.replace("<table>", '<div class="scroll" tabindex="0"><table>')
    body = body.replace("</table>", "</table></div>")
    head = HEAD.format(title=html.escape(title), style=STYLE)
    return f"{head}{body}</body>\n</html>\n"


def _inlined(folder: Path, source: str) -> str:
    """A picture as a data URI."""
    kind = mimetypes.guess_type(source)[0] or ""
    if not kind.startswith("image/") or not (folder / source).is_file():
        raise UserError(f"picture {source!r}: not a PNG, JPEG or SVG file in {folder}")
    data = base64.b64encode((folder / source).read_bytes()).decode()
    return f"data:{kind};base64,{data}"
