"""compile, fit, evaluate, predict: what they take, what they return, what they refuse."""

import numpy as np
import pytest

from minicnnrnn import Sequential, callbacks, layers, losses, metrics, optimizers


def classifier(activation="softmax", units=3, seed=0):
    return Sequential(
        [layers.Dense(8, activation="relu"), layers.Dense(units, activation)], seed=seed
    )


@pytest.fixture
def blobs():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    return rng.normal(0, 0.3, (90, 2)) + np.array([[0, 0], [2, 0], [0, 2]])[y], y


# --- never compiled --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "units", "targets", "loss", "metric"),
    [
        ("softmax", 3, lambda y: y, "sparse_categorical_crossentropy", "accuracy"),
        ("softmax", 3, lambda y: y.astype(float), "sparse_categorical_crossentropy", "accuracy"),
        ("softmax", 3, lambda y: y[:, None], "sparse_categorical_crossentropy", "accuracy"),
        ("softmax", 3, lambda y: np.eye(3)[y], "categorical_crossentropy", "accuracy"),
        ("sigmoid", 1, lambda y: y > 0, "binary_crossentropy", "accuracy"),
        ("sigmoid", 3, lambda y: np.eye(3)[y], "binary_crossentropy", "accuracy"),
        ("linear", 1, lambda y: y * 0.5, "mean_squared_error", "mae"),
    ],
)
def test_a_model_never_compiled_says_what_it_chose(
    blobs, capsys, activation, units, targets, loss, metric
):
    x, y = blobs
    model = classifier(activation, units)
    history = model.fit(x, targets(y), epochs=3, verbose=2).history
    assert f"Not compiled, so: Adam, {loss}, {metric}." in capsys.readouterr().out
    assert model.loss.name == loss
    assert isinstance(model.optimizer, optimizers.Adam)
    assert list(history) == ["loss", metric]
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize(
    ("activation", "targets"),
    [("relu", np.zeros(90)), ("linear", np.zeros(90, int)), ("sigmoid", np.full(90, 0.5))],
)
def test_where_nothing_is_implied_compile_is_asked_for(blobs, activation, targets):
    model = classifier(activation, 1)
    with pytest.raises(ValueError, match=r"call model\.compile"):
        model.fit(blobs[0], targets, verbose=0)
    model.compile("sgd", "mse")
    model.fit(blobs[0], targets, verbose=0)


def test_compile_without_a_loss_keeps_rmsprop_and_infers(blobs, capsys):
    model = classifier()
    model.compile(metrics=["acc"])
    model.fit(*blobs, verbose=2)
    assert (
        "Compiled without a loss, so: sparse_categorical_crossentropy." in capsys.readouterr().out
    )
    assert isinstance(model.optimizer, optimizers.RMSprop)
    assert set(model.history.history) == {"loss", "acc"}


# --- fit -------------------------------------------------------------------------------


def test_history_keys_are_as_typed(blobs):
    model = classifier()
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        metrics=["acc", metrics.SparseTopKCategoricalAccuracy(2)],
    )
    history = model.fit(*blobs, epochs=2, validation_split=0.2, verbose=0)
    keys = ["loss", "acc", "sparse_top_k_categorical_accuracy"]
    assert list(history.history) == keys + [f"val_{key}" for key in keys]
    assert history.epoch == [0, 1]
    assert model.history is history


