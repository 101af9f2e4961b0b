"""Arrays on a GPU, and how they reach kernels."""

import copy

import numpy as np
import pytest

from minicnnrnn.device import Buffer, get_device
from minicnnrnn.kernels import gpu

pytestmark = [pytest.mark.cuda, pytest.mark.gpu]


def host(array):
    assert isinstance(array, gpu.DeviceArray)
    return np.asarray(array)


@pytest.fixture
def array():
    return gpu.upload(np.arange(12, dtype=np.float32).reshape(3, 4))


def test_copies_and_views(array):
    assert (array.shape, array.size, array.ndim, len(array), array.nbytes) == ((3, 4), 12, 2, 3, 48)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(host(array[1]), [4, 5, 6, 7])
    np.testing.assert_array_equal(host(array[1:].reshape(-1)), range(4, 12))
    np.testing.assert_array_equal(host(array[:, 1]), [1, 5, 9])
    np.testing.assert_array_equal(host(array.reshape(2, -1)[1]), range(6, 12))
    assert float(array[2, 3]) == 11
    with pytest.raises(ValueError, match="Expected a copy to be allowed"):
        np.array(array, copy=False)


def test_views_share_memory(array):
    array[0] = 7
    array.reshape(-1)[4:6] = [1.5, 2.5]
    array[2] = np.array([0, 1, 2, 3])
    np.testing.assert_array_equal(host(array), [[7] * 4, [1.5, 2.5, 6, 7], [0, 1, 2, 3]])
    array[:, 0] = gpu.upload(np.array([9, 8, 7], np.float32))
    np.testing.assert_array_equal(host(array)[:, 0], [9, 8, 7])
    array[1:] += array[:2]
    np.testing.assert_array_equal(host(array)[1], [17, 9.5, 13, 14])
    array += 1
    assert host(array)[0].tolist() == [10, 8, 8, 8]


def test_one_element_and_none():
    vector, none = gpu.upload(np.zeros(3, np.int64)), gpu.empty((0, 4))
    vector[1], vector[-1] = 2**40, 5
    assert host(vector).tolist() == [0, 2**40, 5]
    none[...] = 3
    assert host(none).shape == (0, 4)
    assert none.reshape(4, 0).shape == (4, 0)


def test_numpy_works_on_copies(array):
    x = host(array)
    for result, expected in (
        (array - 2 * array, -x),
        (np.tanh(array), np.tanh(x)),
        (np.mean(array, axis=1), x.mean(axis=1)),
        (x @ np.asarray(array).T, x @ x.T),
        (array > 3, x > 3),
    ):
        assert isinstance(result, np.ndarray)
        np.testing.assert_array_equal(result, expected)
    np.multiply(array, 2, out=array)
    array -= 1
    np.testing.assert_array_equal(host(array), 2 * x - 1)


def test_masks_meet():
    mask = gpu.upload(np.array([[1, 1], [0, 1]], np.uint8))
    mask &= gpu.upload(np.array([[1, 0], [1, 1]], np.uint8))
    assert host(mask).tolist() == [[1, 0], [0, 1]]


def test_copies_are_independent(array):
    twin = copy.deepcopy(array)
    array[...] = 0
    np.testing.assert_array_equal(host(twin).reshape(-1), range(12))


def test_only_tables_of_the_host_are_passed_to_kernels(array):
    gpu.over(gpu._copy, 12, array.reshape(-1), np.ones(12, np.float32))
    np.testing.assert_array_equal(host(array), np.ones((3, 4)))
    with pytest.raises(TypeError, match="Expected an array on the GPU"):
        gpu.over(gpu._copy, 12, array.reshape(-1), np.zeros(10_000, np.float32))
    with pytest.raises(TypeError, match="Expected a contiguous array"):
        gpu.over(gpu._fill, 3, array[:, 0], 1.0)


def test_buffers_keep_their_memory():
    buffer = Buffer(get_device("cuda"))
    first = buffer(4, 3)
    assert buffer(4, 3) is first
    buffer(2, 3)[...] = 5
    np.testing.assert_array_equal(host(first).reshape(-1)[:6], [5] * 6)


def test_staged_memory_arrives():
    device = get_device("cuda")
    array = device.zeros((2, 3), np.int32)
    with device.writing(array) as memory:
        memory[...] = [[1, 2, 3], [4, 5, 6]]
    assert host(array).tolist() == [[1, 2, 3], [4, 5, 6]]
    for number in range(5):  # longer and shorter ones, in both halves of the staging memory
        part = array[: 1 + number % 2]
        with device.writing(part) as memory:
            memory[...] = number
        assert (host(part) == number).all()
    assert host(array).tolist() == [[4] * 3, [3] * 3]
    with pytest.raises(KeyError), device.writing(array) as memory:
        raise KeyError
    assert host(array).tolist() == [[4] * 3, [3] * 3]


def test_elements_are_named_by_integers_of_every_kind():
    array = gpu.upload(np.zeros((2, 3), np.float32))
    array[np.int64(1), -1] = 5
    array[0, np.int32(1)] = np.float32(7)
    assert array[1, 2] == array[np.int64(-1), 2] == 5
    assert np.asarray(array).tolist() == [[0, 7, 0], [0, 0, 5]]
    with pytest.raises(IndexError, match="Expected an index"):
        array[2, 0] = 1


def test_grids_are_of_pythons_integers():
    class Refuses:
        def __getitem__(self, configuration):
            sizes = [
                n for part in configuration[:2] for n in (part if type(part) is tuple else [part])
            ]
            assert all(type(n) is int for n in sizes)
            return lambda *arguments: None

    kernel = gpu.GpuFunction(lambda: None)
    kernel.dispatcher = Refuses()
    gpu.launch(kernel, np.int64(3), (np.int64(1), 2))
