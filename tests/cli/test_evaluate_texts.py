"""`mae-jax evaluate` of a run on other texts: what it checks before it reads the weights."""

import numpy as np
import pytest
from PIL import Image

from mae_jax.data.vocabulary import of_words
from mae_jax.workdir import claim
from tests.helpers import tiny
from tests.helpers import tiny_args as args
from tests.helpers.commands import mistake

WORDS = ["a", "red", "blue"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images without classes, their captions, and tokenizers of 8 and of 25 tokens."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "photos").mkdir()
    for number in range(4):
        pixels = np.full((16, 12, 3), number, np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
        (folder / "photos" / f"{number}.txt").write_text("a red")
    of_words(WORDS).save(folder / "small.json")
    of_words([*WORDS, *(f"w{number}" for number in range(17))]).save(folder / "large.json")
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A workdir of CLIP for 16 tokens whose evaluator needs labels, without a checkpoint."""
    config, folder = tiny.get_config(), tmp_path_factory.mktemp("clip")
    scenes = "fashion_scenes(split=train, size=16, num_examples=8)"
    source = f"uncaptioned({scenes!r}, length=6)"
    config.data.update(train=source, test=source, fields=("label", "text", "text_valid"))
    config.data.train_transform = config.data.eval_transform = "resize((16, 12))"
    config.method = dict(name="clip", args={**args.tiny("methods.clip").ARGS, "mean": (0.5,) * 3})
    config.method.args.std = (0.5,) * 3
    config.evals.run = "knn(k=1)"
    claim(folder, config, {})
    return folder


def evaluate(capsys, workdir, photos, tokenizer, *more):
    """The line with which the command ends."""
    images, tokenizer = str(photos / "photos"), str(photos / tokenizer)
    source = f"captioned({images!r}, captions={images!r}, {tokenizer=}, length=6)"
    return mistake(capsys, "evaluate", "--run", workdir, "--images", source, *more)


def test_other_evaluators_replace_those_of_the_run(workdir, photos, capsys):
    assert "knn needs labels" in evaluate(capsys, workdir, photos, "small.json")
    line = evaluate(capsys, workdir, photos, "small.json", "--evals", "retrieval")
    assert line == f"{workdir} has no checkpoint yet", "so all else is as it should be"
    names = "zero_shot(names=('red', 'blue'))"
    assert "zero_shot needs labels" in evaluate(
        capsys, workdir, photos, "small.json", "--evals", names
    )


def test_a_vocabulary_that_is_larger_than_the_model(workdir, photos, capsys):
    line = evaluate(capsys, workdir, photos, "large.json", "--evals", "retrieval")
    assert line == (
        "the texts of config.data.test have a vocabulary of 25 tokens, and "
        f"config.method.args.vocabulary=16: read them with the tokenizer of {workdir}"
    )
