"""Arrays: everything array-like is taken, everything else is refused with a clear error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minicnnrnn.arrays import as_array, class_weights, copy_batch, unpack

DTYPES = ["float64", "float32", "float16", "int64", "int32", "uint8", "uint64", "bool", ">f4"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_is_taken_as_it_is(dtype):
    array = np.ones((2, 3), dtype)
    assert as_array(array, "x") is array


def test_other_arrays_lists_and_frames(tmp_path):
    pandas = pytest.importorskip("pandas")
    assert as_array([[1, 2], [3, 4]], "x").tolist() == [[1, 2], [3, 4]]
    assert as_array((1.5, 2), "x").tolist() == [1.5, 2]
    assert as_array(range(3), "x").tolist() == [0, 1, 2]
    assert as_array([np.zeros(3), np.ones(3)], "x").shape == (2, 3)
    assert as_array(pandas.Series([1, 2]), "x").tolist() == [1, 2]
    assert as_array(pandas.Series([1, 2], dtype="Int64"), "x").tolist() == [1, 2]
    frame = pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]})
    assert as_array(frame, "x").tolist() == [[1, 0.5, 1], [2, 1.5, 0]]
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "uint8", (3, 2))
    assert np.shares_memory(as_array(mapped, "x"), mapped)


def test_tensors_of_torch():
    torch = pytest.importorskip("torch")
    assert as_array(torch.ones(2, requires_grad=True), "x").tolist() == [1, 1]


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (None, TypeError, "Received: NoneType"),
        ({"a": [1]}, TypeError, "Received: dict. A model has one input"),
        ("text", TypeError, "Received: str"),
        (["a", "b"], TypeError, "Received: dtype <U1"),
        (np.array(["a", None], object), TypeError, "Received: NoneType, str objects"),
        (np.array([1, None], object), TypeError, "Received: NoneType, int objects"),
        (np.zeros(2, complex), TypeError, "Received: dtype complex128"),
        (np.zeros(2, "datetime64[s]"), TypeError, "dtype datetime64"),
        (object(), TypeError, "dtype object"),
        ({1, 2}, TypeError, "dtype object"),
        (3, ValueError, "Received a single number: 3"),
        ([[1], [1, 2]], ValueError, "ragged list"),
        ([], ValueError, r"at least one sample. Received thing of shape \(0,\)"),
        (np.zeros((0, 3)), ValueError, r"Received thing of shape \(0, 3\)"),
    ],
)
def test_what_is_no_array_of_numbers(value, error, message):
    with pytest.raises(error, match=f"Expected .*{message}"):
        as_array(value, "thing")


def test_text_labels_name_the_encoder():
    for labels in (["cat", "dog"], np.array(["cat", "dog"], object)):
        with pytest.raises(TypeError, match="sklearn.preprocessing.LabelEncoder"):
            as_array(labels, "y")
        with pytest.raises(TypeError, match="Expected x to hold real numbers") as error:
            as_array(labels, "x")
        assert "LabelEncoder" not in str(error.value)


def test_unpack():
    x, y, w = np.zeros(2), np.ones(2), np.full(2, 0.5)
    assert unpack((x,)) == (x, None, None)
    assert unpack((x, y)) == (x, y, None)
    assert unpack([x, y, w]) == (x, y, w)
    assert unpack([[1, 2], [3, 4]]) == ([[1, 2], [3, 4]], None, None)
    assert unpack([np.float32(1), np.float32(2)]) == ([1, 2], None, None)
    for parts in ((), (x, y, w, w)):
        with pytest.raises(ValueError, match=f"a tuple of {len(parts)} parts"):
            unpack(parts)


@pytest.mark.parametrize("dtype", DTYPES)
def test_copy_converts_every_type(dtype):
    rows = np.array([[0, 1], [1, 0]], dtype)
    for kind in (np.float32, np.int32):
        target = np.full((2, 2), 7, kind)
        copy_batch(target, rows)
        np.testing.assert_array_equal(target, rows.astype(kind))


@given(hnp.arrays(np.float64, (3, 2), elements=st.floats(-1e30, 1e30)), st.integers(0, 5))
def test_copy_rounds_once_and_finds_nan(rows, place):
    target = np.empty((3, 2), np.float32)
    copy_batch(target, rows)
    np.testing.assert_array_equal(target, rows.astype(np.float32))
    rows.flat[place] = np.nan
    with pytest.raises(ValueError, match=rf"nan in sample {place // 2} of its batch"):
        copy_batch(target, rows)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize(
    ("positions", "sample"),
    [
        (slice(10, 13), 11),
        (slice(None), 1),
        (np.array([4, 7, 2]), 7),
        (None, 1),
    ],
)
def test_copy_names_the_sample(bad, positions, sample):
    rows = np.zeros((3, 2, 2))
    rows[1, 0, 1] = bad
    rows[2] = np.nan
    with pytest.raises(
        ValueError, match=rf"Expected finite numbers .*in sample {sample}\b"
    ) as error:
        copy_batch(np.empty((3, 2, 2), np.float32), rows, positions)
    assert f"x[{sample}, 0, 1]" in str(error.value)
    assert f"Received: {bad}" in str(error.value)


def test_a_sum_that_overflows_is_no_error():
    rows = np.full((2, 2), 3e38, np.float32)
    target = np.empty_like(rows)
    copy_batch(target, rows)
    np.testing.assert_array_equal(target, rows)


@pytest.mark.parametrize(
    "rows",
    [np.array([0, 1.5]), np.array([0, np.nan]), np.array([0, 2**31]), np.array([0, -1e10])],
)
def test_ids_must_be_whole_and_fit(rows):
    with pytest.raises(ValueError, match="Expected whole numbers of 32 bits in ids.*sample 1"):
        copy_batch(np.empty(2, np.int32), rows, name="ids")


def test_copy_needs_the_target_s_shape():
    with pytest.raises(ValueError, match=r"Expected x of shape \(2, 3\). Received: \(2, 1\)"):
        copy_batch(np.empty((2, 3), np.float32), np.zeros((2, 1)))


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([0, 1, 2], [0.5, 1, 3]),
        ([0.0, 2.0], [0.5, 3]),
        ([[0], [2]], [0.5, 3]),
        ([True, False], [1, 0.5]),
        ([[1, 0, 0], [0, 0, 1]], [0.5, 3]),
        ([[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 1]]], [[0.5, 1], [3, 3]]),
        ([[[0], [1]], [[2], [2]]], [[0.5, 1], [3, 3]]),
    ],
)
def test_class_weights(y, expected):
    weights = class_weights(np.array(y), {0: 0.5, 2: 3.0})
    assert weights.dtype == np.float32
    assert weights.tolist() == expected


@pytest.mark.parametrize("y", [[0.5, 1.0], [[1, 1], [0, 1]], [[0, 0], [0, 1]], [[0.5, 0.5]]])
def test_class_weights_need_classes(y):
    with pytest.raises(ValueError, match="integer labels or one-hot"):
        class_weights(np.array(y), {0: 1.0})
