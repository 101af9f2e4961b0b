"""Mistakes once made, each as the smallest case that showed it."""

import copy
import pickle

import numpy as np
import pytest

from minicnnrnn import Sequential, callbacks, get_device, layers, losses, metrics, optimizers
from minicnnrnn.targets import infer_loss

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
    with pytest.raises(ValueError, match=r"layer 'l': Expected lora_rank"):
        layers.Dense(2, lora_rank=np.ones(2), name="l")


# --- devices, optimizers, states -------------------------------------------------------


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_a_label_that_is_no_class_is_never_among_the_top(device):
    kernels, y = get_device(device).kernels, np.ones((4, 3), np.float32)
    labels, values = np.array([-1, 3, 2**31 - 1, 0], np.int32), np.full(4, np.nan, np.float32)
    kernels.sparse_top_k(values, y, labels, 3)
    assert values.tolist() == [0, 0, 0, 1]
    kernels.sparse_categorical_accuracy(values, y, labels)
    assert values.tolist() == [0, 0, 0, 1]


def test_metrics_count_rows_that_the_loss_ignores():
    model = classifier()
    top = metrics.SparseTopKCategoricalAccuracy(3)
    ignore = losses.SparseCategoricalCrossentropy(ignore_class=-1)
    model.compile("adam", ignore, metrics=[top, "accuracy"])
    _, among, right = model.evaluate(X, np.where(LABELS == 1, -1, LABELS))
    assert among == pytest.approx(np.mean(LABELS != 1))
    hits = model.predict(X).argmax(1) == LABELS
    assert right == pytest.approx(np.mean(hits & (LABELS != 1)))


class Never(callbacks.Callback):
    def on_train_begin(self, logs=None):
        raise AssertionError("training began")


def test_an_optimizer_trains_one_model_only():
    optimizer, (first, second) = optimizers.Adam(), (classifier(), classifier())
    first.fit(X, LABELS, verbose=0)
    for model in (first, second):
        model.compile(optimizer, "sparse_categorical_crossentropy")
    second.evaluate(X, LABELS)
    first.fit(X, LABELS, verbose=0)
    before = second.get_weights()
    for use in (lambda: second.fit(X, LABELS, callbacks=Never(), verbose=0), second.update):
        with pytest.raises(ValueError, match=r"Adam: Expected an optimizer of its own.*Received"):
            use()
    assert same(before, second.get_weights())
    first.compile(optimizer, "sparse_categorical_crossentropy", metrics=["acc"])
    first.fit(X, LABELS, verbose=0)
    assert optimizer.iterations == 2
    first.pop()
    first.add(layers.Dense(4, "softmax"))
    first.fit(X, LABELS, verbose=0)
    assert optimizer.iterations == 1


@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.LSTM, layers.GRU])
def test_a_stateful_layer_has_one_size_of_batches(kind):
    x = RNG.normal(size=(4, 5, 3)).astype(np.float32)
    for part in (Sequential([kind(2, stateful=True, name="l")]), kind(2, stateful=True, name="l")):
        part(x)
        with pytest.raises(ValueError, match=r"layer 'l': Expected batches of 4 samples.*stateful"):
            part(x[:3])
        with pytest.raises(ValueError, match=r"layer 'l': Expected batches of 4 samples.*stateful"):
            part.forward(x[:1], None, False)
        assert part(x).shape == (4, 2)
    with pytest.raises(ValueError, match=r"layer 'l': Expected a batch_shape.*stateful"):
        Sequential([layers.Input((5, 3)), kind(2, stateful=True, name="l")])


def test_data_whose_batches_do_not_fit_a_stateful_layer_leaves_nothing():
    model = Sequential([layers.GRU(2, stateful=True), layers.Dense(1)])
    for use in (model.predict, lambda x, **options: model.fit(x, np.ones(10), **options)):
        with pytest.raises(ValueError, match="Expected batches of 4 samples"):
            use(np.zeros((10, 5, 1)), batch_size=4, verbose=0)
        assert not model.built
    model.fit(np.zeros((10, 5, 1)), np.ones(10), batch_size=5, verbose=0)


# --- copies ----------------------------------------------------------------------------


def cnn():
    return Sequential(
        [layers.Conv1D(4, 3, activation="gelu"), layers.MaxPooling1D(), layers.Dropout(0.3),
         layers.Flatten(), layers.Dense(3, activation="softmax")],
        seed=0,
    )  # fmt: skip


