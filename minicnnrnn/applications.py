"""Applications: the named networks, each a plain Sequential to print, change and train.

None comes with trained weights. Sizes of images and numbers of classes are free; the defaults
are those of the papers, whose numbers of parameters they have.
"""

from collections.abc import Sequence
from typing import Any

from minicnnrnn import layers
from minicnnrnn.layers import (
    Activation,
    AveragePooling2D,
    BatchNormalization,
    Branches,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    Input,
    MaxPooling2D,
    Residual,
)
from minicnnrnn.sequential import Sequential
from minicnnrnn.shapes import is_integer, is_real

VGG = {  # convolutions in each of the five stages, by the number of layers with weights
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
RESNET_SMALL = {20: 3, 32: 5, 56: 9}  # blocks in each of the three stages
RESNET_LARGE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
INCEPTION = (  # filters: 1x1; 1x1 before 3x3, 3x3; 1x1 before 5x5, 5x5; 1x1 behind the pooling
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


def lenet5(input_shape: Any = (28, 28, 1), classes: int = 10, **kwargs: Any) -> Sequential:
    """LeNet-5: two convolutions, two poolings, three dense layers.

    Parameters
    ----------
    input_shape : tuple
        (height, width, channels).
    classes : int
    **kwargs
        `seed`, `device`, `name` of the Sequential.

    Notes
    -----
    LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", section II.B, as
    it is built since: every map sees all maps before it, poolings have no weights, and a softmax
    takes the place of the radial basis functions. 61,706 parameters.

    Examples
    --------
    >>> from minicnnrnn.applications import lenet5
    >>> lenet5().count_params()
    61706
    """
    return Sequential(
        [
            Input(input_shape),
            Conv2D(6, 5, padding="same", activation="tanh"),
            AveragePooling2D(2),
            Conv2D(16, 5, activation="tanh"),
            AveragePooling2D(2),
            Flatten(),
            Dense(120, activation="tanh"),
            Dense(84, activation="tanh"),
            Dense(_count("classes", classes), activation="softmax"),
        ],
        **_named(kwargs, "lenet5"),
    )


def vgg(
    depth: int = 16,
    width: float = 1.0,
    input_shape: Any = (224, 224, 3),
    classes: int = 1000,
    batch_normalization: bool = False,
    **kwargs: Any,
) -> Sequential:
    """VGG: nothing but convolutions of three pixels, and a pooling between five stages.

    Parameters
    ----------
    depth : {11, 13, 16, 19}
        Layers with weights.
    width : float
        Factor on all filters and hidden units.
    input_shape : tuple
        (height, width, channels); each stage halves an image, rounding up.
    classes : int
    batch_normalization : bool
        Normalize behind every convolution, which the paper did not know yet.
    **kwargs
        `seed`, `device`, `name` of the Sequential.

    Notes
    -----
    Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", arXiv:1409.1556, table 1, columns A, B, D and E.

    Examples
    --------
    >>> from minicnnrnn.applications import vgg
    >>> vgg(16).count_params()
    138357544
    """
    stages = _choose("depth", depth, VGG)
    factor = _factor(width)
    built: list[Any] = [Input(input_shape)]
    for filters, convolutions in zip((64, 128, 256, 512, 512), stages):
        for _ in range(convolutions):
            built += _convolution(_scaled(filters, factor), 3, batch_normalization)
        built.append(MaxPooling2D(2, padding="same"))
    built.append(Flatten())
    for _ in range(2):
        hidden = _scaled(4096, factor)
        built += [Dense(hidden, activation="relu", kernel_initializer="he_uniform"), Dropout(0.5)]
    built.append(Dense(_count("classes", classes), activation="softmax"))
    return Sequential(built, **_named(kwargs, f"vgg{depth}"))


def resnet(
    depth: int = 50, input_shape: Any = None, classes: int | None = None, **kwargs: Any
) -> Sequential:
    """ResNet: blocks that learn what to add to their input.

    Parameters
    ----------
    depth : {20, 32, 56} for small images, {18, 34, 50} for large ones
        Layers with weights, shortcuts not counted.
    input_shape : tuple, optional
        (height, width, channels); left out, (32, 32, 3) or (224, 224, 3).
    classes : int, optional
        Left out, 10 or 1000.
    **kwargs
        `seed`, `device`, `name` of the Sequential.

    Notes
    -----
    He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv:1512.03385: table 1 for
    large images, section 4.2 for small ones. Where a block changes the shape, its shortcut is a
    convolution of one pixel (option B of the paper).

    Examples
    --------
    >>> from minicnnrnn.applications import resnet
    >>> sum(w.size for w in resnet(50).weights if w.trainable)
    25557032
    """
    if depth in RESNET_SMALL:
        shape, outputs = input_shape or (32, 32, 3), 10 if classes is None else classes
        built: list[Any] = [Input(shape), *_normalized(16, 3), Activation("relu")]
        stages, filters, block = (RESNET_SMALL[depth],) * 3, 16, _basic_block
    else:
        stages = _choose("depth", depth, RESNET_SMALL | RESNET_LARGE)
        shape, outputs = input_shape or (224, 224, 3), 1000 if classes is None else classes
        built = [Input(shape), *_normalized(64, 7, 2), Activation("relu")]
        built.append(MaxPooling2D(3, strides=2, padding="same"))
        filters, block = 64, _bottleneck if depth == 50 else _basic_block
    for stage, blocks in enumerate(stages):
        for i in range(blocks):
            strides = 2 if stage > 0 and i == 0 else 1
            changes = i == 0 and (stage > 0 or block is _bottleneck)
            built.append(block(filters << stage, strides, changes))
    built += [GlobalAveragePooling2D(), Dense(_count("classes", outputs), activation="softmax")]
    return Sequential(built, **_named(kwargs, f"resnet{depth}"))


def inception(
    input_shape: Any = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    batch_normalization: bool = False,
    **kwargs: Any,
) -> Sequential:
    """GoogLeNet: nine blocks of four branches each, with windows of one, three and five pixels.

    Parameters
    ----------
    input_shape : tuple
        (height, width, channels). Images of less than 64 pixels begin with one convolution of
        three pixels and a pooling, in place of a stem that makes them eight times smaller.
    classes : int
    width : float
        Factor on all filters.
    batch_normalization : bool
        Normalize behind every convolution (Ioffe and Szegedy 2015, arXiv:1502.03167).
    **kwargs
        `seed`, `device`, `name` of the Sequential.

    Notes
    -----
    Szegedy et al. 2015, "Going Deeper with Convolutions", arXiv:1409.4842, table 1, without the
    auxiliary classifiers: 6,998,552 parameters.

    Examples
    --------
    >>> from minicnnrnn.applications import inception
    >>> inception().count_params()
    6998552
    """
    factor, normalize = _factor(width), batch_normalization
    built: list[Any] = [Input(input_shape)]
    if min(input_shape[:2]) < 64:
        built += _convolution(_scaled(64, factor), 3, normalize)
        built.append(MaxPooling2D(3, strides=2, padding="same"))
    else:
        built += _convolution(_scaled(64, factor), 7, normalize, 2)
        built.append(MaxPooling2D(3, strides=2, padding="same"))
        built += _convolution(_scaled(64, factor), 1, normalize)
        built += _convolution(_scaled(192, factor), 3, normalize)
        built.append(MaxPooling2D(3, strides=2, padding="same"))
    for stage, blocks in enumerate(INCEPTION):
        if stage > 0:
            built.append(MaxPooling2D(3, strides=2, padding="same"))
        built += [_inception_block([_scaled(f, factor) for f in b], normalize) for b in blocks]
    built += [GlobalAveragePooling2D(), Dropout(0.4)]
    built.append(Dense(_count("classes", classes), activation="softmax"))
    return Sequential(built, **_named(kwargs, "inception"))


def _convolution(filters: int, size: int, normalize: bool, strides: int = 1) -> list[Any]:
    """A convolution and its relu, with a normalization between them if asked."""
    if normalize:
        return [*_normalized(filters, size, strides), Activation("relu")]
    return [
        Conv2D(filters, size, strides=strides, padding="same", activation="relu",
               kernel_initializer="he_uniform")
    ]  # fmt: skip


def _normalized(filters: int, size: int, strides: int = 1) -> list[Any]:
    """A convolution that needs no bias, since a normalization follows."""
    return [
        Conv2D(filters, size, strides=strides, padding="same", use_bias=False,
               kernel_initializer="he_normal"),
        BatchNormalization(),
    ]  # fmt: skip


def _basic_block(filters: int, strides: int, changes: bool) -> layers.Layer:
    """Two convolutions of three pixels (He et al. 2016, figure 5, left)."""
    inside = [*_normalized(filters, 3, strides), Activation("relu"), *_normalized(filters, 3)]
    shortcut = _normalized(filters, 1, strides) if changes else None
    return Residual(inside, shortcut, activation="relu")


def _bottleneck(filters: int, strides: int, changes: bool) -> layers.Layer:
    """Fewer channels around the convolution of three pixels (He et al. 2016, figure 5, right)."""
    inside = [
        *_normalized(filters, 1, strides),
        Activation("relu"),
        *_normalized(filters, 3),
        Activation("relu"),
        *_normalized(4 * filters, 1),
    ]
    shortcut = _normalized(4 * filters, 1, strides) if changes else None
    return Residual(inside, shortcut, activation="relu")


def _inception_block(filters: Sequence[int], normalize: bool) -> layers.Layer:
    """Four ways to look at the same pixels (Szegedy et al. 2015, figure 2b)."""
    one, three_in, three, five_in, five, pooled = filters
    return Branches(
        _convolution(one, 1, normalize),
        [*_convolution(three_in, 1, normalize), *_convolution(three, 3, normalize)],
        [*_convolution(five_in, 1, normalize), *_convolution(five, 5, normalize)],
        [MaxPooling2D(3, strides=1, padding="same"), *_convolution(pooled, 1, normalize)],
    )


def _named(kwargs: dict[str, Any], name: str) -> dict[str, Any]:
    return {"name": name} | kwargs


def _scaled(count: int, factor: float) -> int:
    return max(1, round(count * factor))


def _count(name: str, value: Any) -> int:
    if not is_integer(value, 1):
        raise ValueError(f"{name}: Expected an integer of at least 1. Received: {value!r}")
    return int(value)


def _factor(width: Any) -> float:
    if not is_real(width, 0, 1000) or width == 0:
        raise ValueError(f"width: Expected a positive number. Received: {width!r}")
    return float(width)


def _choose(name: str, value: Any, table: dict[int, Any]) -> Any:
    if value not in table:
        raise ValueError(f"{name}: Expected one of {sorted(table)}. Received: {value!r}")
    return table[value]
