"""Where commands write is checked before they work."""

import pytest

from mae_jax.cli.commands import LONGEST, results_suffix
from tests.helpers.commands import mistake

FEATURES = "features", "--run", "nowhere", "--images", "nowhere", "--out"
RECONSTRUCT = "reconstruct", "--run", "nowhere", "--out"
BENCH = "bench", "step", "--config", "quickstart", "--out"


@pytest.mark.parametrize(
    ("command", "out", "message"),
    [
        (FEATURES, "a.txt", "the name must end in .npz or .safetensors"),
        (FEATURES, "folder.npz", "this is a folder: name a file"),
        (FEATURES, "file/a.npz", "is a file: name a folder"),
        (RECONSTRUCT, "a.jpg", "the name must end in .png"),
        (RECONSTRUCT, "file/a/b.png", "is a file: name a folder"),
        (BENCH, "folder.npz", "this is a folder: name a file"),
        (BENCH, "file/a.json", "is a file: name a folder"),
    ],
)
def test_a_file_that_cannot_be_written(capsys, tmp_path, command, out, message):
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").touch()
    said = mistake(capsys, *command, tmp_path / out)
    assert said.startswith(f"--out {tmp_path}") and message in said


def test_names_of_results_fit_in_a_folder():
    assert results_suffix(None, None) == ""
    assert results_suffix("photos/a", "b c") == "_photos_a_train_b_c"
    first, second = (results_suffix("a" * 300 + end, None) for end in "xy")
    assert first != second and len(first) < LONGEST + 10
