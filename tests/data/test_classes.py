"""Label numbers of a test set follow the names of the training set's classes."""

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import classes, make_data
from mae_jax.data.sources import Arrays, folder, tiff
from mae_jax.data.subset import Part
from mae_jax.evals import classify
from mae_jax.types import UserError

TRAIN = ("cat", "dog", "eel", "fox")


def source(labels, names):
    """A set of tiny images."""
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    return Arrays({"image": images, "label": np.array(labels)}, {"label": names})


def test_labels_follow_the_names():
    train, test = source([0, 1, 2, 3], TRAIN), source([0, 1, 1, 0], ("dog", "fox"))
    matched = classes.like(test, train, ("label",))
    np.testing.assert_array_equal(matched.read(np.arange(4))["label"], [1, 3, 3, 1])
    assert matched.class_names == TRAIN and matched.num_examples == 4
    unknown = classes.like(source([-1, 1], ("dog", "fox")), train, ("label",))
    np.testing.assert_array_equal(unknown.read(np.arange(2))["label"], [-1, 3])
    assert classes.like(train, train, ("label",)) is train
    for without in (source([0], ()), train):
        assert classes.like(without, train, ("label",)) is without
        assert classes.like(without, source([0], ()), ("label",)) is without


def test_other_classes_of_a_segmentation_are_refused():
    """They are not numbered anew: a class of the one may be none of the other."""
    one, same, other = (
        Arrays({"segmentation": np.zeros((1, 2, 2))}, {"segmentation": names})
        for names in (("sky", "sea"), ("sky", "sea"), ("sea", "sky"))
    )
    assert classes.like(same, one, ("segmentation",)) is same
    with pytest.raises(
        UserError, match="the classes of 'segmentation' in .*test differ: use the same classes"
    ):
        classes.like(other, one, ("label", "segmentation"))
    assert classes.like(other, one, ("label",)) is other, "what is not used need not agree"


def test_other_classes_are_refused():
    names = ["dog", *(f"x{i:02d}" for i in range(11))]
    with pytest.raises(UserError, match="differ: x00, .*, x07 and 3 more only in the latter"):
        classes.like(source(range(12), names), source([0], TRAIN), ("label",))


def test_classes_are_counted_where_that_needs_no_reading(tmp_path):
    train, test = source([0, 1, 1, 3], TRAIN), source([1, 1, 0, -1], ("dog", "fox"))
    assert classes.counted(train) == "4 classes: cat 1, dog 2, eel 0, fox 1"
    assert (
        classes.counted(classes.like(test, train, ("label",)))
        == "4 classes: cat 0, dog 1, eel 0, fox 2"
    )
    assert classes.counted(Part(train, np.array([1, 3]))) == "4 classes: cat 0, dog 1, eel 0, fox 1"
    assert classes.counted(source([0], ())) == ""
    for name, pages in (("cat/1", 3), ("cat/2", 1), ("dog/1", 2)):
        path = tmp_path / f"{name}.tif"
        path.parent.mkdir(exist_ok=True)
        images = [Image.new("L", (4, 4), page) for page in range(pages)]
        images[0].save(path, save_all=True, append_images=images[1:])
    assert classes.counted(tiff.make(str(tmp_path))) == "2 classes: cat 4, dog 2"
    assert classes.counted(folder.make(str(tmp_path))) == "2 classes: cat 2, dog 1"
    assert classes.counted(folder.make(str(tmp_path / "cat"))) == ""


@pytest.fixture
def folders(tmp_path):
    """A training set of four classes, and a test set of two of them."""
    for split, names in (("train", TRAIN), ("rendition", ("dog", "fox"))):
        for value, name in enumerate(names):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (4, 4), (value, 0, 0)).save(tmp_path / split / name / "a.png")
    return tmp_path


def test_a_folder_with_some_of_the_classes(folders):
    data = make_data(
        train=f"folder('{folders / 'train'}')",
        test=f"folder('{folders / 'rendition'}')",
        batch_size=3,
        train_transform="resize((4, 4))",
        eval_transform="resize((4, 4))",
    )
    (batch,) = data.eval("test")
    np.testing.assert_array_equal(batch["label"][batch["valid"]], [1, 3])
    # A classifier that likes eels best, then what is right: eels are not among what is present.
    favorite = np.array([0.0, 1.0, 9.0, 0.5]), np.array([0.0, 1.0, 9.0, 2.0])
    predict = lambda batch: {**batch, "logits": np.stack([*favorite, favorite[0]])}
    assert classify.make()(predict, data)["top1"] == 0
    assert classify.make(among="present")(predict, data)["top1"] == 1
    with pytest.raises(UserError, match="among 'some' is unknown: choose all, present"):
        classify.make(among="some")


def test_a_class_without_images_is_known(folders):
    (folders / "train" / "gnu").mkdir()
    (folders / "train" / ".hidden").mkdir()
    data = make_data(
        train=f"folder('{folders / 'train'}')",
        batch_size=2,
        train_transform="resize((4, 4))",
        eval_transform="resize((4, 4))",
    )
    assert data.empty_classes == ("gnu",) and data.source("train").class_names == TRAIN
