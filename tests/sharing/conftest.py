"""Workdirs of runs for model cards and uploads."""

import json
import tarfile

import pytest
from PIL import Image

from tests.helpers.jobs import ROOT


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Workdirs of an older version, {'mae', 'finetune'} -> folder, with a figure, and with results
    of other images and of an earlier checkpoint.
    """
    folder = tmp_path_factory.mktemp("runs")
    with tarfile.open(ROOT / "tests" / "golden" / "run_66e86cc.tar.xz") as archive:
        archive.extractall(folder)  # `filter` needs Python 3.11.4
    found = {name: folder / name for name in ("mae", "finetune")}
    for workdir in found.values():
        (workdir / "figures").mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(workdir / "figures" / "curves.png")
        results = json.loads((workdir / "results.json").read_text())
        for name, step in (("other", results["step"]), ("earlier", 1)):
            changed = results | {"step": step}
            (workdir / f"results_{name}.json").write_text(json.dumps(changed))
    return found
