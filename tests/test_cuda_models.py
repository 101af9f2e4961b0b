"""Whole models on CUDA: they learn what they learn on the CPU, and never leave the GPU."""

import numpy as np
import pytest

from minicnnrnn import Sequential, callbacks, layers
from minicnnrnn.kernels import gpu
from minicnnrnn.layers import (
    GRU,
    LSTM,
    BatchNormalization,
    Bidirectional,
    Branches,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalAveragePooling2D,
    MaxPooling2D,
    Residual,
    SimpleRNN,
)

pytestmark = [pytest.mark.cuda, pytest.mark.gpu]

SAMPLES = 3 if gpu.SIMULATED else 500
BATCH = 2 if gpu.SIMULATED else 64  # the last batch is shorter
SIZE, UNITS, STEPS = (4, 2, 3) if gpu.SIMULATED else (16, 32, 20)
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((SAMPLES, SIZE, SIZE, 2)).astype(np.float32)
SEQUENCES = RNG.standard_normal((SAMPLES, STEPS, 3)).astype(np.float32)
WORDS = RNG.integers(0, 6, (SAMPLES, STEPS))
LABELS = RNG.integers(0, 3, SAMPLES)

MODELS = {
    "cnn": lambda: (
        IMAGES,
        Conv2D(UNITS, 3, padding="same", activation="relu"),
        BatchNormalization(),
        MaxPooling2D(2),
        Dropout(0.25),
        Flatten(),
    ),
    "residual": lambda: (
        IMAGES,
        Residual([Conv2D(2, 3, padding="same"), BatchNormalization()], activation="relu"),
        Branches([Conv2D(UNITS, 1)], [MaxPooling2D(3, 1, "same")], merge="concat"),
        GlobalAveragePooling2D(),
    ),
    "simple_rnn": lambda: (SEQUENCES, SimpleRNN(UNITS)),
    "lstm": lambda: (SEQUENCES, LSTM(UNITS, return_sequences=True), LSTM(UNITS)),
    "gru": lambda: (SEQUENCES, GRU(UNITS, dropout=0.2, recurrent_dropout=0.2)),
    "text": lambda: (WORDS, Embedding(6, 3, mask_zero=True), Bidirectional(LSTM(UNITS))),
}


def made(name, device):
    x, *stack = MODELS[name]()
    model = Sequential([*stack, Dense(3, activation="softmax")], seed=0, device=device)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, x