def test_the_kinds_of_data_all_give_the_same(blobs, tmp_path):
    pandas = pytest.importorskip("pandas")
    x, y = (blobs[0] * 10).astype(np.int64), blobs[1]
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    kinds = [
        (x, y),
        (x.astype(np.float64), y.tolist()),
        (x.tolist(), y.astype(np.float32)),
        (mapped, y[:, None]),
        (pandas.DataFrame(x, columns=["a", "b"]), pandas.Series(y)),
    ]
    weights = []
    for features, targets in kinds:
        model = classifier()
        model.fit(features, targets, epochs=2, verbose=0)
        weights.append(model.get_weights())
    for other in weights[1:]:
        for a, b in zip(weights[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_generators_and_iterables(blobs):
    x, y = blobs

    def endless():
        while True:
            for i in range(0, 90, 30):
                yield x[i : i + 30], y[i : i + 30]

    by_arrays, by_generator, by_list = classifier(), classifier(), classifier()
    by_arrays.fit(x, y, batch_size=30, epochs=2, shuffle=False, verbose=0)
    by_generator.fit(endless(), epochs=2, steps_per_epoch=3, validation_data=endless(),
                     validation_steps=2, verbose=0)  # fmt: skip
    by_list.fit(
        [(x[i : i + 30], y[i : i + 30]) for i in range(0, 90, 30)],
        epochs=2,
        shuffle=False,
        verbose=0,
    )
    for a, b, c in zip(by_arrays.get_weights(), by_generator.get_weights(), by_list.get_weights()):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert by_generator.predict(iter([x[:30], x[30:]])).shape == (90, 3)


def test_a_short_last_batch_counts_by_its_samples(blobs):
    x, y = blobs
    model = classifier()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    whole = model.evaluate(x, y, batch_size=90)
    parts = model.evaluate(x, y, batch_size=40)
    np.testing.assert_allclose(whole, parts, rtol=1e-6)
    p = model.predict(x)
    assert whole[0] == pytest.approx(-np.log(p[np.arange(90), y]).mean(), rel=1e-5)
    assert whole[1] == pytest.approx((p.argmax(1) == y).mean())


def test_weights_of_samples_and_classes(blobs):
    x, y = blobs
    weights = np.where(y == 1, 3.0, 1.0)
    by_sample, by_class, repeated = classifier(), classifier(), classifier()
    for model in (by_sample, by_class, repeated):
        model.compile(optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    by_sample.fit(x, y, sample_weight=weights, shuffle=False, verbose=0)
    by_class.fit(x, y, class_weight={1: 3.0}, shuffle=False, verbose=0)
    for a, b in zip(by_sample.get_weights(), by_class.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    p = repeated.predict(x)
    expected = np.mean(-np.log(p[np.arange(90), y]) * weights)
    assert repeated.test_on_batch(x, y, sample_weight=weights) == pytest.approx(expected, rel=1e-5)


def test_weights_of_time_steps():
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(6, 4, 3)), rng.normal(size=(6, 4, 2)), rng.random((6, 4))
    model = Sequential([layers.GRU(5, return_sequences=True), layers.Dense(2)], seed=0)
    model.compile(
        "sgd", "mse", metrics=["mse"], weighted_metrics=[metrics.MeanSquaredError("weighted")]
    )
    p = model.predict(x)
    errors = ((p - y) ** 2).mean(-1)
    loss, plain, weighted = model.evaluate(x, y, sample_weight=w)
    assert loss == pytest.approx((errors * w).mean(), rel=1e-5)
    assert plain == pytest.approx(errors.mean(), rel=1e-5)
    assert weighted == pytest.approx((errors * w).sum() / w.sum(), rel=1e-5)


def test_on_batch_methods(blobs):
    x, y = blobs
    model = classifier()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    before = model.test_on_batch(x, y)
    assert model.train_on_batch(x, y) == before
    after = model.test_on_batch(x, y, return_dict=True)
    assert after["loss"] < before[0]
    assert set(after) == {"loss", "accuracy"}
    np.testing.assert_array_equal(model.predict_on_batch(x), model(x))
    assert model.predict(x[0:1]).shape == (1, 3)
    assert model.predict(x).dtype == np.float32
    assert model.evaluate(x, y, return_dict=True).keys() == {"loss", "accuracy"}


def test_predict_does_not_change_and_copies_out(blobs):
    model = classifier()
    first = model.predict(blobs[0])
    kept = first.copy()
    model.predict(blobs[0] + 1)
    np.testing.assert_array_equal(first, kept)


def test_epochs_initial_epoch_and_stopping(blobs):
    class Stop(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 3

    model = classifier()
    assert model.fit(*blobs, epochs=9, initial_epoch=2, callbacks=[Stop()], verbose=0).epoch == [
        2,
        3,
    ]
    assert model.fit(*blobs, epochs=0, verbose=0).epoch == []


def test_callbacks_hear_everything_in_order(blobs):
    heard = []

    class Listener(callbacks.Callback):
        pass

    def hook(name):
        return lambda self, *arguments: heard.append(name)

    for name in dir(callbacks.Callback):
        if name.startswith("on_"):
            setattr(Listener, name, hook(name))
    model = classifier()
    model.fit(*blobs, batch_size=60, validation_split=0.2, callbacks=[Listener()], verbose=0)
    assert heard == [
        "on_train_begin", "on_epoch_begin",
        "on_train_batch_begin", "on_train_batch_end", "on_train_batch_begin", "on_train_batch_end",
        "on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end",
        "on_epoch_end", "on_train_end",
    ]  # fmt: skip
    heard.clear()
    model.predict(blobs[0], callbacks=[Listener()])
    assert heard[0] == "on_predict_begin"
    assert heard[-1] == "on_predict_end"


def test_the_progress_bar_shows_the_metrics(blobs, capsys):
    classifier().fit(*blobs, epochs=2, verbose=1)
    shown = capsys.readouterr().err
    assert "Epoch 1/2" in shown
    assert "Epoch 2/2" in shown
    assert "loss: " in shown
    assert "accuracy: " in shown


def test_frozen_layers_stay_as_they_are(blobs):
    model = classifier()
    model.build((None, 2))
    model.layers[0].trainable = False
    before = model.get_weights()
    model.fit(*blobs, verbose=0)
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.array_equal(before[2], after[2])


def test_the_learning_rate_can_be_set_between_steps(blobs):
    model = classifier()
    model.compile(optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    model.train_on_batch(*blobs)
    before = model.get_weights()
    model.optimizer.learning_rate = 0.0
    model.train_on_batch(*blobs)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.optimizer.iterations == 2


def test_a_repeated_train_step_allocates_no_arrays():
    import tracemalloc

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 16, 16, 3)).astype(np.float32), rng.integers(0, 3, 32)
    model = Sequential(
        [
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(3, "softmax"),
        ],
        seed=0,
    )
    for _ in range(3):
        model.fit(x, y, verbose=0)
    tracemalloc.start()
    model.fit(x, y, epochs=5, verbose=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * x.nbytes  # a gathered batch; the images between the layers are four


# --- losses against their formulas -----------------------------------------------------


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "binary_crossentropy"])
def test_fused_and_plain_gradients_agree(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)), rng.integers(0, 2, (20, 2)).astype(float)
    results = []
    for last in ([layers.Dense(2, "sigmoid")], [layers.Dense(2), layers.Activation("sigmoid")]):
        model = Sequential(last, seed=1)
        model.compile(optimizers.SGD(0.5), name)
        model.fit(x, y, epochs=5, verbose=0)
        results.append(model.get_weights())
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(("loss", "activation"), [
    (losses.SparseCategoricalCrossentropy, "softmax"),
    (losses.CategoricalCrossentropy, "softmax"),
    (losses.BinaryCrossentropy, "sigmoid"),
])  # fmt: skip
def test_from_logits_equals_the_activation(loss, activation):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(20, 4)), rng.integers(0, 3, 20)
    y = labels if loss.sparse else np.eye(3)[labels]
    results = []
    for last, made in ((activation, loss()), (None, loss(from_logits=True))):
        model = Sequential([layers.Dense(3, last)], seed=1)
        model.compile(optimizers.SGD(0.5), made)
        results.append((model.fit(x, y, epochs=4, verbose=0).history["loss"], model.get_weights()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
