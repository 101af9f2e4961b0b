"""Batches: windows and images, drawn pass after pass, and what ``fit`` makes of them."""

import builtins

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnnrnn import Sequential, layers
from minicnnrnn.batches import Batches
from minicnnrnn.utils import image_dataset_from_directory as images
from minicnnrnn.utils import set_random_seed
from minicnnrnn.utils import timeseries_dataset_from_array as windows


def drawn(batches):
    return [number for batch in batches for number in batch.tolist()]


def test_every_pass_draws_every_sample_once():
    batches = Batches(7, lambda numbers: numbers, 3, True, seed=0)
    passes = [drawn(batches) for _ in range(3)]
    assert len(batches) == 3
    assert len({tuple(one) for one in passes}) == 3
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert drawn(Batches(7, lambda numbers: numbers, 3, True, seed=0)) == passes[0]
    assert drawn(Batches(7, lambda numbers: numbers, 3, False)) == list(range(7))


def test_the_global_seed_decides_where_there_is_no_other():
    orders = []
    for _ in range(2):
        set_random_seed(3)
        orders.append(drawn(Batches(20, lambda numbers: numbers, 3, True)))
    assert orders[0] == orders[1]


# --- time series -----------------------------------------------------------------------


def test_the_example_of_keras():
    batches = windows(np.arange(99), None, 10, sequence_stride=3, sampling_rate=2)
    (x,) = batches
    assert x[0].tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert x[1].tolist() == [3, 5, 7, 9, 11, 13, 15, 17, 19, 21]
    assert x[-1].tolist() == [78, 80, 82, 84, 86, 88, 90, 92, 94, 96]
    assert batches.samples == len(x) == 27


@given(*(st.integers(1, n) for n in (30, 6, 4, 4, 7)), st.booleans(), st.data())
def test_windows_are_what_a_loop_finds(steps, length, stride, rate, size, labelled, data):
    start = data.draw(st.integers(0, steps - 1))
    end = data.draw(st.integers(start + 1, steps))
    series = np.arange(2 * steps).reshape(steps, 2)
    targets = np.arange(100, 100 + data.draw(st.integers(1, steps))) if labelled else None
    expected = [
        i
        for i in range(start, end, stride)
        if i + (length - 1) * rate < end and (targets is None or i < len(targets))
    ]
    options = {"sequence_stride": stride, "sampling_rate": rate, "batch_size": size,
               "start_index": start, "end_index": end}  # fmt: skip
    if not expected:
        with pytest.raises(ValueError, match="Expected a window"):
            windows(series, targets, length, **options)
        return
    batches = windows(series, targets, length, **options)
    parts = list(batches)
    assert len(parts) == len(batches)
    if labelled:
        assert np.concatenate([y for _, y in parts]).tolist() == [100 + i for i in expected]
        parts = [x for x, _ in parts]
    found = np.concatenate(parts)
    assert found.tolist() == [[series[i + j * rate].tolist() for j in range(length)]
                              for i in expected]  # fmt: skip


def test_fit_takes_windows_as_often_as_it_wants():
    wave = np.sin(np.arange(300) / 5)[:, None]
    batches = windows(wave, wave[10:], 10, batch_size=32, shuffle=True, seed=0)
    model = Sequential([layers.SimpleRNN(8), layers.Dense(1)], seed=0)
    history = model.fit(batches, epochs=40, verbose=0).history["loss"]
    assert history[-1] < 0.01 < 0.1 < history[0]
    assert model.evaluate(batches)[0] < 0.01
    assert model.predict(windows(wave, None, 10)).shape == (291, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequence_length": 0}, "sequence_length: Expected a positive integer"),
        ({"sequence_stride": 1.5}, "sequence_stride: Expected a positive integer"),
        ({"sampling_rate": -1}, "sampling_rate: Expected a positive integer"),
        ({"batch_size": None}, "batch_size: Expected a positive integer"),
        ({"start_index": 10}, "Expected 0 <= start_index < end_index <= 10"),
        ({"start_index": 3, "end_index": 3}, "Expected 0 <= start_index < end_index"),
        ({"end_index": 11}, "Expected 0 <= start_index < end_index <= 10"),
        ({"sequence_length": 11}, "Expected a window of 11 steps, 1 apart, to fit data of 10"),
        ({"targets": [1], "start_index": 1}, "and its targets"),
    ],
)
def test_wrong_arguments_of_windows(arguments, message):
    given_ = {"data": np.arange(10), "targets": None, "sequence_length": 2}
    with pytest.raises(ValueError, match=message):
        windows(**(given_ | arguments))