@pytest.mark.parametrize("name", MODELS)
def test_a_model_learns_what_it_learns_on_the_cpu(name):
    results = []
    for device in ("cpu", "cuda"):
        model, x = made(name, device)
        history = model.fit(
            x, LABELS, batch_size=BATCH, epochs=2, validation_data=(x[:2], LABELS[:2]), verbose=0
        )
        measured = model.evaluate(x, LABELS, batch_size=BATCH, verbose=0)
        results.append((history.history, measured, model.predict(x, verbose=0), model))
    (logs, measured, y, cpu), (cuda_logs, cuda_measured, cuda_y, cuda) = results
    assert logs.keys() == cuda_logs.keys()
    for key, values in logs.items():
        np.testing.assert_allclose(cuda_logs[key], values, rtol=1e-3, atol=1e-4, err_msg=key)
    np.testing.assert_allclose(cuda_measured, measured, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(cuda_y, y, atol=1e-3)
    for one, other in zip(cuda.get_weights(), cpu.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("name", ["cnn", "lstm", "text"])
def test_the_same_seed_gives_the_same_bits(name):
    weights = []
    for _ in range(2):
        model, x = made(name, "cuda")
        model.fit(x, LABELS, batch_size=BATCH, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def forbidden(*arguments, **options):
    """Fail the test."""
    raise AssertionError("a step allocates or copies")


@pytest.mark.parametrize("name", MODELS)
def test_a_step_allocates_and_copies_nothing(name, monkeypatch):
    model, x = made(name, "cuda")
    model.fit(x, LABELS, batch_size=BATCH, verbose=0)

    class Watch(callbacks.Callback):
        steps = 0

        def on_train_batch_begin(self, batch, logs=None):
            """Forbid, once the epoch's order is there."""
            self.steps += 1
            for name in ("empty", "upload"):
                monkeypatch.setattr(gpu, name, forbidden)
            monkeypatch.setattr(gpu.DeviceArray, "__array__", forbidden)

    def read_logs():
        monkeypatch.undo()
        return read()

    watch, read = Watch(), model.read_logs
    model.read_logs = read_logs  # at the end of the epoch
    model.fit(x, LABELS, batch_size=BATCH, verbose=0, callbacks=[watch])
    assert watch.steps == -(-SAMPLES // BATCH)


def test_weights_and_files_are_the_same_on_every_device(tmp_path):
    model, x = made("cnn", "cuda")
    model.fit(x, LABELS, batch_size=BATCH, verbose=0)
    model.save(tmp_path / "model.keras")
    from minicnnrnn.saving import load_model

    loaded = load_model(tmp_path / "model.keras")
    assert loaded.device.name == "cpu"
    np.testing.assert_allclose(loaded.predict(x), model.predict(x), atol=1e-5)
    for one, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    kernel = model._layers[0].kernel
    assert isinstance(kernel, np.ndarray)
    assert not kernel.flags.writeable


def test_data_that_do_not_fit_come_batch_by_batch(monkeypatch):
    weights = []
    for free in (2**34, 0):
        monkeypatch.setattr(gpu, "free_memory", lambda free=free: free)
        model, x = made("text", "cuda")
        w = np.linspace(0, 1, SAMPLES)
        model.fit(x, LABELS, sample_weight=w, batch_size=BATCH, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_bad_data_change_nothing(wrong):
    model, x = made("cnn", "cuda")
    model.fit(x, LABELS, batch_size=BATCH, verbose=0)
    before = model.get_weights()
    bad = x.copy()
    bad[SAMPLES - 1, 0, 0, 0] = wrong
    with pytest.raises(ValueError, match=f"finite numbers.*sample {SAMPLES - 1}"):
        model.fit(bad, LABELS, batch_size=BATCH, verbose=0)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_layers_work_alone():
    layer = layers.Dense(2)
    x = np.ones((3, 4), np.float32)
    from minicnnrnn import set_device

    set_device("cuda")
    try:
        y = layer(x)
    finally:
        set_device(None)
    assert isinstance(y, np.ndarray)
    np.testing.assert_allclose(y, x @ layer.kernel + layer.bias, rtol=1e-6)


def test_the_three_verbs_take_and_give_what_lies_where():
    model = Sequential([Dense(3, activation="tanh"), Dense(1)], seed=0, device="cuda")
    model.compile("sgd", "mse")
    x = np.ones((4, 2), np.float32)
    model.fit(x, np.zeros(4), epochs=0, verbose=0)
    y, _ = model.forward(x, None, True)
    assert isinstance(y, gpu.DeviceArray)
    dx = model.backward(2 * np.asarray(y), input_gradient=True)
    assert np.asarray(dx).shape == x.shape
    before = float(np.square(np.asarray(y)).sum())
    model.update()
    assert float(np.square(np.asarray(model.forward(x)[0])).sum()) < before


def test_out_of_memory_is_one_error_and_the_model_stays_usable(monkeypatch):
    from numba import cuda

    model, x = made("cnn", "cuda")
    before, allocate = model.predict(x, verbose=0), cuda.device_array

    def limited(shape, dtype):
        if np.prod(shape) * np.dtype(dtype).itemsize > 100 * x.nbytes:
            raise RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")
        return allocate(shape, dtype)

    monkeypatch.setattr(cuda, "device_array", limited)
    many = np.concatenate([x] * 101)
    with pytest.raises(MemoryError, match=r"Expected [\d,]+ bytes of free .* Received: [\d,]+ "):
        model.predict(many, batch_size=len(many), verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
