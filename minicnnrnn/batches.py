"""Batches made while they are drawn: windows of a time series, images from folders.

A Keras user finds both functions in ``minicnnrnn.utils``.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minicnnrnn.arrays import Array, as_array
from minicnnrnn.random import generator
from minicnnrnn.shapes import is_integer, is_real

FORMATS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
CHANNELS = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}
# Keras' names, and Pillow's.
INTERPOLATIONS = {
    "area": "BOX",
    "bicubic": "BICUBIC",
    "bilinear": "BILINEAR",
    "lanczos3": "LANCZOS",
    "nearest": "NEAREST",
}


class Batches:
    """Batches of samples that are loaded by their numbers, pass after pass.

    ``fit``, ``evaluate`` and ``predict`` take it as `x`; so does a ``for`` loop.

    Parameters
    ----------
    samples : int
    load : callable
        Maps an array of numbers from 0 to `samples` - 1 to a batch ``x`` or ``(x, y)``.
    batch_size : int
        The last batch of a pass may be smaller.
    shuffle : bool
        Draw a new order in every pass.
    seed : int, optional
        Decides the orders; left out, ``set_random_seed`` does.

    Attributes
    ----------
    class_names, file_paths : list of str or None
        Of images from folders.

    Examples
    --------
    >>> batches = Batches(5, lambda numbers: numbers * 10, 2, False)
    >>> len(batches), [batch.tolist() for batch in batches]
    (3, [[0, 10], [20, 30], [40]])
    """

    class_names: list[str] | None = None
    file_paths: list[str] | None = None

    def __init__(
        self,
        samples: int,
        load: Callable[[Array], Any],
        batch_size: int,
        shuffle: bool,
        seed: int | None = None,
    ) -> None:
        if not is_integer(batch_size, 1):
            raise ValueError(f"batch_size: Expected a positive integer. Received: {batch_size!r}")
        self.samples, self.batch_size = samples, int(batch_size)
        self._load, self._shuffle, self._rng = load, bool(shuffle), generator(seed, "batches")

    def __len__(self) -> int:
        """Number of batches in a pass."""
        return -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """Draw every sample once."""
        rng = self._rng
        order = rng.permutation(self.samples) if self._shuffle else np.arange(self.samples)
        for start in range(0, self.samples, self.batch_size):
            yield self._load(order[start : start + self.batch_size])


def timeseries_dataset_from_array(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
    format: str = "tf",
) -> Batches:
    """Cut a time series into windows, without copying it.

    Parameters
    ----------
    data : array-like (steps, ...)
        The series, at equal intervals.
    targets : array-like or None
        ``targets[i]`` belongs to the window that begins at ``data[i]``; ``None`` for windows alone.
    sequence_length : int
        Steps of a window.
    sequence_stride : int
        Steps between the beginnings of two windows.
    sampling_rate : int
        Steps of the series between two steps of a window.
    batch_size : int
    shuffle : bool
    seed : int, optional
    start_index, end_index : int, optional
        Only use ``data[start_index:end_index]``.
    format : ignored; Keras says there which library to use

    Returns
    -------
    Batches
        Of ``x``, or of ``(x, y)`` if there are targets.

    Raises
    ------
    ValueError
        Also if the series is shorter than a window.

    Examples
    --------
    The three steps before each step, to predict it:

    >>> series = np.arange(6)
    >>> batches = timeseries_dataset_from_array(series, series[3:], 3, batch_size=2)
    >>> [(x.tolist(), y.tolist()) for x, y in batches]
    [([[0, 1, 2], [1, 2, 3]], [3, 4]), ([[2, 3, 4]], [5])]
    """
    series = as_array(data, "data")
    wanted = None if targets is None else as_array(targets, "targets")
    length, stride, rate = (
        _positive(name, value)
        for name, value in (
            ("sequence_length", sequence_length),
            ("sequence_stride", sequence_stride),
            ("sampling_rate", sampling_rate),
        )
    )
    start = 0 if start_index is None else start_index
    end = len(series) if end_index is None else end_index
    if not (is_integer(start, 0) and is_integer(end, 1) and start < end <= len(series)):
        raise ValueError(
            f"Expected 0 <= start_index < end_index <= {len(series)}, the length of data. "
            f"Received: {start_index!r} and {end_index!r}"
        )
    windows = end - start - (length - 1) * rate
    if wanted is not None:
        windows = min(windows, len(wanted) - start)
    if windows < 1:
        raise ValueError(
            f"Expected a window of {length} steps, {rate} apart, to fit data of {end - start} steps"
            f"{'' if wanted is None else ' and its targets'}. Received: one that does not."
        )
    begins = np.arange(start, start + windows, stride)
    steps = np.arange(0, length * rate, rate)

    def load(numbers: Array) -> Any:
        chosen = begins[numbers]
        x = series[chosen[:, None] + steps]
        return x if wanted is None else (x, wanted[chosen])

    return Batches(len(begins), load, batch_size, shuffle, seed)


def image_dataset_from_directory(
    directory: str | os.PathLike[str],
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    color_mode: str = "rgb",
    batch_size: int = 32,
    image_size: Any = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: str | None = None,
    format: str = "tf",
    verbose: bool = True,
) -> Any:
    """Load images from folders, a folder a class, while a model trains on them.

    Parameters
    ----------
    directory : str or path
        Its folders are the classes, in the order of their names; images may lie deeper in them.
    labels : "inferred", list of int, or None
        From the folders; one for each file in the order of the paths; or no labels.
    label_mode : {"int", "categorical", "binary", None}
        int32 labels (N,), one-hot float32 (N, classes), float32 0 or 1 (N, 1), or no labels.
    class_names : list of str, optional
        The folders to use, in this order.
    color_mode : {"rgb", "rgba", "grayscale"}
    batch_size : int
    image_size : (int, int) or int
        Height and width that images are resized to.
    shuffle : bool
        Mix the files, and draw a new order in every pass; else they come in order.
    seed : int, optional
        Decides both; a validation set of files that were mixed needs it.
    validation_split : float, optional
        Share of the files, from the end, that is set apart.
    subset : {"training", "validation", "both"}, optional
        Which part to return, if there is a `validation_split`.
    interpolation : {"bilinear", "nearest", "bicubic", "area", "lanczos3"}
        Through Pillow, which also smooths what it makes smaller; TensorFlow does not.
    follow_links : bool
        Enter folders that are links.
    crop_to_aspect_ratio, pad_to_aspect_ratio : bool
        Cut the image around its middle, or put black around it, in place of distorting it.
    data_format : None or "channels_last"
    format : ignored; Keras says there which library to use
    verbose : bool
        Print how many files were found.

    Returns
    -------
    Batches, or a list of two with ``subset="both"``
        Of ``(images, labels)``, or of images alone; images are float32 (N, height, width,
        channels) from 0 to 255. ``class_names`` and ``file_paths`` tell what was found.

    Raises
    ------
    ImportError
        Without Pillow, the extra ``images``.
    ValueError
        For wrong arguments and folders without images at once; for a file that is no image when
        its turn comes.
    """
    _require_pillow()
    if data_format not in (None, "channels_last"):
        raise ValueError(f"data_format: Expected 'channels_last'. Received: {data_format!r}")
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ValueError("Expected one of crop_to_aspect_ratio, pad_to_aspect_ratio. Received both")
    for name, value, allowed in (
        ("label_mode", label_mode, ("int", "categorical", "binary", None)),
        ("color_mode", color_mode, tuple(CHANNELS)),
        ("interpolation", interpolation, tuple(INTERPOLATIONS)),
        ("subset", subset, ("training", "validation", "both", None)),
    ):
        if value not in allowed:
            raise ValueError(f"{name}: Expected one of {allowed}. Received: {value!r}")
    _check_split(validation_split, subset, shuffle, seed)
    if labels is None or label_mode is None:
        labels = label_mode = None
    sides = (image_size,) * 2 if is_integer(image_size, 1) else image_size
    if not (
        isinstance(sides, tuple | list) and len(sides) == 2 and all(is_integer(n, 1) for n in sides)
    ):
        raise ValueError(f"image_size: Expected two positive integers. Received: {image_size!r}")
    paths, numbers, names = _index(os.fspath(directory), labels, class_names, follow_links)
    if not paths:
        raise ValueError(f"Expected images ({', '.join(FORMATS)}) in {directory}. Received: none")
    if label_mode == "binary" and len(names or ()) != 2:
        raise ValueError(f"label_mode 'binary': Expected two classes. Received: {names}")
    if verbose:
        classes = "" if names is None else f" belonging to {len(names)} classes"
        print(f"Found {len(paths)} files{classes}.")
    if shuffle:
        # NumPy's older generator: with Keras' seed the parts hold the files that Keras has there.
        seeds = generator(seed, "files").integers(2**32) if seed is None else seed
        order = np.random.RandomState(seeds).permutation(len(paths))
        paths, numbers = [paths[i] for i in order], numbers[order]
    height, width = (int(n) for n in sides)
    kind = CHANNELS[color_mode], INTERPOLATIONS[interpolation]
    fitting = "crop" if crop_to_aspect_ratio else "pad" if pad_to_aspect_ratio else "distort"

    def batches(files: slice, mixed: bool) -> Batches:
        chosen, own = paths[files], numbers[files]

        def load(positions: Array) -> Any:
            x = np.stack([_read(chosen[i], (height, width), *kind, fitting) for i in positions])
            return x if label_mode is None else (x, _labels(own[positions], label_mode, names))

        made = Batches(len(chosen), load, batch_size, mixed, seed)
        made.class_names, made.file_paths = names, chosen
        return made

    if not validation_split:
        return batches(slice(None), shuffle)
    cut = len(paths) - int(validation_split * len(paths))
    if not 0 < cut < len(paths):
        raise ValueError(
            "Expected validation_split to leave files for both parts. "
            f"Received: {validation_split} of {len(paths)} files"
        )
    if verbose:
        print(f"Using {cut} files for training, {len(paths) - cut} for validation.")
    if subset == "both":
        return [batches(slice(cut), shuffle), batches(slice(cut, None), False)]
    return batches(slice(cut) if subset == "training" else slice(cut, None), shuffle)


def _positive(name: str, value: Any) -> int:
    if not is_integer(value, 1):
        raise ValueError(f"{name}: Expected a positive integer. Received: {value!r}")
    return int(value)


def _require_pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise ImportError(
            "image_dataset_from_directory needs Pillow: pip install 'minicnnrnn[images]'"
        ) from None


def _check_split(fraction: Any, subset: str | None, shuffle: bool, seed: int | None) -> None:
    if fraction is not None and not (is_real(fraction, 0, 1) and fraction < 1):
        raise ValueError(
            f"validation_split: Expected a number from 0 to below 1. Received: {fraction!r}"
        )
    if bool(fraction) != (subset is not None):
        raise ValueError(
            f"Expected validation_split and subset together. Received: {fraction!r} and {subset!r}"
        )
    if fraction and shuffle and seed is None and subset != "both":
        raise ValueError(
            "Expected a seed with validation_split and shuffle, so that the two parts share no "
            "file. Received: None"
        )


def _index(
    directory: str, labels: Any, class_names: Sequence[str] | None, follow_links: bool
) -> tuple[list[str], Array, list[str] | None]:
    """The paths of all images in order, a label for each, and the names of the classes."""
    if not os.path.isdir(directory):
        raise ValueError(f"directory: Expected a folder. Received: {directory!r}")
    if isinstance(labels, str) and labels == "inferred":
        return _index_folders(directory, class_names, follow_links)
    if class_names is not None:
        raise ValueError("Expected class_names only with labels='inferred'. Received: both")
    paths = _images_in(directory, follow_links)
    if labels is None:
        return paths, np.zeros(len(paths), np.int32), None
    if not isinstance(labels, list | tuple) or not all(is_integer(n, 0) for n in labels):
        raise ValueError(
            f"labels: Expected 'inferred', a list of integers, or None. Received: {labels!r}"
        )
    if len(labels) != len(paths):
        raise ValueError(
            f"labels: Expected one for each of the {len(paths)} files in {directory}. "
            f"Received: {len(labels)}"
        )
    return paths, np.array(labels, np.int32), [str(n) for n in sorted(set(labels))]


def _index_folders(
    directory: str, class_names: Sequence[str] | None, follow_links: bool
) -> tuple[list[str], Array, list[str]]:
    folders = sorted(
        name
        for name in os.listdir(directory)
        if os.path.isdir(os.path.join(directory, name)) and not name.startswith(".")
    )
    names = folders if class_names is None else list(class_names)
    if not set(names) <= set(folders):
        raise ValueError(f"class_names: Expected folders, of {folders}. Received: {names}")
    found = [_images_in(os.path.join(directory, name), follow_links) for name in names]
    counts = [len(paths) for paths in found]
    labels = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    return [path for paths in found for path in paths], labels, names


def _images_in(folder: str, follow_links: bool) -> list[str]:
    """All images in a folder and in those inside it, in the order of their names."""
    return [
        os.path.join(root, name)
        for root, _, files in sorted(os.walk(folder, followlinks=follow_links))
        for name in sorted(files)
        if name.lower().endswith(FORMATS)
    ]


def _labels(numbers: Array, mode: str, names: list[str] | None) -> Array:
    if mode == "int":
        return numbers
    table = (
        numbers[:, None] if mode == "binary" else numbers[:, None] == np.arange(len(names or ()))
    )
    return np.asarray(table, np.float32)


def _read(path: str, size: tuple[int, int], mode: str, interpolation: str, fitting: str) -> Array:
    """One image as float32 (height, width, channels)."""
    from PIL import Image, ImageOps

    height, width = size
    method = Image.Resampling[interpolation]
    try:
        with Image.open(path) as file:
            image = file.convert(mode)
    except OSError as error:
        raise ValueError(f"Expected an image in {path}. Received: {error}") from None
    if fitting == "pad":
        image = ImageOps.pad(image, (width, height), method)
    else:
        box = _middle(image.size, size) if fitting == "crop" else None
        image = image.resize((width, height), method, box)
    return np.asarray(image, np.float32).reshape(height, width, -1)


def _middle(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box around the middle with the target's aspect ratio: left, top, right, bottom.

    Examples
    --------
    >>> _middle((8, 4), (5, 5))
    (2, 0, 6, 4)
    """
    (W, H), (height, width) = size, target
    h = max(min(H, W * height // width), 1)
    w = max(min(W, H * width // height), 1)
    left, top = (W - w) // 2, (H - h) // 2
    return left, top, left + w, top + h
