"""Shapes: lengths and padding equal a walk over all windows, and those of others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnnrnn import shapes

lengths, kernels = st.integers(1, 30), st.integers(1, 7)
strides, dilations = st.integers(1, 9), st.integers(1, 4)


@pytest.mark.parametrize(
    ("value", "rank", "expected"),
    [
        (3, 1, (3,)),
        (3, 3, (3, 3, 3)),
        ((1, 2), 2, (1, 2)),
        ([4], 1, (4,)),
        (np.int64(2), 2, (2, 2)),
        ((np.uint8(2), 3), 2, (2, 3)),
    ],
)
def test_to_tuple(value, rank, expected):
    result = shapes.to_tuple(value, rank, "strides", "conv")
    assert result == expected
    assert all(type(entry) is int for entry in result)


@pytest.mark.parametrize(
    "value", [0, -1, True, 2.0, "3", None, (), (1,), (1, 2, 3), (1, 0), (1, 2.0), (True, 1), {1, 2}]
)
def test_to_tuple_names_the_layer_and_what_it_received(value):
    with pytest.raises(
        ValueError, match="layer 'conv2d': Expected strides to be .* Received: "
    ) as error:
        shapes.to_tuple(value, 2, "strides", "conv2d")
    assert repr(value) in str(error.value)


def test_to_tuple_may_allow_zero():
    assert shapes.to_tuple((0, 1), 2, "cropping", "crop", minimum=0) == (0, 1)
    with pytest.raises(ValueError, match="at least 0"):
        shapes.to_tuple(-1, 1, "cropping", "crop", minimum=0)


@given(lengths, kernels, strides, dilations)
def test_valid_counts_the_windows_inside(length, kernel, stride, dilation):
    inside = 0
    while inside * stride + (kernel - 1) * dilation < length:
        inside += 1
    assert shapes.output_length(length, kernel, stride, dilation, "valid") == inside
    assert shapes.padding_before(length, kernel, stride, dilation, "valid") == 0


@given(lengths, kernels, strides, dilations)
def test_same_pads_as_little_as_possible_and_the_odd_one_behind(length, kernel, stride, dilation):
    starts = range(0, length, stride)
    assert shapes.output_length(length, kernel, stride, dilation, "same") == len(starts)
    before = shapes.padding_before(length, kernel, stride, dilation, "same")
    behind = max(starts[-1] - before + (kernel - 1) * dilation + 1 - length, 0)
    assert 0 <= behind - before <= 1 or (before == 0 and behind == 0)
    needed = starts[-1] + (kernel - 1) * dilation + 1 - length
    assert before + behind == max(needed, 0)


@given(lengths, kernels, strides, dilations)
def test_causal_never_looks_ahead(length, kernel, stride, dilation):
    before = shapes.padding_before(length, kernel, stride, dilation, "causal")
    starts = range(0, length, stride)
    assert shapes.output_length(length, kernel, stride, dilation, "causal") == len(starts)
    for start in starts:
        taps = [start - before + k * dilation for k in range(kernel)]
        assert max(taps) == start


@pytest.mark.parametrize("padding", shapes.PADDINGS)
def test_an_unknown_length_stays_unknown(padding):
    assert shapes.output_length(None, 3, 2, 1, padding) is None


def test_a_kernel_that_does_not_fit_leaves_nothing():
    assert shapes.output_length(4, 3, 1, 2, "valid") == 0
    assert shapes.output_length(1, 7, 9, 4, "valid") == 0


@pytest.mark.parametrize("padding", ["full", "SAME", None, 1])
def test_unknown_padding_raises(padding):
    with pytest.raises(ValueError, match="Expected padding to be one of"):
        shapes.output_length(4, 3, 1, 1, padding)
    with pytest.raises(ValueError, match="Expected padding to be one of"):
        shapes.padding_before(4, 3, 1, 1, padding)


@given(lengths, kernels, strides, dilations)
def test_valid_lengths_equal_those_of_torch(length, kernel, stride, dilation):
    torch = pytest.importorskip("torch")
    expected = shapes.output_length(length, kernel, stride, dilation, "valid")
    if expected:
        x, w = torch.ones(1, 1, length), torch.ones(1, 1, kernel)
        y = torch.nn.functional.conv1d(x, w, stride=stride, dilation=dilation)
        assert y.shape[-1] == expected