# --- images ----------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Three cats and two dogs: each picture is filled with its number, four by six."""
    Image = pytest.importorskip("PIL.Image")
    number = 0
    for name, count in (("cats", 3), ("dogs", 2), (".hidden", 1)):
        (tmp_path / name / "more").mkdir(parents=True)
        for i in range(count):
            folder = tmp_path / name / "more" if i == 2 else tmp_path / name
            Image.new("RGB", (6, 4), (number, number, 100)).save(folder / f"{i}.PNG")
            number += 1
    (tmp_path / "cats" / "notes.txt").write_text("no image")
    return tmp_path


def test_classes_are_folders(folders, capsys):
    batches = images(folders, image_size=(4, 6), shuffle=False, batch_size=2)
    assert capsys.readouterr().out == "Found 5 files belonging to 2 classes.\n"
    assert batches.class_names == ["cats", "dogs"]
    assert batches.file_paths == [
        str(folders / path)
        for path in ("cats/0.PNG", "cats/1.PNG", "cats/more/2.PNG", "dogs/0.PNG", "dogs/1.PNG")
    ]
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert (x.dtype, x.shape, y.dtype) == (np.float32, (5, 4, 6, 3), np.int32)
    assert x[:, 3, 5].tolist() == [[n, n, 100] for n in range(5)]
    assert y.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"label_mode": "categorical"}, [[1, 0]] * 3 + [[0, 1]] * 2),
        ({"label_mode": "binary"}, [[0], [0], [0], [1], [1]]),
        ({"class_names": ["dogs", "cats"]}, [0, 0, 1, 1, 1]),
        ({"class_names": ["dogs"]}, [0, 0]),
        ({"labels": [4, 5, 6, 5, 4, 4]}, [4, 5, 6, 5, 4, 4]),
    ],
)
def test_labels(folders, options, expected):
    batches = images(folders, image_size=2, shuffle=False, verbose=False, **options)
    ((_, y),) = batches
    assert y.tolist() == expected
    if "labels" in options:  # in the order of the paths, hidden folders included
        assert batches.class_names == ["4", "5", "6"]


@pytest.mark.parametrize("options", [{"labels": None}, {"label_mode": None}])
def test_images_alone(folders, options, capsys):
    batches = images(folders, image_size=(4, 6), shuffle=False, **options)
    (x,) = batches
    assert x.shape == (6, 4, 6, 3)
    assert batches.class_names is None
    assert capsys.readouterr().out == "Found 6 files.\n"


@pytest.mark.parametrize(("mode", "channels"), [("rgb", 3), ("rgba", 4), ("grayscale", 1)])
def test_color_modes(folders, mode, channels):
    ((x, _),) = images(folders, color_mode=mode, image_size=(4, 6), verbose=False, shuffle=False)
    assert x.shape == (5, 4, 6, channels)
    assert x[4, 0, 0, -1] == {"rgb": 100, "rgba": 255, "grayscale": 15}[mode]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"interpolation": "nearest"}, [[30, 90, 150]] * 3),
        ({"interpolation": "area"}, [[15, 75, 135]] * 3),
        ({"crop_to_aspect_ratio": True, "interpolation": "nearest"}, [[60, 90, 90]] * 3),
        ({"pad_to_aspect_ratio": True, "interpolation": "nearest"},
         [[0, 0, 0], [30, 90, 150], [0, 0, 0]]),
    ],
)  # fmt: skip
def test_fitting_the_size(tmp_path, options, expected):
    Image = pytest.importorskip("PIL.Image")
    row = np.arange(0, 180, 30, np.uint8)  # two high and six wide
    Image.fromarray(np.stack([row, row])).save(tmp_path / "a.bmp")
    (x,) = images(tmp_path, None, color_mode="grayscale", image_size=(3, 3), verbose=False,
                  **options)  # fmt: skip
    assert x[0, ..., 0].tolist() == expected


