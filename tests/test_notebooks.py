"""Notebooks: valid files without outputs, whose code, commands, configs and links exist. Thorough
tests execute them: `bash launch/test.sh --thorough tests/test_notebooks.py`.
"""

import ast
import importlib
import os
import re
import shlex
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mae_jax.cli import make_parser, override
from mae_jax.config import load_config
from mae_jax.types import UserError
from tests.helpers.jobs import environment
from tests.helpers.runs import ROOT

DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
WRITTEN = {
    "first_run": ("runs/quickstart/results.json", "runs/quickstart/figures/reconstructions.png"),
    "your_images": ("runs/photos/results.json", "runs/photos.npz"),
    "transfer_and_explain": ("runs/scratch/results.json", "runs/page/page.html"),
}
"""Notebook -> what it has written at its end, among others."""


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    """The content of a file."""
    return nbformat.read(request.param, as_version=4)


def sources(notebook, kind):
    """Texts of the cells of a kind, 'code' or 'markdown'."""
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def python(notebook):
    """The code of all cells that are not a command, parsed."""
    cells = [text for text in sources(notebook, "code") if not text.startswith("!")]
    return ast.parse("\n".join(cells))


def commands(notebook):
    """Arguments of each `mae-jax`; 1.0 is in the place of what Python puts into them."""
    for text in sources(notebook, "code"):
        if text.startswith("!"):
            filled = re.sub(r"\{[^{}]*\}", "1.0", text[1:].replace("\\\n", " "))
            program, *words = shlex.split(filled)
            assert program == "mae-jax", text
            yield words


def test_some_have_commands():
    found = [list(commands(nbformat.read(path, as_version=4))) for path in NOTEBOOKS]
    assert sum(map(len, found)) >= 3


def test_files_are_small_and_have_no_outputs(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert 8 <= len(notebook.cells) <= 20 and len(str(notebook)) < 20_000
    first = notebook.cells[0].source
    assert first.startswith("# ") and "%pip install " in first
    assert "BUDGET" in sources(notebook, "code")[0]


def test_commands_exist(notebook):
    """With arguments that they take, and keys that their configs have."""
    for words in commands(notebook):
        args, rest = make_parser().parse_known_args(words)
        overrides = [override(text) for text in rest]
        assert args.command == "train" or not overrides
        if args.command == "train":
            load_config(args.config, overrides)


def test_imports_exist(notebook):
    for node in ast.walk(python(notebook)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if alias.name not in vars(module):  # then it is a module
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_configs_exist(notebook):
    """Those that Python loads; each change of a key is one of a config of the notebook."""
    tree, configs = python(notebook), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("load_config", "experiment"):
            configs += [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
    for name in configs:
        load_config(name)
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    for change in [text for text in texts if re.match(r"[a-z_.]+\.[a-z_]+=", str(text))]:
        assert any(takes(name, change) for name in configs), change


def takes(name, change):
    """Whether a config has the key of a change."""
    try:
        load_config(name, [change])
    except UserError:
        return False
    return True


def test_links_and_paths(notebook):
    """Links lead to files of the documentation; no path is that of one machine."""
    text = "\n".join(cell.source for cell in notebook.cells)
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    assert links and all((DOCS / "notebooks" / link).exists() for link in links), links
    assert not re.search(r"(?:^|[\s'\"=(])(?:/|~/|[A-Z]:\\)\w", text, re.M)


def test_the_index_leads_to_all():
    index = (DOCS / "index.md").read_text()
    assert {path.stem for path in NOTEBOOKS} == WRITTEN.keys()
    for path in NOTEBOOKS:
        assert f"](notebooks/{path.name})" in index and f"\nnotebooks/{path.stem}\n" in index


@pytest.mark.thorough
def test_they_run(notebook, request, tmp_path, monkeypatch):
    """On 1 of 200 images: about a minute of CPU time for all, once XLA has compiled."""
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    changes = {"BUDGET": "0.005", "PATH": os.pathsep.join(folders), "PYTHONPATH": str(ROOT)}
    for name, value in {**environment(), **changes}.items():
        monkeypatch.setenv(name, value)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert "mae-jax: " not in output.get("text", ""), output.text  # a command has failed
    stem = request.node.callspec.params["notebook"].stem
    assert all((tmp_path / name).exists() for name in WRITTEN[stem])
