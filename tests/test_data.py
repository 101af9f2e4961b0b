"""Data: every sample comes once an epoch, from arrays and from streams."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnnrnn import data
from minicnnrnn.arrays import copy_batch


def arrays(samples):
    x = np.arange(samples * 2, dtype=np.float32).reshape(samples, 2)
    return x, np.arange(samples), np.arange(samples) / 2


def labels(source, **arguments):
    return [batch.y.tolist() for batch in source.epoch(**arguments)]


def copy_all(source, rng, target=None):
    for batch in source.epoch(rng):
        buffer = np.empty(batch.x.shape, np.float32) if target is None else target
        copy_batch(buffer, batch.x, batch.positions)


class Sequence:
    """What Keras calls a PyDataset."""

    def __init__(self, batches):
        self.batches, self.passes = batches, []

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, position):
        return self.batches[position]

    def on_epoch_begin(self):
        self.passes.append("begin")

    def on_epoch_end(self):
        self.passes.append("end")


def batches(count):
    return [(np.full((2, 1), i), np.full(2, i)) for i in range(count)]


# ---------------------------------------------------------------------------------------
# Arrays
# ---------------------------------------------------------------------------------------


@given(st.integers(1, 50), st.integers(1, 60), st.none() | st.integers(0, 2**32 - 1))
def test_every_sample_once_with_its_own_label_and_weight(samples, batch_size, seed):
    x, y, w = arrays(samples)
    source = data.source(x, y, w, batch_size)
    assert source.samples == samples
    assert source.batches == -(-samples // batch_size)
    seen = []
    for number, batch in enumerate(
        source.epoch(seed if seed is None else np.random.default_rng(seed))
    ):
        last = samples - batch_size * (source.batches - 1)
        assert len(batch.y) == (last if number == source.batches - 1 else batch_size)
        np.testing.assert_array_equal(batch.x, x[batch.y])
        np.testing.assert_array_equal(batch.w, w[batch.y])
        np.testing.assert_array_equal(np.arange(samples)[batch.positions], batch.y)
        seen += batch.y.tolist()
    assert sorted(seen) == list(range(samples))
    if seed is None:
        assert seen == sorted(seen)


def test_the_order_follows_the_generator():
    source = data.source(*arrays(20)[:2])
    rng = np.random.default_rng(3)
    first, second = labels(source, rng=rng), labels(source, rng=rng)
    assert first != second
    assert labels(source, rng=np.random.default_rng(3)) == first


def test_peek_uses_nothing_up():
    source = data.source(*arrays(5)[:2], batch_size=2)
    assert source.peek().y.tolist() == [0, 1]
    assert labels(source) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("order", ["C", "F"])
def test_gather_by_slice_and_by_position(order):
    x, y, _ = arrays(6)
    source = data.source(np.asarray(x, order=order), y)
    assert np.shares_memory(source.gather(slice(2, 4)).x, source.x)
    for positions in ([3, 0, 3], [5], [0, 1, 2, 3, 4, 5], [-1]):
        np.testing.assert_array_equal(source.gather(np.array(positions)).x, x[positions])


def test_a_shuffled_step_allocates_no_array_data():
    x = np.zeros((256, 64, 64), np.uint8)
    source = data.source(x, batch_size=64)
    target = np.empty((64, 64, 64), np.float32)
    rng = np.random.default_rng(0)
    copy_all(source, rng, target)
    tracemalloc.start()
    copy_all(source, rng, target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 64 * 64 / 4


def test_a_memory_map_stays_on_disk(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(12, dtype=np.uint8).reshape(6, 2))
    mapped = np.load(path, mmap_mode="r")
    source = data.source(mapped, batch_size=4)
    assert np.shares_memory(source.x, mapped)
    seen = np.concatenate([batch.x.copy() for batch in source.epoch(np.random.default_rng(0))])
    np.testing.assert_array_equal(np.sort(seen[:, 0]), mapped[:, 0])


def test_nan_is_found_where_it_stands_in_the_user_s_array():
    x, y, _ = arrays(20)
    x[17, 1] = np.nan
    source, validation = data.split(data.source(x, y, batch_size=3), 0.25)
    for rng in (None, np.random.default_rng(0)):
        with pytest.raises(ValueError, match=r"nan in sample 17 \(x\[17, 1\]\)"):
            copy_all(validation, rng)
        copy_all(source, rng)


@given(st.integers(2, 40), st.floats(0.01, 0.99))
def test_validation_split_takes_the_last(samples, fraction):
    cut = int(samples * (1 - fraction))
    whole = data.source(*arrays(samples))
    if not 0 < cut < samples:
        with pytest.raises(ValueError, match="at least one sample for training and one"):
            data.split(whole, fraction)
        return
    training, validation = data.split(whole, fraction, validation_batch_size=7)
    assert training.y.tolist() == list(range(cut))
    assert validation.y.tolist() == list(range(cut, samples))
    assert validation.w.tolist() == [i / 2 for i in range(cut, samples)]
    assert (training.batch_size, validation.batch_size) == (32, 7)


def test_validation_split_refuses_streams_and_other_fractions():
    whole = data.source(*arrays(4))
    assert data.split(whole, 0) == (whole, None)
    for fraction in (1, 1.5, -0.1, "half", None, np.nan):
        with pytest.raises(ValueError, match="at least 0 and below 1. Received"):
            data.split(whole, fraction)
    with pytest.raises(ValueError, match="pass validation_data"):
        data.split(data.source(iter(batches(2))), 0.5)
    with pytest.raises(ValueError, match="batch_size"):
        data.split(whole, 0.5, 0)


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, "32", True])
def test_batch_size_is_a_positive_integer(batch_size):
    with pytest.raises(ValueError, match="Expected batch_size to be an integer of at least 1"):
        data.source([1, 2], batch_size=batch_size)


def test_lengths_must_agree():
    x, y, w = arrays(4)
    with pytest.raises(ValueError, match="x and y to have the same number of samples.* 4 and 3"):
        data.source(x, y[:3])
    with pytest.raises(ValueError, match="x and sample_weight to have.* 4 and 2"):
        data.source(x, y, w[:2])
    with pytest.raises(ValueError, match=r"\(samples, steps\). Received: \(4, 1, 1\)"):
        data.source(x, y, w.reshape(4, 1, 1))


def test_one_input_and_one_output():
    x, y, _ = arrays(4)
    with pytest.raises(ValueError, match="Received a list of 2. A model has one input"):
        data.source([x, x], y)
    with pytest.raises(TypeError, match="Received: dict. A model has one input"):
        data.source({"x": x}, y)
    with pytest.raises(TypeError, match="Expected y .*Received: dict"):
        data.source(x, {"y": y})
    assert data.source([x, x], [0, 1]).samples == 2
    assert data.source([[1.0, 2.0], [3.0, 4.0]]).samples == 2


def test_class_weights_multiply_sample_weights():
    x, y, w = np.zeros((3, 1)), np.array([0, 1, 0]), np.array([1.0, 2.0, 3.0])
    weight = {0: 0.5}
    assert data.source(x, y, class_weight=weight).w.tolist() == [0.5, 1, 0.5]
    assert data.source(x, y, w, class_weight=weight).w.tolist() == [0.5, 2, 1.5]
    steps = np.ones((3, 2))
    assert data.source(x, y, steps, class_weight=weight).w.tolist() == [
        [0.5] * 2,
        [1] * 2,
        [0.5] * 2,
    ]
    one_hot = np.eye(2)[[[0, 1], [1, 1], [0, 0]]]
    product = data.source(x, one_hot, w, class_weight=weight).w.tolist()
    assert product == [[0.5, 1], [2, 2], [1.5, 1.5]]


@pytest.mark.parametrize("weight", [[1, 2], {"a": 1}, {0: -1}, {0: np.nan}, {0.5: 1}, {0: "1"}])
def test_class_weight_is_a_dict_of_weights(weight):
    with pytest.raises(ValueError, match="Expected class_weight"):
        data.source([1, 2], [0, 1], class_weight=weight)
    with pytest.raises(ValueError, match="Expected y with class_weight"):
        data.source([1, 2], class_weight={0: 1})


# ---------------------------------------------------------------------------------------
# Streams
# ---------------------------------------------------------------------------------------


def test_a_generator_runs_once():
    source = data.source(batch for batch in batches(3))
    assert (source.samples, source.batches, source.repeatable) == (None, None, False)
    assert source.peek().y.tolist() == [0, 0]
    assert source.peek().y.tolist() == [0, 0]
    assert labels(source) == [[0, 0], [1, 1], [2, 2]]
    with pytest.warns(UserWarning, match="Your input ran out of data"):
        assert labels(source) == []


def test_steps_go_on_where_the_last_epoch_stopped():
    source = data.source(batch for batch in batches(5))
    assert labels(source, steps=2) == [[0, 0], [1, 1]]
    assert labels(source, steps=2) == [[2, 2], [3, 3]]
    with pytest.warns(UserWarning, match="Your input ran out of data"):
        assert labels(source, steps=2) == [[4, 4]]
    with pytest.warns(UserWarning, match="Your input ran out of data"):
        assert labels(source, steps=2) == []


@pytest.mark.parametrize("peek", [False, True])
def test_a_generator_outlives_an_abandoned_epoch(peek):
    source = data.source(batch for batch in batches(4))
    if peek:
        source.peek()
    abandoned = source.epoch()
    assert [next(abandoned).y.tolist() for _ in range(2)] == [[0, 0], [1, 1]]
    del abandoned
    assert labels(source) == [[2, 2], [3, 3]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: data.source(batches(4)),
        lambda: data.source(Sequence(batches(4))),
        lambda: data.source(*arrays(8)[:2], batch_size=2),
    ],
)
def test_steps_over_what_can_be_repeated(make):
    source, whole = make(), labels(make())
    assert source.batches == 4
    for _ in range(3):
        assert labels(source, steps=2) + labels(source, steps=2) == whole
    with pytest.warns(UserWarning, match="ran out of data"):
        assert labels(source, steps=5) == whole
    assert labels(source, steps=4) == whole


def test_an_iterable_without_a_length_starts_anew():
    class Iterable:
        def __iter__(self):
            return iter(batches(2))

    source = data.source(Iterable())
    assert source.batches is None
    assert source.peek().y.tolist() == [0, 0]
    for _ in range(2):
        assert labels(source) == [[0, 0], [1, 1]]


def test_a_sequence_of_batches_is_shuffled_by_batch_and_told_of_epochs():
    sequence = Sequence(batches(20))
    source = data.source(sequence)
    order = labels(source, rng=np.random.default_rng(0))
    assert order != sorted(order)
    assert sorted(order) == labels(source)
    assert sequence.passes == ["begin", "end"] * 2


def test_batches_bring_their_weights_and_get_class_weights():
    x, y, w = arrays(4)
    (batch,) = data.source([(x, y, w)], class_weight={3: 2.0}).epoch()
    assert batch.w.tolist() == [0, 0.5, 1, 3]
    (batch,) = data.source(iter([x])).epoch()
    assert batch.y is None
    assert batch.positions is None


def test_a_bad_batch_raises_and_a_good_one_follows():
    bad = (np.zeros((2, 1)), np.zeros(3))
    source = data.source(iter([bad, *batches(1)]))
    with pytest.raises(ValueError, match="same number of samples"):
        next(source.epoch())
    assert labels(source) == [[0, 0]]


@pytest.mark.parametrize("empty", [lambda: iter([]), lambda: Sequence([])])
def test_data_without_a_batch(empty):
    with pytest.raises(ValueError, match="Expected at least one batch"):
        data.source(empty()).peek()
    with pytest.raises(ValueError, match="Expected at least one batch"):
        list(data.source(empty()).epoch())


def test_a_stream_brings_its_own_targets():
    x, y, w = arrays(2)
    with pytest.raises(ValueError, match="Expected y to come with the batches"):
        data.source(iter([(x, y)]), y)
    with pytest.raises(ValueError, match="Expected sample_weight to come with the batches"):
        data.source(iter([(x, y)]), None, w)


def test_a_data_loader_of_torch():
    utils = pytest.importorskip("torch.utils.data")
    torch = pytest.importorskip("torch")
    dataset = utils.TensorDataset(torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 2]))
    source = data.source(utils.DataLoader(dataset, batch_size=2))
    assert source.batches == 2
    for _ in range(2):
        assert labels(source) == [[0, 1], [2]]
    assert source.peek().x.tolist() == [[0, 1], [2, 3]]


def test_the_base_class_holds_no_data():
    with pytest.raises(TypeError, match="abstract"):
        data.Source()
