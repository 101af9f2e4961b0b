"""Utilities: what Keras' namesakes do, and one clear error where they guess."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnnrnn import random
from minicnnrnn.utils import pad_sequences, set_random_seed, to_categorical


def test_set_random_seed_is_the_one_and_only():
    assert set_random_seed is random.set_random_seed


def test_one_hot():
    vectors = to_categorical([0, 2])
    assert vectors.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert vectors.dtype == np.float32


@given(st.lists(st.integers(0, 9), min_size=1), st.integers(10, 12))
def test_one_hot_equals_rows_of_the_identity(labels, classes):
    expected = np.eye(classes)[labels]
    np.testing.assert_array_equal(to_categorical(labels, classes), expected)
    np.testing.assert_array_equal(to_categorical(np.float64(labels)[:, None], classes), expected)
    assert to_categorical(labels).shape == (len(labels), max(labels) + 1)


@pytest.mark.parametrize(
    ("shape", "expected"), [((), (4,)), ((2, 3), (2, 3, 4)), ((2, 1), (2, 4)), ((0,), (0, 4))]
)
def test_one_hot_keeps_the_other_axes(shape, expected):
    assert to_categorical(np.zeros(shape, int), 4).shape == expected


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 3], 3, "Expected labels from 0 to 3 - 1. Received labels from 0 to 3"),
        ([-1, 0], None, "Received labels from -1 to 0"),
        ([-3], None, "Received labels from -3 to -3"),
        ([0.5], None, "whole numbers"),
        ([np.nan], None, "whole numbers"),
        (["a"], None, "whole numbers"),
        ([0], 0, "num_classes to be an integer of at least 1"),
        ([0], 2.0, "num_classes to be an integer"),
        ([], None, "num_classes to be an integer"),
    ],
)
def test_labels_that_have_no_place(labels, classes, message):
    with pytest.raises(ValueError, match=message):
        to_categorical(labels, classes)


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1),
    st.integers(1, 8),
    st.sampled_from(["pre", "post"]),
    st.sampled_from(["pre", "post"]),
)
def test_padding_and_truncating(sequences, maxlen, padding, truncating):
    padded = pad_sequences(sequences, maxlen, padding=padding, truncating=truncating, value=-1)
    assert padded.shape == (len(sequences), maxlen)
    for row, sequence in zip(padded.tolist(), sequences, strict=True):
        kept = sequence[-maxlen:] if truncating == "pre" else sequence[:maxlen]
        fill = [-1] * (maxlen - len(kept))
        assert row == (fill + kept if padding == "pre" else kept + fill)


def test_padding_keeps_dtype_and_inner_shape():
    padded = pad_sequences([np.ones((2, 3)), [], np.ones((1, 3))], dtype="float32", value=0.5)
    assert padded.dtype == np.float32
    assert padded.shape == (3, 2, 3)
    assert padded[:, :, 0].tolist() == [[1, 1], [0.5, 0.5], [0.5, 1]]
    assert pad_sequences([[1], []]).dtype == np.int32
    assert pad_sequences([[], []]).shape == (2, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequences": [1, 2]}, "Received an element: 1"),
        ({"sequences": ["ab"]}, "Received an element: 'ab'"),
        ({"sequences": []}, "at least one sequence"),
        ({"sequences": 3}, "at least one sequence. Received: 3"),
        ({"sequences": iter([[1]])}, "at least one sequence"),
        ({"sequences": [np.ones((1, 2)), np.ones((1, 3))]}, "elements of one shape"),
        ({"sequences": [[1]], "maxlen": 0}, "Expected maxlen"),
        ({"sequences": [[1]], "maxlen": 2.0}, "Expected maxlen"),
        ({"sequences": [[1]], "padding": "both"}, "Expected padding to be 'pre' or 'post'"),
        ({"sequences": [[1]], "truncating": "PRE"}, "Expected truncating to be 'pre' or 'post'"),
    ],
)
def test_what_cannot_be_padded(arguments, message):
    with pytest.raises(ValueError, match=message):
        pad_sequences(**arguments)
