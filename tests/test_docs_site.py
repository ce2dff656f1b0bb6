"""The documentation site: it builds without a warning, its page on Python runs, and its page on
configs lists each key with its default.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from mae_jax import weights
from mae_jax.config import differences, load_config
from mae_jax.configs import common
from mae_jax.train import train
from mae_jax.workdir import MAY_CHANGE
from tests.helpers.runs import CONFIG, ROOT
from tests.weights import models

DOCS = ROOT / "docs"


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_parser", "furo")),
    reason="needs sphinx, myst_parser and furo: pip install -e '.[docs]'",
)
@pytest.mark.parametrize("tags", [["-t", "outline"], pytest.param([], marks=pytest.mark.thorough)])
def test_the_site_builds_without_a_warning(tags, tmp_path):
    """With the members of modules if it is thorough. In a process of its own, as it puts stand-ins
    in place of large packages.
    """
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "doctrees"), *tags]
    extensions = "extensions=myst_parser,sphinx.ext.autodoc,sphinx.ext.napoleon"  # no pages of code
    changes = ["-D", extensions, "-D", "toc_object_entries=0"]
    command = [sys.executable, "-m", "sphinx", *options, *changes, str(DOCS), str(tmp_path / "out")]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "out" / "searchindex.js").read_text("utf-8")
    for word in ("fsdp", "resum", "ratio", "decay"):  # stems
        assert re.search(rf'"?{word}"?:', index), word
    for page in (tmp_path / "out").rglob("*.html"):
        loaded = re.findall(r'(?:src|<link[^>]*href)="(https?:[^"]*)"', page.read_text("utf-8"))
        assert not loaded, f"{page} loads {loaded} from elsewhere"


@pytest.mark.slow
def test_python_runs(at, tmp_path):
    """The blocks of docs/python.md, in their order, on a tiny run; then the block of the README."""
    at(tmp_path)
    tiny = (ROOT / CONFIG).read_text().replace("from configs import", "from mae_jax.configs import")
    Path("experiment.py").write_text(tiny)
    train(load_config("experiment.py", ["schedule.epochs=2.0"]), Path("runs/mine"))
    Path("runs/quickstart").symlink_to("mine")
    Path("photos").mkdir()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save("photos/1.png")
    Path("photos/2.png").write_bytes(b"no image")
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(name)
    tuned = models.tuned("mean")
    weights.write_run(tuned, Path("runs/tuned"))
    classes = [f"class {number}" for number in range(tuned.args["classes"])]
    Path("runs/tuned/classes.json").write_text(json.dumps({"label": classes}))
    scope = {}
    block_of = lambda path: re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)
    for block in block_of(DOCS / "python.md"):
        exec(block, scope)
    (block,), outside = block_of(ROOT / "README.md"), {}
    exec(block, outside)
    assert len(outside["names"]) == 2 and {*outside["names"]} <= {*classes}
    assert outside["found"]["probability"].shape == (2, len(classes))
    assert scope["features"].shape[1:] == (16,) and scope["logits"].shape == (4, 10)
    assert int(scope["state"].step) == 8


def test_the_page_of_configs_is_complete():
    """Each key of `common.base`, in its order, with its default, and whether a resumed run may
    change it.
    """
    text = (DOCS / "configs.md").read_text()
    rows = re.findall(r"^\| `([a-z_.0-9]+)` \| `(.*?)` \| .+? \| (yes|no) \|$", text, re.M)
    defaults = {k: new for k, (_, new) in differences(ConfigDict(), common.base()).items()}
    defaults |= {"method.args": {}, "optimizer.clip": None}
    found = {key: literal_eval(value) for key, value, _ in rows}
    plain = lambda value: tuple(value) if isinstance(value, list) else value
    assert found == {key: plain(value) for key, value in defaults.items()}
    for key, _, may_change in rows:
        assert (may_change == "yes") == key.startswith(MAY_CHANGE), key