def test_bilinear_is_pillows(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    picture = Image.fromarray(np.arange(0, 240, 10, np.uint8).reshape(4, 6))
    picture.save(tmp_path / "a.png")
    (x,) = images(tmp_path, None, color_mode="grayscale", image_size=(8, 12), verbose=False)
    expected = np.asarray(picture.resize((12, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(x[0, ..., 0], expected)


def test_the_two_parts_share_no_file(folders):
    options = {"validation_split": 0.4, "seed": 1, "image_size": 2, "verbose": False}
    training = images(folders, subset="training", **options)
    validation = images(folders, subset="validation", **options)
    assert (training.samples, validation.samples) == (3, 2)
    assert len({*training.file_paths, *validation.file_paths}) == 5
    both = images(folders, subset="both", **options)
    assert [part.file_paths for part in both] == [training.file_paths, validation.file_paths]


def test_a_network_learns_from_folders(folders):
    training = images(folders, image_size=(4, 6), seed=0, verbose=False)
    model = Sequential([layers.Flatten(), layers.Dense(2, activation="softmax")], seed=0)
    history = model.fit(training, validation_data=training, epochs=2, verbose=0).history
    assert np.isfinite(history["val_loss"]).all()
    assert model.predict(training).shape == (5, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_mode": "float"}, "label_mode: Expected one of"),
        ({"color_mode": "bgr"}, "color_mode: Expected one of"),
        ({"interpolation": "gaussian"}, "interpolation: Expected one of"),
        ({"subset": "test"}, "subset: Expected one of"),
        ({"image_size": (2, 0)}, "image_size: Expected two positive integers"),
        ({"image_size": 2.5}, "image_size: Expected two positive integers"),
        ({"data_format": "channels_first"}, "data_format: Expected 'channels_last'"),
        ({"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": True}, "Expected one of crop"),
        ({"class_names": ["birds"]}, "class_names: Expected folders"),
        ({"class_names": ["dogs"], "label_mode": "binary"}, "Expected two classes"),
        ({"labels": [1, 2]}, "labels: Expected one for each of the 6 files"),
        ({"labels": "folders"}, "labels: Expected 'inferred'"),
        ({"labels": None, "class_names": ["dogs"]}, "Expected class_names only"),
        ({"validation_split": 1.0, "subset": "both"}, "validation_split: Expected a number"),
        ({"validation_split": 0.5}, "Expected validation_split and subset together"),
        ({"subset": "training"}, "Expected validation_split and subset together"),
        ({"validation_split": 0.5, "subset": "training"}, "Expected a seed"),
        ({"validation_split": 0.01, "subset": "both"}, "leave files for both parts"),
        ({"batch_size": 0}, "batch_size: Expected a positive integer"),
    ],
)
def test_wrong_arguments_of_images(folders, options, message):
    with pytest.raises(ValueError, match=message):
        images(folders, verbose=False, **options)


def test_folders_and_files_that_are_none(folders, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="directory: Expected a folder"):
        images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"Expected images \(.bmp, .gif"):
        images(tmp_path / "empty")
    (folders / "cats" / "0.PNG").write_text("no image")
    with pytest.raises(ValueError, match="Expected an image in .*0.PNG"):
        list(images(folders, verbose=False))
    imported = builtins.__import__

    def without_pillow(name, *arguments, **options):
        if name == "PIL":
            raise ImportError(name)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(ImportError, match=r"pip install 'minicnnrnn\[images\]'"):
        images(folders)