def rnn():
    inner = Sequential([layers.LSTM(4, return_sequences=True), layers.GRU(3)])
    return Sequential([inner, layers.Dropout(0.3, seed=1), layers.Dense(3, "softmax")], seed=0)


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
@pytest.mark.parametrize("make", [cnn, rnn])
def test_a_copy_of_a_model_goes_on_as_the_model_itself(make, duplicate):
    x = RNG.normal(size=(12, 8, 2)).astype(np.float32)
    model = make()
    model.fit(x, LABELS, batch_size=5, epochs=2, validation_split=0.25, verbose=0)
    twin = duplicate(model)
    before = model.get_weights()
    assert same(before, twin.get_weights())
    assert twin.optimizer.iterations == model.optimizer.iterations > 0
    np.testing.assert_array_equal(twin.predict(x), model.predict(x))
    assert twin.history.history == model.history.history
    assert all(layer.owner is twin for layer in twin.layers)
    for weight in twin.weights:
        assert np.shares_memory(weight.value, twin.context.parameters.values)
    trained = twin.fit(x, LABELS, batch_size=5, epochs=2, verbose=0).history
    assert same(before, model.get_weights())
    assert not same(before, twin.get_weights())
    assert model.fit(x, LABELS, batch_size=5, epochs=2, verbose=0).history == trained
    assert same(model.get_weights(), twin.get_weights())


def test_a_copy_after_add_and_pop_trains_its_own_weights():
    model = classifier()
    model.fit(X, LABELS, verbose=0)
    model.pop()
    model.add(layers.Dense(3, "softmax"))
    model.predict(X)
    twin = copy.deepcopy(model)
    for each in (model, twin):
        each.fit(X, LABELS, verbose=0)
    assert same(model.get_weights(), twin.get_weights())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_a_copy_of_a_layer_is_free(duplicate):
    model = classifier()
    model.fit(X, LABELS, verbose=0)
    alone = layers.LSTM(3)
    alone(np.ones((2, 5, 3)))
    for layer, x in ((model.layers[0], X), (alone, np.ones((2, 5, 3)))):
        twin, expected = duplicate(layer), layer(x)
        np.testing.assert_array_equal(twin(x), expected)
        layer.set_weights([w * 0 for w in layer.get_weights()])
        np.testing.assert_array_equal(twin(x), expected)
        np.testing.assert_array_equal(Sequential([twin]).predict(x), expected)


def test_a_copy_that_is_not_built_draws_the_same_weights():
    model = classifier()
    twin = copy.deepcopy(model)
    for each in (model, twin):
        each.fit(X, LABELS, verbose=0)
    assert same(model.get_weights(), twin.get_weights())


# --- arguments -------------------------------------------------------------------------


def test_a_device_is_a_name():
    for device in ([1], 1, "", object()):
        with pytest.raises(ValueError, match=r"device: Expected.*Received"):
            Sequential(device=device)


def test_numbers_of_numpy_are_numbers():
    half = np.float32(0.5)
    assert layers.Dropout(half).rate == losses.Huber(half).delta == 0.5
    assert metrics.BinaryAccuracy(threshold=half).threshold == 0.5
    assert losses.BinaryCrossentropy(label_smoothing=half).label_smoothing == 0.5


def test_a_frozen_model_freezes_what_it_is_given():
    model = Sequential([layers.Dense(5, "relu")], trainable=False)
    model.add(layers.Dense(3, "softmax"))
    model.build((None, 4))
    before = model.get_weights()
    model.fit(X, LABELS, verbose=0)
    assert same(before, model.get_weights())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Dense(1, "softmax", name="l"), (None, 4)),
        (layers.Conv1D(1, 1, activation="softmax", name="l"), (None, 4, 2)),
        (layers.Activation("softmax", name="l"), (None, 1)),
    ],
)
def test_softmax_over_one_number_is_refused_before_there_is_data(layer, shape):
    with pytest.raises(ValueError, match="layer 'l': Expected at least two outputs for softmax"):
        layer.build_once(shape)


def test_a_validation_batch_of_nothing_is_refused():
    for options in ({"validation_split": 0.5}, {"validation_data": (X, LABELS)}, {}):
        with pytest.raises(ValueError, match="validation_batch_size: Expected"):
            classifier().fit(X, LABELS, validation_batch_size=0, verbose=0, **options)


