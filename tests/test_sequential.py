"""Sequential: building, weights, the three verbs, and the promise of the same bits."""

import threading

import numba
import numpy as np
import pytest
from checks import check_gradient

from minicnnrnn import Sequential, get_device, layers, losses, optimizers, set_device
from minicnnrnn.utils import set_random_seed


def small_cnn(seed=0, **kwargs):
    return Sequential(
        [
            layers.Conv2D(4, 3, activation="relu", padding="same"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ],
        seed=seed,
        **kwargs,
    )


def images(count=50, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    x = rng.normal(0, 0.3, (count, 8, 8, 1)) + y[:, None, None, None] * np.eye(8)[None, :, :, None]
    return x, y


# --- building --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda first: [layers.Input((8, 8, 1)), layers.Conv2D(4, 3), first],
        lambda first: [layers.InputLayer(batch_shape=(None, 8, 8, 1)), layers.Conv2D(4, 3), first],
        lambda first: [layers.Conv2D(4, 3, input_shape=(8, 8, 1)), first],
    ],
)
def test_a_declared_shape_builds_without_allocating(make):
    model = Sequential(make(layers.Flatten()))
    assert model.built
    assert model.output_shape == (None, 144)
    assert model.count_params() == 40
    model.summary(print_fn=lambda line: None)
    assert model.context is None or model.context.parameters.values is None
    assert [layer.name.split("_")[0] for layer in model.layers] == ["conv2d", "flatten"]


def test_build_and_first_data_give_the_same_model():
    model = small_cnn()
    lines = []
    model.summary(lines.append)
    assert any("?" in line for line in lines)
    model.build((None, 8, 8, 1))
    other = small_cnn()
    other(np.zeros((1, 8, 8, 1)))
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_failed_build_leaves_the_model_unbuilt_and_usable():
    model = Sequential(
        [layers.Conv2D(2, 3), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(1)]
    )
    with pytest.raises(ValueError, match="extent"):
        model.build((None, 4, 4, 1))
    assert not model.built
    assert model(np.zeros((2, 7, 7, 3))).shape == (2, 1)


def test_input_dim_and_unknown_lengths():
    assert Sequential([layers.Dense(2, input_dim=5)]).count_params() == 12
    model = Sequential([layers.Input((None, 3)), layers.LSTM(4)])
    assert model(np.zeros((2, 5, 3))).shape == model(np.zeros((2, 9, 3))).shape == (2, 4)


def test_a_sequential_is_a_layer():
    inner = Sequential([layers.Dense(4, activation="relu"), layers.Dense(2)], name="inner")
    model = Sequential([layers.Input((3,)), inner, layers.Dense(1)], seed=1)
    assert model.count_params() == 16 + 10 + 3
    x = np.random.default_rng(0).normal(size=(20, 3))
    model.compile("sgd", "mse")
    before = inner.get_weights()[0].copy()
    model.fit(x, x[:, :1], epochs=1, verbose=0)
    assert not np.array_equal(before, inner.get_weights()[0])
    with pytest.raises(ValueError, match="lives in a model already"):
        Sequential([inner])


def test_add_and_pop_keep_weights():
    x, y = images()
    model = small_cnn()
    model.fit(x, y, verbose=0)
    weights = model.get_weights()
    last = model.pop()
    assert model.predict(x).shape == (50, 64)
    model.add(layers.Dense(5, activation="relu"))
    model.add(layers.Dense(3, activation="softmax"))
    for before, after in zip(weights[:2], model.get_weights()[:2], strict=True):
        np.testing.assert_array_equal(before, after)
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(last.get_weights()[0], weights[2])
    Sequential([layers.Input((64,)), last]).predict(np.zeros((1, 64)))


def test_weights_are_read_only_views_in_keras_order():
    model = Sequential([layers.Input((4,)), layers.Dense(3), layers.Dense(2, use_bias=False)])
    assert [w.shape for w in model.get_weights()] == [(4, 3), (3,), (3, 2)]
    dense = model.layers[0]
    assert dense.kernel.shape == (4, 3)
    with pytest.raises(ValueError, match="read-only"):
        dense.kernel[0, 0] = 1
    assert model.layers[1].bias is None
    new = [np.full_like(w, i) for i, w in enumerate(model.get_weights())]
    model.set_weights(new)
    np.testing.assert_array_equal(model.predict(np.ones((1, 4))), [[6, 6]])


def test_set_weights_takes_effect_after_a_prediction_and_is_all_or_nothing():
    model = Sequential([layers.Input((2,)), layers.Dense(2)])
    x = np.eye(2)
    model.predict(x)
    model.set_weights([np.eye(2) * 3, np.ones(2)])
    np.testing.assert_array_equal(model.predict(x), np.eye(2) * 3 + 1)
    with pytest.raises(ValueError, match="weight 'bias' to have shape"):
        model.set_weights([np.zeros((2, 2)), np.zeros(3)])
    with pytest.raises(ValueError, match="Expected 2 weights"):
        model.set_weights([np.zeros((2, 2))])
    np.testing.assert_array_equal(model.predict(x), np.eye(2) * 3 + 1)


# --- the three verbs -------------------------------------------------------------------


