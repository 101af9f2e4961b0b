"""Mistakes once made, each as the smallest case that showed it."""

import numpy as np
import pytest

from minicnnrnn import Sequential, layers, losses, optimizers

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(12, 4)).astype(np.float32), RNG.integers(0, 3, 12)


def classifier():
    return Sequential([layers.Dense(5, activation="relu"), layers.Dense(3, "softmax")], seed=0)


def same(a, b):
    return all(np.array_equal(u, v) for u, v in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.LSTM, layers.GRU])
@pytest.mark.parametrize("shape", [(2, 3), (1, 5), (2, 5, 1), (2,)])
def test_a_mask_of_another_shape_is_refused_and_never_read(kind, shape):
    layer = kind(3, name="l")
    with pytest.raises(ValueError, match=r"layer 'l': Expected mask of shape \(2, 5\)"):
        layer(np.zeros((2, 5, 3)), mask=np.ones(shape))
    assert layer(np.zeros((2, 5, 3)), mask=np.ones((2, 5))).shape == (2, 3)


@pytest.mark.parametrize("bad", ["a", [["a"]], [[np.nan]], [[1], [1, 2]], None, [[1j]], [], 3.0])
def test_calls_refuse_what_is_no_array_of_numbers(bad):
    layer = layers.Dense(2, name="l")
    with pytest.raises((ValueError, TypeError), match=r"layer 'l': Expected"):
        layer(bad)
    assert not layer.built
    assert layer(X).shape == (12, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite_are_refused(bad):
    layer = layers.Dense(2, name="l")
    expected = layer(X)
    with pytest.raises(ValueError, match="layer 'l': Expected weight 'bias' to be finite"):
        layer.set_weights([np.zeros((4, 2)), np.array([0, bad])])
    with pytest.raises(TypeError, match="layer 'l': Expected a list"):
        layer.set_weights(None)
    np.testing.assert_array_equal(layer(X), expected)


def test_a_model_inside_another_trains_its_own_weights_alone():
    generator, judge = Sequential([layers.Dense(4)]), Sequential([layers.Dense(1, "sigmoid")])
    both = Sequential([generator, judge], seed=0)
    both.compile("adam", "binary_crossentropy")
    both.fit(X, np.ones(12), verbose=0)
    judge.compile("adam", "binary_crossentropy")
    made, judged = generator.get_weights(), judge.get_weights()
    judge.train_on_batch(X, np.zeros(12))
    assert same(made, generator.get_weights())
    assert not same(judged, judge.get_weights())
    both.fit(X, np.ones(12), verbose=0)
    assert not same(made, generator.get_weights())


def test_layers_of_a_model_that_could_not_be_made_are_free():
    parts = [layers.Input((4, 4, 1)), layers.Conv2D(2, 3), layers.Conv2D(2, 3)]
    with pytest.raises(ValueError, match="extent"):
        Sequential(parts)
    again = Sequential([layers.Input((7, 7, 2)), *parts[1:]])
    assert again.output_shape == (None, 3, 3, 2)
    with pytest.raises(TypeError, match="Expected a list of layers"):
        Sequential(layers.Dense(2))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X[:, :3], None),
        (X[:, :3], X[:, 0]),
        (X[:, :3], LABELS + 1),
        (np.full((12, 3), np.nan), LABELS),
        (np.zeros((12, 2, 3)), LABELS),
    ],
)
def test_a_first_fit_that_fails_leaves_nothing_built_or_inferred(x, y):
    model, other = classifier(), classifier()
    with pytest.raises(ValueError, match="Expected"):
        model.fit(x, y, verbose=0)
    assert not model.built
    assert model.optimizer is None
    one_hot = np.eye(3)[LABELS]
    for each in (model, other):
        each.fit(X, one_hot, verbose=0)
    assert same(model.get_weights(), other.get_weights())


def test_a_first_prediction_that_fails_leaves_nothing_built():
    model = classifier()
    with pytest.raises(ValueError, match="nan"):
        model.predict(np.full((2, 3), np.nan))
    assert model.predict(X).shape == (12, 3)


def with_label(value):
    changed = LABELS.copy()
    changed[10] = value
    return changed


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (with_label(3), {}, "Received: 3 in sample 10"),
        (with_label(-1), {"validation_split": 0.25}, "Received: -1 in sample 10"),
        (LABELS, {"validation_data": (X, with_label(9))}, "Received: 9 in sample 10"),
        (LABELS, {"validation_data": (X[:, :3], LABELS)}, "4 features"),
        (LABELS, {"validation_data": (X, np.eye(3)[LABELS])}, "categorical_crossentropy"),
        (LABELS, {"validation_data": (X, LABELS, np.ones((12, 2)))}, "sample_weight"),
    ],
)
def test_what_a_later_batch_would_refuse_is_refused_before_the_first(y, options, message):
    model = classifier()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X, LABELS, verbose=0)
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        model.fit(X, y, batch_size=2, shuffle=False, verbose=0, **options)
    assert same(before, model.get_weights())


def test_stateful_batches_have_to_divide_before_anything_is_trained():
    model = Sequential(
        [layers.Input(batch_shape=(4, 5, 1)), layers.GRU(2, stateful=True), layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    before = model.get_weights()
    with pytest.raises(ValueError, match="Expected"):
        model.fit(np.zeros((10, 5, 1)), np.ones(10), batch_size=4, verbose=0)
    assert same(before, model.get_weights())
    model.fit(np.zeros((8, 5, 1)), np.ones(8), batch_size=4, verbose=0)


@pytest.mark.parametrize("ignored", [1, -1])
def test_the_loss_is_the_mean_over_the_rows_that_are_not_ignored(ignored):
    y = np.where(LABELS == 1, ignored, LABELS)
    kept = np.repeat(LABELS[LABELS != 1], 1)
    assert 0 < len(kept) < 12
    models = [classifier() for _ in range(2)]
    models[0].compile(
        optimizers.SGD(0.5), losses.SparseCategoricalCrossentropy(ignore_class=ignored)
    )
    models[1].compile(optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    values = [models[0].train_on_batch(X, y), models[1].train_on_batch(X[LABELS != 1], kept)]
    np.testing.assert_allclose(*values, rtol=1e-6)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_every_output_keeps_an_axis_behind_the_batch():
    with pytest.raises(ValueError, match="Expected target_shape"):
        layers.Reshape(())


def test_an_array_as_an_unsupported_argument_is_refused_by_name():
    with pytest.raises(ValueError, match=r"layer 'l': Expected kernel_regularizer"):
        layers.Dense(2, kernel_regularizer=np.ones(2), name="l")