def test_losses_and_metrics_take_their_arguments_in_the_order_of_keras():
    assert losses.Loss("a", "mean", "float32").name == "a"
    assert losses.MeanSquaredError("mean", "a", "float32").name == "a"
    assert losses.Huber(2.0, "mean", "a", "float32").name == "a"
    for kind in (losses.BinaryCrossentropy, losses.CategoricalCrossentropy):
        assert kind(True, 0.1, -1, "mean", "a", "float32").name == "a"
    sparse = losses.SparseCategoricalCrossentropy(True, 2, "mean", -1, "a", "float32")
    assert (sparse.from_logits, sparse.ignore_class, sparse.name) == (True, 2, "a")
    assert metrics.Metric("float32", "a").name == "a"
    assert metrics.Accuracy("a", "float32").name == "a"
    assert metrics.BinaryAccuracy("a", "float32", 0.7).threshold == 0.7
    assert metrics.TopKCategoricalAccuracy(3, "a", "float32").k == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.Loss(dtype="float16"),
        lambda: metrics.MeanSquaredError(dtype="float16"),
        lambda: losses.BinaryCrossentropy(label_smoothing=1.5),
        lambda: losses.CategoricalCrossentropy(label_smoothing=True),
        lambda: losses.CategoricalCrossentropy(axis=1),
        lambda: losses.SparseCategoricalCrossentropy(ignore_class="a"),
    ],
)
def test_losses_and_metrics_refuse_what_they_do_not_have(make):
    with pytest.raises(ValueError, match=r"Expected.*Received"):
        make()


@pytest.mark.parametrize(
    ("last", "kind", "classes"),
    [
        ("softmax", losses.CategoricalCrossentropy, 3),
        ("sigmoid", losses.BinaryCrossentropy, 2),
    ],
)
@pytest.mark.parametrize("from_logits", [False, True])
def test_label_smoothing_trains_on_smoothed_targets_that_metrics_never_see(
    last, kind, classes, from_logits
):
    one_hot = np.eye(3, dtype=np.float32)[LABELS]
    results = []
    for smoothing, y in ((0.3, one_hot), (0.0, one_hot * 0.7 + 0.3 / classes)):
        model = Sequential([layers.Dense(3, None if from_logits else last)], seed=0)
        model.compile(optimizers.SGD(0.5), kind(from_logits, smoothing), metrics=["mae"])
        logs = model.fit(X, y, epochs=3, verbose=0).history
        results.append((logs["loss"], model.get_weights(), logs["mae"][0]))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert abs(results[0][2] - results[1][2]) > 0.01


def test_a_call_takes_numbers_as_samples_of_one_feature():
    model = Sequential([layers.Dense(2)])
    np.testing.assert_array_equal(model(np.arange(3.0)), model.predict(np.arange(3.0)))


def test_the_loss_follows_from_all_targets_and_their_shape():
    late = np.zeros((40, 1))
    late[39] = 0.5
    with pytest.raises(ValueError, match="no loss follows"):
        Sequential([layers.Dense(1, "sigmoid")]).fit(np.ones((40, 2)), late, verbose=0)
    steps = np.eye(2)[RNG.integers(0, 2, 12)]  # labels of two steps that look like one-hot vectors
    model = Sequential([layers.Dense(2, "softmax")])
    model.fit(RNG.normal(size=(12, 2, 3)), steps, verbose=0)
    assert model.loss.name == "sparse_categorical_crossentropy"
    assert infer_loss("softmax", np.array([0.0, 1.0]), 2)[0] == model.loss.name


@pytest.mark.parametrize("merge", ["concat", "add", "mul"])
def test_branches_at_the_bottom_of_a_model_learn(merge):
    """Nobody asks for the input's gradient there, and only some branches would have one."""
    weights = []
    for device in ("cpu", "numpy"):
        ways = [layers.Dropout(0.0)], [layers.Dense(4)], [], [layers.Dense(4, "tanh")]
        stack = [layers.Input((4,)), layers.Branches(*ways, merge=merge), layers.Dense(2)]
        model = Sequential(stack, seed=0, device=device)
        model.compile("sgd", "mse")
        for n in (1, 12):
            model.train_on_batch(X[:n], X[:n, :2])
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
