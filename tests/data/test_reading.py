"""A run that goes on reports that images are read in another way than where it stopped."""

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import make_data
from mae_jax.data.reading import CHANGES
from mae_jax.data.sources import tiff
from mae_jax.types import UserError
from mae_jax.workdir import claim
from tests.data.test_medical import save_tiff
from tests.test_workdir import config_of


def data_of(root, **options):
    """Of a folder of images, some of them held out."""
    defaults = dict(train=f"folder({str(root)!r})", batch_size=1, train_transform="")
    return make_data(**(defaults | options), eval_transform="")


@pytest.fixture
def images(tmp_path):
    """Four images of two classes."""
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((3, 4, 4), np.uint8)).save(path)
    return tmp_path / "images"


@pytest.mark.parametrize("options", [{}, {"held_out": 0.5}, {"subset": "per_class(1)"}])
def test_a_run_of_an_earlier_version_goes_on_and_says_what_is_new(images, tmp_path, options):
    fingerprints = data_of(images, **options).fingerprints()
    before = {key: value for key, value in fingerprints.items() if key != "reading"}
    workdir = tmp_path / "run"
    workdir.mkdir()
    config = config_of()
    claim(workdir, config, before)
    (workdir / "checkpoints" / "10").mkdir(parents=True)
    claim_new = lambda: claim(workdir, config, fingerprints)
    assert claim_new() == [
        f"some images are read differently than before this run stopped. Now: {CHANGES}. "
        "Then: as before these changes"
    ]
    assert claim_new() == [], "once"


def test_runs_on_other_sources_have_nothing_to_report(images):
    data = data_of(images, train="fashion_scenes(num_examples=4, size=16)")
    assert data.fingerprints().keys() == {"train"}
    mixed = data_of(images, train="fashion_scenes(num_examples=4, size=16)", fields=(),
                    test=f"folder({str(images)!r})")  # fmt: skip
    assert mixed.fingerprints()["reading"] == CHANGES


def test_tiff_files_have_changes_of_their_own(images, tmp_path):
    save_tiff(tmp_path / "scans", "1.tif", np.zeros((4, 5), np.uint8))
    both = data_of(images, fields=(), test=f"tiff({str(tmp_path / 'scans')!r})").fingerprints()
    assert both["reading"] == f"{CHANGES}; {tiff.READING}"


def test_what_was_an_example_and_is_left_out_now_is_another_list(images, tmp_path):
    """Such a run is refused, as after any change to its images."""
    (tmp_path / "run").mkdir()
    old = data_of(images).fingerprints()
    claim(tmp_path / "run", config_of(), old | {"train": "5 " + old["train"].split()[1]})
    (tmp_path / "run" / "checkpoints" / "10").mkdir(parents=True)
    with pytest.raises(UserError, match="fingerprints.train: '5 .*' there, '4 .*' now"):
        claim(tmp_path / "run", config_of(), old)