def test_forward_backward_update_are_what_fit_does():
    x, y = images(32)
    x, labels = x.astype(np.float32), y.astype(np.int32)
    by_fit = small_cnn()
    by_fit.compile(optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    by_fit.fit(x, y, epochs=3, batch_size=32, shuffle=False, verbose=0)
    by_hand = small_cnn()
    by_hand.compile(optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    by_hand.build(x.shape)
    by_hand.allocate()
    by_hand.context.parameters.allocate_gradients()
    loss, weights = losses.SparseCategoricalCrossentropy(), np.full(32, 1 / 32, np.float32)
    for _ in range(3):
        p, _ = by_hand.forward(x, training=True)
        dy = np.empty_like(p)
        loss.gradient(by_hand.kernels, dy, p, labels, weights)
        by_hand.backward(dy)
        by_hand.update()
    for a, b in zip(by_fit.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_the_gradient_of_a_whole_model_by_projection(device):
    model = Sequential(
        [
            layers.Conv1D(5, 3, padding="causal", activation="gelu"),
            layers.AveragePooling1D(2),
            layers.GRU(4, return_sequences=True),
            layers.LSTM(3),
            layers.Dense(4, activation="softmax"),
        ],
        seed=3,
        device=device,
    )
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    model(x, training=True)

    def gradient(x, dy):
        x32 = x.astype(np.float32)
        model.forward(x32, training=True)
        return model.backward(dy.astype(np.float32), input_gradient=True).astype(np.float64)

    # Float32 inside: a large step and a loose bound; the float64 reference is held to 1e-6.
    rng = np.random.default_rng(1)
    u, v = rng.standard_normal((2, 4)), rng.standard_normal(x.shape)
    step = 1e-2
    numeric = np.sum(u * (model(x + step * v) - model(x - step * v))) / (2 * step)
    analytic = np.sum(v * gradient(x, u))
    assert abs(numeric - analytic) < 5e-3 * (1 + abs(numeric))
    assert check_gradient is not None


def test_nothing_is_computed_below_the_lowest_layer_that_is_trained(monkeypatch):
    model = Sequential(
        [layers.Reshape((8, 8, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)], seed=0
    )
    model.compile("sgd", "mse")
    asked = []
    kernels = model.kernels
    original = kernels.conv_backward_input

    def counted(*arguments):
        asked.append(1)
        original(*arguments)

    monkeypatch.setattr(kernels, "conv_backward_input", counted)
    x = np.ones((2, 64), np.float32)
    model.train_on_batch(x, np.zeros((2, 3)))
    assert not asked
    model.forward(x, training=True)
    assert model.backward(np.ones((2, 3), np.float32), input_gradient=True).shape == x.shape
    assert asked


# --- randomness and threads ------------------------------------------------------------


def fitted(threads, seed=7):
    numba.set_num_threads(threads)
    x, y = images(70)
    model = small_cnn(seed)
    model.fit(x, y, epochs=2, verbose=0)
    return model.get_weights()


def test_same_seed_same_bits_and_on_any_number_of_threads():
    most = numba.config.NUMBA_NUM_THREADS
    first, again, alone = fitted(most), fitted(most), fitted(1)
    numba.set_num_threads(most)
    other = fitted(most, seed=8)
    for a, b, c in zip(first, again, alone, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.LSTM, layers.GRU])
def test_recurrent_fits_have_the_same_bits_on_any_number_of_threads(kind):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 12, 5)), rng.integers(0, 2, 40)
    results = []
    for threads in (numba.config.NUMBA_NUM_THREADS, 1):
        numba.set_num_threads(threads)
        model = Sequential([kind(9), layers.Dense(1, activation="sigmoid")], seed=5)
        model.fit(x, y, epochs=2, verbose=0)
        results.append(model.get_weights())
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_set_random_seed_fixes_models_without_a_seed():
    def two():
        set_random_seed(3)
        return [small_cnn(None).__call__(np.ones((1, 8, 8, 1))) for _ in range(2)]

    (a, b), (c, d) = two(), two()
    np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(b, d)
    assert not np.array_equal(a, b)


def test_the_numpy_device_computes_the_same():
    x, y = images(40)
    models = [small_cnn(device=device) for device in ("cpu", "numpy")]
    for model in models:
        model.fit(x, y, epochs=2, verbose=0)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    np.testing.assert_allclose(models[0].predict(x), models[1].predict(x), atol=1e-3)


def test_choosing_a_device(monkeypatch):
    monkeypatch.setenv("MINICNNRNN_DEVICE", "numpy")
    assert get_device().name == "numpy"
    set_device("cpu")
    try:
        assert Sequential().device.name == "cpu"
        assert Sequential(device="numpy").device.name == "numpy"
    finally:
        set_device(None)
    with pytest.raises(ValueError, match="Received: 'tpu'"):
        Sequential(device="tpu")


def test_two_threads_may_use_one_model():
    x, y = images(64)
    model = small_cnn()
    model.fit(x, y, verbose=0)
    expected, wrong = model.predict(x), []

    def work():
        for _ in range(20):
            if not np.array_equal(model.predict(x), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_precision_is_checked_and_kept():
    with pytest.raises(ValueError, match="Expected 'float32' or 'tf32'. Received: 'half'"):
        Sequential(precision="half")
    models = [
        Sequential([layers.Input((4,)), layers.Dense(4)], device="cpu", seed=0, precision=precision)
        for precision in ("float32", "tf32")
    ]
    assert models[1].to("numpy").device.precision == "tf32"
    models[0].to("numpy")
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(*(model(x) for model in models))


@pytest.mark.cuda
@pytest.mark.gpu
def test_tensor_cores_round_their_factors():
    x = np.full((4, 4), 1 + 2**-13, np.float32)
    outputs = {}
    for precision in ("float32", "tf32"):
        dense = layers.Dense(4, kernel_initializer="ones")
        model = Sequential([layers.Input((4,)), dense], device="cuda", precision=precision)
        outputs[precision] = model.predict(x, verbose=0)
    np.testing.assert_array_equal(outputs["float32"], np.full((4, 4), 4 * (1 + 2**-13)))
    np.testing.assert_array_equal(outputs["tf32"], np.full((4, 4), 4))
