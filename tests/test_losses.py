"""Losses: found by name, called alone, in a model; CTC; what is refused."""

import pickle

import numpy as np
import pytest

from minicnnrnn import Sequential, layers, losses
from minicnnrnn.layers import Layer
from minicnnrnn.optimizers import Adam

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", sorted(losses.TABLE))
def test_every_name_gives_a_loss_that_its_config_describes(name):
    loss = losses.get(name)
    assert losses.get(type(loss)).name == loss.name
    described = {"class_name": type(loss).__name__, "config": loss.get_config()}
    assert losses.get(described).get_config() == loss.get_config()
    assert losses.get(loss) is loss


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("mean_squared", "Expected a Loss or one of .*'mse'"),
        (3, "Expected a Loss or one of"),
        (lambda y_true, y_pred: 0, "an object with a value and a gradient"),
        ("dice", "Received: dice, which Keras has. Write a Loss"),
    ],
)
def test_what_is_no_loss_is_refused(loss, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Sequential([layers.Dense(1)]).compile("sgd", loss)


@pytest.mark.parametrize("name", ["Dice", "Tversky", "Circle"])
def test_losses_that_are_left_out_say_so(name):
    with pytest.raises(TypeError, match="Write a Loss with a value and a gradient"):
        getattr(losses, name)()
    with pytest.raises(AttributeError, match="has no attribute 'Dize'"):
        losses.Dize  # noqa: B018


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.Huber(delta=-1),
        lambda: losses.CosineSimilarity(axis=0),
        lambda: losses.CosineSimilarity(axis=True),
        lambda: losses.BinaryFocalCrossentropy(alpha=2),
        lambda: losses.BinaryFocalCrossentropy(gamma=-1),
        lambda: losses.CategoricalFocalCrossentropy(alpha=[]),
        lambda: losses.CategoricalFocalCrossentropy(alpha=[0.5, -1]),
        lambda: losses.CategoricalFocalCrossentropy(alpha=[1, 2])([[1, 0, 0]], [[1, 0, 0]]),
        lambda: losses.MeanSquaredError(reduction=None),
        lambda: losses.CTC()([[1, 0, 1]], np.zeros((1, 4, 3))),
        lambda: losses.CTC()([[1, 3]], np.zeros((1, 4, 3))),
        lambda: losses.CTC()([1, 2], np.zeros((2, 4, 3))),
        lambda: losses.CTC()([[1]], np.zeros((1, 3))),
        lambda: losses.CTC()([[1], [2]], np.zeros((2, 4, 3)), np.ones((2, 4))),
    ],
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(ValueError, match="Expected.*Received"):
        make()


def test_called_alone_a_loss_reduces_as_it_was_told():
    t, y, w = [[0.0], [0.0]], [[1.0], [3.0]], [1.0, 3.0]
    values = {"sum": 10.0, "mean": 5.0, "sum_over_batch_size": 5.0, "mean_with_sample_weight": 5.0}
    weighted = {"sum": 28.0, "mean": 14.0, "mean_with_sample_weight": 7.0}
    for reduction, value in values.items():
        assert losses.MeanSquaredError(reduction)(t, y) == value
    for reduction, value in weighted.items():
        assert losses.MeanSquaredError(reduction)(t, y, w) == value
    assert losses.MeanSquaredError()([0.0, 0.0], [1.0, 3.0], w) == 14.0
    assert losses.SparseCategoricalCrossentropy(ignore_class=9)([0, 9], np.eye(2)) < 1e-6
    assert losses.MeanSquaredError("mean_with_sample_weight")(t, y, [0.0, 0.0]) == 0


class Masked(Layer):
    """Hands on a mask that is given beforehand."""

    supports_masking = True

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, x, mask, training):
        return x, self.mask

    def backward(self, dy, input_gradient=True):
        return dy


