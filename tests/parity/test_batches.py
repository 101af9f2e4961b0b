"""Windows and images against Keras, as far as it makes them without TensorFlow."""

import numpy as np
import pytest
from keras.src.utils.dataset_utils import get_training_or_validation_split, index_directory

from minicnnrnn.utils import image_dataset_from_directory


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_files_in_the_same_parts(seed, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    for i in range(11):
        folder = tmp_path / ["b", "a/deeper", "c"][i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (i, i, i)).save(folder / f"{i}.png")
    options = {"seed": seed, "verbose": False}
    found = index_directory(str(tmp_path), "inferred", (".png",), shuffle=True, **options)
    for subset in ("training", "validation"):
        paths, labels = get_training_or_validation_split(*found[:2], 0.3, subset)
        ours = image_dataset_from_directory(
            tmp_path, image_size=2, validation_split=0.3, subset=subset, **options
        )
        assert ours.file_paths == paths
        assert ours.class_names == found[2]
        ours._shuffle = False
        ((_, y),) = ours
        np.testing.assert_array_equal(y, labels)
