"""Sphinx configuration: `bash launch/docs.sh` builds the site with warnings as errors."""

import json
import re
import sys
from pathlib import Path

from myst_parser.parsers.sphinx_ import MystParser

sys.path.insert(0, str(Path(__file__).parent.parent))

import mae_jax  # noqa: E402

project = "mae_jax"
author = "the mae_jax authors"
copyright = author
version = release = mae_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "notebooks/runs"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]
smartquotes = False  # what is quoted is meant to be copied

autodoc_default_options = {"members": True, "member-order": "bysource", "no-value": True}
if tags.has("outline"):  # noqa: F821, set by -t outline: modules alone, in a third of the time
    autodoc_default_options = {}
# Large, or of an extra: their sources are documented without them.
autodoc_mock_imports = ["tensorflow", "tensorflow_datasets", "tifffile", "pydicom", "nibabel"]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
add_module_names = False
maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_preprocess_types = False

html_theme = "furo"
html_title = f"mae_jax {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False


def plain_text(app, what, name, obj, options, lines):
    """Docstrings are plain text with `code`: what else reStructuredText reads as markup is escaped,
    and indented commands are literal blocks.
    """
    if lines and lines[0].startswith("Alias for field number"):  # of a NamedTuple without a text
        lines[:] = []
    found = []
    for i, line in enumerate(lines):
        parts = re.split(r"(`[^`]+`)", line)
        parts[::2] = [re.sub(r"([\\*|]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
        parts[1::2] = [f"`{part}`" for part in parts[1::2]]
        command = what == "module" and line.startswith("    ")
        if command and (not lines[i - 1].strip() and not found[-1].endswith("::")):
            found += ["::", ""]
        found.append(line if command else "".join(parts))
    lines[:] = found


def hide(app, what, name, obj, options, lines):
    """Texts of attributes: napoleon would take what stands before a colon for a type."""
    if what in ("attribute", "data", "property"):
        hidden[name], lines[:] = list(lines), []


def show(app, what, name, obj, options, lines):
    """What `hide` has hidden."""
    lines[:] = hidden.pop(name, lines)


hidden: dict[str, list[str]] = {}


class Notebook(MystParser):
    """Notebooks as pages: their cells as Markdown, without outputs."""

    supported = ("notebook",)

    def parse(self, inputstring, document):
        file = Path(document["source"]).name
        super().parse(as_markdown(json.loads(inputstring)["cells"], file), document)


def as_markdown(cells, file):
    """The Markdown of the cells of a notebook, with a link to the file below its title."""
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            language = "bash" if text.startswith("!") else "python"
            text = f"```{language}\n{text}\n```"
        parts.append(text)
    title, text = parts[0].split("\n", 1)
    return "\n\n".join([title, f"This page is a notebook: {{download}}`{file}`.", text, *parts[1:]])


def setup(app):
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(Notebook)
    event = "autodoc-process-docstring"
    for priority, handler in ((400, plain_text), (450, hide), (600, show)):  # napoleon is at 500
        app.connect(event, handler, priority=priority)