@pytest.mark.parametrize("reduction", ["mean", "sum", "mean_with_sample_weight"])
def test_masked_steps_count_for_nothing(reduction):
    mask = np.array([[1, 0, 1], [0, 0, 1]], np.uint8)
    x = RNG.standard_normal((2, 3, 2)).astype(np.float32)
    w = np.array([[1, 9, 2], [9, 9, 3]], np.float32)
    model = Sequential([Masked(mask)])
    model.compile("sgd", losses.MeanSquaredError(reduction), metrics=["mse"])
    rows = np.square(x).mean(axis=-1)
    total = (rows * mask).sum()
    expected = {"sum": total, "mean": total / 3, "mean_with_sample_weight": total / 3}
    zeros = np.zeros_like(x)
    assert model.evaluate(x, zeros) == pytest.approx([expected[reduction], total / 3])
    total = (rows * mask * w).sum()
    expected = {"sum": total, "mean": total / 3, "mean_with_sample_weight": total / 6}
    loss, _ = model.evaluate(x, zeros, sample_weight=w)
    assert loss == pytest.approx(expected[reduction])


def test_an_epoch_reports_the_mean_over_its_batches_samples():
    x = np.arange(5, dtype=np.float32).reshape(5, 1)
    model = Sequential([layers.Activation("linear")])
    model.compile("sgd", losses.MeanSquaredError("sum"))
    # Batches of 2, 2 and 1 samples: each sum counts as often as its batch has samples.
    assert model.evaluate(x, 0 * x, batch_size=2) == pytest.approx((1 * 2 + 13 * 2 + 16) / 5)


# --- CTC --------------------------------------------------------------------------------


def sequences(samples):
    """Marks of two kinds at unknown times, and which they were in order."""
    x = np.zeros((samples, 12, 3), np.float32)
    y = np.zeros((samples, 3), np.int64)
    for n in range(samples):
        labels = RNG.integers(1, 3, RNG.integers(1, 4))
        y[n, : len(labels)] = labels
        x[n, 2 * np.sort(RNG.choice(6, len(labels), replace=False)), labels] = 1
    return x, y


def decoded(output):
    best = output.argmax(axis=1)
    return [k for i, k in enumerate(best) if k and (i == 0 or best[i - 1] != k)]


def test_a_network_learns_by_ctc_when_marks_are():
    x, y = sequences(64)
    layer = layers.Conv1D(8, 3, padding="same", activation="tanh")
    model = Sequential([layer, layers.Dense(3)], seed=0)
    model.compile(Adam(0.03), "ctc", metrics=[lambda y_true, y_pred: len(y_pred)])
    history = model.fit(x, y, batch_size=16, epochs=25, verbose=0).history
    assert history["loss"][-1] < 0.1 * history["loss"][0]
    right = [decoded(output) == [k for k in t if k] for output, t in zip(model.predict(x), y)]
    assert np.mean(right) > 0.9


def test_ctc_sees_no_masked_steps_and_weighs_samples():
    _, y = sequences(4)
    mask = np.ones((4, 12), np.uint8)
    mask[:, 8:] = 0
    model = Sequential([Masked(mask)])
    model.compile("sgd", "ctc")
    loss, logits = losses.CTC(), 5 * RNG.standard_normal((4, 12, 3)).astype(np.float32)
    assert model.evaluate(logits, y) == pytest.approx(loss(y, logits[:, :8]), rel=1e-5)
    w = np.array([1, 0, 2, 0], np.float32)
    expected = loss(y[[0, 2]], logits[[0, 2], :8], [0.5, 1.0])
    assert model.evaluate(logits, y, sample_weight=w) == pytest.approx(expected, rel=1e-5)
    for bad, message in (
        ({"sample_weight": np.ones((4, 12))}, r"Expected sample_weight of shape \(4,\)\. "),
        ({"y": y + 1}, "Expected labels from 0 to 2"),
        ({"y": y[:, :, None]}, "Expected y to hold labels of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            model.evaluate(**{"x": logits, "y": y} | bad)


def test_a_later_batch_with_bad_labels_is_refused_before_training():
    x, y = sequences(40)
    y[39] = [0, 1, 0]
    model = Sequential([layers.Dense(3)], seed=0)
    model.compile("sgd", "ctc")
    with pytest.raises(ValueError, match="zeros, the blank.* in sample 39"):
        model.fit(x, y, batch_size=8, verbose=0)
    assert not model.built


def test_losses_can_be_copied():
    loss = pickle.loads(pickle.dumps(losses.CategoricalFocalCrossentropy(alpha=[1, 2])))
    assert loss.alpha == [1, 2]
    assert repr(losses.Huber(2.0)).startswith("Huber(delta=2.0, ")
