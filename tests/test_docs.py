"""Documents: their commands exist with the options they name, and their code is that of files, or
runs.
"""

import importlib
import re
import shlex
import sys
import textwrap

import numpy as np
import pytest
from ml_collections import ConfigDict

from mae_jax import project, settings, weights
from mae_jax.cli import make_parser, override
from mae_jax.config import SECTIONS, differences, load_config, load_configs
from mae_jax.configs import common
from mae_jax.run import build
from mae_jax.spec import KINDS, arguments
from mae_jax.types import UserError
from tests.helpers.runs import ROOT
from tests.helpers.tiny_args import NAMES
from tests.weights import models

EXTEND = ROOT / "docs" / "extend.md"
TEMPLATE = project.TEMPLATE / "README.md"
DOCUMENTS = [ROOT / "README.md", TEMPLATE, *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = {TEMPLATE: project.TEMPLATE, EXTEND: project.EXTENSIONS}
"""Document -> the folder of its commands; that of the checkout for others, until one calls init."""
EXAMPLES = (project.EXTENSIONS, ROOT / "tests" / "example_project", ROOT / "mae_jax" / "methods")
ACTIONS = {"train": load_config, "sweep": load_configs}


def blocks(path, language):
    """The contents of fenced blocks."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.M | re.S)


def commands(path):
    """(folder, arguments) of every `mae-jax` in blocks of commands."""
    for block in blocks(path, "bash"):
        folder = FOLDERS.get(path, ROOT)
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "mae-jax" in words:
                words = words[words.index("mae-jax") + 1 :]
                yield folder, words
                if words[0] == "init":
                    folder = project.EXTENSIONS if "--extensions" in words else project.TEMPLATE


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(path, at):
    """With keys that their configs have, and values of the right types."""
    for folder, words in commands(path):
        at(folder)
        args, rest = make_parser().parse_known_args(words)
        overrides = [override(text) for text in rest]
        if args.command in ACTIONS:
            ACTIONS[args.command](args.config, overrides)


def test_documents_have_commands():
    counts = {path: len(list(commands(path))) for path in DOCUMENTS}
    assert counts[TEMPLATE] == 4 and counts[EXTEND] >= 10 and counts[ROOT / "README.md"] == 12
    assert sum(counts.values()) > 100


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        assert (path.parent / link).exists(), link


def test_a_file_of_each_kind():
    """The table of kinds names one file each, and no file is left out."""
    rows = re.findall(r"^\| \w+ \| \[(\w+\.py)\]\((.*?)\) \| `(.*?)` \|", EXTEND.read_text(), re.M)
    for _, link, made in rows:
        module, _, kind = made.rpartition(".")
        assert isinstance(vars(importlib.import_module(f"mae_jax.{module}"))[kind], type)
        assert re.search(r"^def make\(", (EXTEND.parent / link).read_text(), re.M), link
    files = {path.name for path in (project.EXTENSIONS / "my_project").glob("[!_]*.py")}
    assert len(rows) == 11 and {name for name, _, _ in rows} == files


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_keys_exist(path):
    """Of configs, where backticks hold the name of one, or begin with it."""
    known = {*differences(ConfigDict(), common.base()), "optimizer.clip"}  # which has no default
    known |= {"method.args", "init_from.teacher", "init_from.inflate"}
    known |= {f"method.args.{key}" for name in NAMES for key in arguments(name, "methods", {})}
    text = path.read_text("utf-8").partition("## What changed in configs")[0]
    keys = rf"`(?:--)?(?:config\.)?((?:{'|'.join(SECTIONS)})\.[a-z_.]+)(?=[`=,])"
    assert set(re.findall(keys, text)) <= known


def is_excerpt(block):
    """Whether lines stand in a file of an example, at any indentation."""
    files = [path.read_text() for folder in EXAMPLES for path in folder.rglob("*.py")]
    plain = textwrap.dedent(block)
    return any(textwrap.indent(plain, " " * n) in text for n in (0, 4, 8) for text in files)


@pytest.mark.parametrize("block", blocks(EXTEND, "python"), ids=lambda text: text.split("\n")[0])
def test_code_is_in_a_file_or_runs(block, at):
    """Changes of a config give one that can be built; other code runs as it is."""
    if is_excerpt(block):
        return
    at(project.EXTENSIONS)
    sys.path.append(str(ROOT / "tests" / "example_project"))
    config = load_config("extended.py")
    exec(block, {"config": config})
    settings.check(config)


def test_the_names_that_are_taken():
    """Of the first part of a name: all are in the document."""
    text = EXTEND.read_text().partition("must not be that of a package")[2].partition("\n- ")[0]
    assert set(re.findall(r"`(\w+)`", text)) == set(KINDS)


def test_a_teacher_is_loaded_into_its_part_of_the_state(at, tmp_path):
    """What the document says of more than one part, by its example."""
    at(ROOT / "tests" / "example_project")
    model = models.mae(depth=1, image=(16, 16, 1), patch=8)
    weights.write_run(model, tmp_path / "teacher")
    config = load_config("experiments.py:image")
    config.data.update(train="example.waves(space=(16, 16))", test="")
    args = dict(encoder="vit(Ti, patch=8, depth=1)", mean=(0.5,), std=(0.25,))
    config.method = ConfigDict(dict(name="example.distill", args=args))
    config.evals.run = ""
    config.init_from.teacher = dict(path=str(tmp_path / "teacher"), into="extra/teacher")
    made = build(config)
    before, after = made.initial_state(), made.loaded_state()
    kernel = lambda tree: np.asarray(tree["block_0"]["mlp"]["fc1"]["kernel"])
    loaded = model.params["encoder/block_0/mlp/fc1/kernel"]
    np.testing.assert_array_equal(kernel(after.extra["teacher"]), loaded)
    np.testing.assert_array_equal(kernel(after.params["encoder"]), kernel(before.params["encoder"]))
    config.init_from.teacher.into = "extra/techer"
    with pytest.raises(UserError, match=r"loads weights into params/encoder, extra/teacher, not"):
        build(config)
