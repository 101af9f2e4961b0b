"""The named networks have the papers' numbers of parameters, and train."""

import numpy as np
import pytest

from minicnnrnn import layers
from minicnnrnn.applications import inception, lenet5, resnet, vgg


def trained(model):
    """The papers count what is trained; the moving statistics of normalizations are not."""
    return sum(weight.size for weight in model.weights if weight.trainable)


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(11, 132_863_336), (13, 133_047_848), (16, 138_357_544), (19, 143_667_240)],
)
def test_vgg(depth, parameters):
    model = vgg(depth)
    assert model.count_params() == parameters
    assert model.output_shape == (None, 1000)
    assert sum(isinstance(layer, layers.Conv2D | layers.Dense) for layer in model.layers) == depth


@pytest.mark.parametrize(
    ("depth", "parameters", "paper"),
    [
        (20, 272_474, 0.27e6),
        (32, 466_906, 0.46e6),
        (56, 855_770, 0.85e6),
        (18, 11_689_512, 11.7e6),
        (34, 21_797_672, 21.8e6),
        (50, 25_557_032, 25.6e6),
    ],
)
def test_resnet(depth, parameters, paper):
    model = resnet(depth)
    assert trained(model) == parameters
    assert abs(parameters - paper) <= 0.02 * paper
    inside = [w for w in model.weights if w.name == "kernel" and w.shape[:2] != (1, 1)]
    shortcuts = sum(
        1
        for layer in model.layers
        if isinstance(layer, layers.Residual) and layer.children[1].layers
    )
    kernels = [w for w in model.weights if w.name == "kernel"]
    assert len(kernels) - shortcuts == depth
    assert inside


def test_inception():
    model = inception()
    assert model.count_params() == 6_998_552
    blocks = [layer for layer in model.layers if isinstance(layer, layers.Branches)]
    channels = [block.output_shape[-1] for block in blocks]
    assert channels == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    # Table 1 of the paper, parameters in units of 1024; its 463 for the fifth block does not follow
    # from the filters beside it, which give 498.
    table = [159, 380, 364, 437, 498, 580, 840, 1072, 1388]
    for block, units in zip(blocks, table):
        assert block.count_params() / 1024 == pytest.approx(units, rel=0.05)
    assert [block.output_shape[1] for block in blocks] == [28] * 2 + [14] * 5 + [7] * 2


def test_lenet5():
    model = lenet5()
    assert model.count_params() == 61_706
    assert [w.size for w in model.weights if w.name == "kernel"] == [150, 2400, 48000, 10080, 840]


@pytest.mark.parametrize(
    "make",
    [
        lambda: lenet5(seed=1),
        lambda: vgg(11, 1 / 32, (28, 28, 1), 10, batch_normalization=True, seed=1),
        lambda: resnet(20, (12, 12, 1), seed=1),
        lambda: inception((16, 16, 1), 10, 1 / 16, batch_normalization=True, seed=1),
    ],
    ids=["lenet5", "vgg", "resnet", "inception"],
)
def test_they_learn(make):
    """Ten images by heart."""
    model = make()
    shape = model.input_shape[1:]
    x, y = np.random.default_rng(0).normal(size=(10, *shape)).astype(np.float32), np.arange(10)
    first = model.fit(x, y, epochs=1, verbose=0).history["loss"][0]
    last = model.fit(x, y, epochs=30, verbose=0).history["loss"][-1]
    assert last < first / 2
    lines = []
    model.summary(print_fn=lines.append)
    assert lines[0] == f'Model: "{model.name}"'


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vgg(12), "depth: Expected one of"),
        (lambda: resnet(101), "depth: Expected one of"),
        (lambda: vgg(11, width=0), "width: Expected a positive number"),
        (lambda: inception(classes=0), "classes: Expected an integer"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
