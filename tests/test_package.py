"""What is shipped: the wheel has every file of the package, the sdist all that its tests need, and
an installed package works where there is no checkout.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest
from setuptools import find_packages

from tests.helpers.commands import run
from tests.helpers.jobs import environment

PARTS = ("mae_jax", "configs", "docs", "launch", "tests")
CITED = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md")
FILES = ("README.md", "LICENSE", "MANIFEST.in", "pyproject.toml", "setup.cfg", *CITED)
LEFT_OUT = (".ci/", ".dockerignore", ".gitignore")
"""What only a checkout has."""


def files_below(folder):
    """Names of the files below a folder, through links, but for those that Python makes."""
    return {
        os.path.relpath(os.path.join(place, file), folder)
        for place, _, files in os.walk(folder, followlinks=True)
        for file in files
        if "__pycache__" not in place and not file.endswith(".pyc")
    }


def test_every_module_is_in_a_package_that_is_found(root):
    packages = set(find_packages(root, include=["mae_jax*"]))
    data = {"mae_jax.data.fashion_scenes_assets", "mae_jax.project.template"}
    data |= {"mae_jax.project.extensions", "mae_jax.project.extensions.my_project"}
    names = [name for name in files_below(root / "mae_jax") if name.endswith(".py")]
    found = {"mae_jax." + os.path.dirname(name).replace("/", ".") for name in names}
    assert {name.rstrip(".") for name in found} == packages | data
    assert "mae_jax.configs" in packages


def test_every_file_of_a_checkout_is_in_the_sdist(root):
    if not (root / ".git").exists():
        pytest.skip("no checkout")
    done = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True)
    grafted = re.findall(r"^graft (\S+)$", (root / "MANIFEST.in").read_text(), re.M)
    taken = tuple(f"{name}/" for name in (*grafted, "mae_jax"))
    assert set(taken) == {f"{name}/" for name in PARTS}
    names = [name for name in done.stdout.splitlines() if not name.startswith(LEFT_OUT)]
    left = {name for name in names if not name.startswith(taken)}
    assert left == set(FILES), "add what is new to MANIFEST.in, or to LEFT_OUT here"


@pytest.fixture(scope="module")
def built(root, tmp_path_factory):
    """(wheel, sdist), built from a copy of the sources."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    source.mkdir()
    caches = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in PARTS:
        if (root / name).exists():
            shutil.copytree(root / name, source / name, symlinks=True, ignore=caches)
    for name in FILES:
        shutil.copy(root / name, source)
    build = "import setuptools.build_meta as b; b.build_sdist('..'); b.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_has_every_file_of_the_package(built, root):
    found = {name for name in zipfile.ZipFile(built[0]).namelist() if ".dist-info/" not in name}
    wanted = {f"mae_jax/{name}" for name in files_below(root / "mae_jax")}
    results = "mae_jax/configs/results/"  # what was measured, for readers of a checkout
    assert found == {name for name in wanted if not name.startswith(results)}


def test_the_sdist_has_what_its_tests_need(built, root):
    with tarfile.open(built[1]) as archive:
        members = archive.getmembers()
    assert not any(member.issym() for member in members), "links are for checkouts"
    found = {member.name.partition("/")[2] for member in members if member.isfile()}
    wanted = {f"{part}/{name}" for part in PARTS for name in files_below(root / part)}
    wanted = {name for name in wanted if not name.startswith("mae_jax/configs/results/")}
    assert found >= wanted | set(FILES), sorted((wanted | set(FILES)) - found)
    assert {"tests/golden/timm_mae.npz", "launch/kubernetes.yaml", "configs/mae.py"} <= found


IN_TURN = """import json, sys
from mae_jax import cli
for command in json.loads(sys.argv[1]):
    try:
        cli.main(command)
    except SystemExit as exit_:
        assert not exit_.code, command
"""
"""Several commands in one process, which imports once."""


@pytest.mark.slow
@pytest.mark.thorough
def test_an_installed_package_works_without_a_checkout(built, tmp_path):
    """The package is the wheel's, what it needs that of this environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps"]
    subprocess.run([*pip, "--no-index", built[0]], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"])
    env = {k: v for k, v in environment().items() if k != "PYTHONPATH"}

    def start(*command, folder):
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    empty = tmp_path / "empty"
    empty.mkdir()
    program = tmp_path / "venv" / "bin" / "mae-jax"
    printed = start(program, "train", "--config", "mae:L/16", "--print-config", folder=empty)
    assert f"--config mae:L/16: {site}/mae_jax/configs/mae.py" in printed
    start(program, "init", "mine", folder=empty)
    short = ["--config.schedule.epochs=1.0", "--config.schedule.warmup_epochs=0.0"]
    for split, count in (("train", 256), ("test", 64)):
        scenes = f"fashion_scenes(split={split}, num_examples={count})"
        short += [f"--config.data.{split}={scenes}"]
        short += [f"--config.data.{split.replace('test', 'eval')}_transform=resize(8)"]
    short += ["--config.method.args.encoder=vit(width=32, depth=1, heads=2, patch=4)"]
    start(program, "train", "--config", "experiment.py", *short, folder=empty / "mine")
    command = ["evaluate", "--run", "runs/experiment", "--evals", "knn(k=3)"]
    source = "fashion_scenes(split=test, num_examples=128)"
    images = ["--images", source, "--out", "features.npz"]
    features = ["features", "--run", "runs/experiment", *images]
    printed = start(python, "-c", IN_TURN, json.dumps([command, features]), folder=empty / "mine")
    assert "knn %" in printed and "wrote features.npz: 128 images" in printed


def test_the_version_is_printed(capsys):
    assert run("--version") == 0
    assert re.match(r"mae-jax \d+\.\d+\.\d+, Python 3\.\d+\.\d+$", capsys.readouterr().out)


def test_help_version_and_mistakes_do_not_wait_for_imports(root):
    """Each of these packages takes from a tenth of a second to several."""
    code = """import sys
from mae_jax import cli
for argv in (["--help"], ["train", "--help"], ["--version"], ["trian"], ["init"], ["train"]):
    try:
        cli.main(argv)
    except SystemExit:
        pass
heavy = ("jax", "flax", "numpy", "ml_collections", "tensorflow", "rich", "PIL", "torch", "orbax")
assert not [name for name in heavy if name in sys.modules], sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True)
