"""Batches that are read where they lie: nothing behind them is read, nothing in them is written.

A batch ends at a page that cannot be read, and its own pages cannot be written to: a kernel that
does either ends the process.
"""

import ctypes
import mmap
import sys

import numpy as np
import pytest

from minicnnrnn import Sequential, device, layers, recorded
from minicnnrnn.kernels.jit import JIT

pytestmark = pytest.mark.skipif(
    not JIT or sys.platform != "linux", reason="needs compiled code, and Linux to protect pages"
)

ROWS, LINE, IMAGE, VOLUME = (130, 257), (9, 125, 31), (5, 47, 47, 3), (3, 15, 29, 29, 1)
WIDE = (4, 23, 23, 16)
CASES = {
    **{
        f"{name} of {kernel}, {strides}": ((7, 127, 43) if name == "Conv1D" else shape,
            lambda name=name, kernel=kernel, strides=strides: [
                getattr(layers, name)(5, kernel, strides=strides, padding="same")])
        for name, shape in (("Conv1D", LINE), ("Conv2D", IMAGE), ("Conv3D", VOLUME))
        for kernel in (1, 3, 5, 7)
        for strides in (1, 2)
    },
    "Conv2D on many channels": (WIDE, lambda: [layers.Conv2D(16, 3), layers.ReLU()]),
    "Conv2D of 5 x 5 on many channels": (WIDE, lambda: [layers.Conv2D(16, 5)]),
    "Conv2D in groups": (WIDE, lambda: [layers.Conv2D(8, 3, groups=4)]),
    "Conv2D with gaps": (IMAGE, lambda: [layers.Conv2D(8, 3, dilation_rate=2)]),
    "Conv2D, MaxPooling2D": (IMAGE, lambda: [layers.Conv2D(8, 3), layers.MaxPooling2D()]),
    "Conv2DTranspose": (IMAGE, lambda: [layers.Conv2DTranspose(4, 3, 2)]),
    "DepthwiseConv2D": (IMAGE, lambda: [layers.DepthwiseConv2D(3)]),
    "SeparableConv1D": (LINE, lambda: [layers.SeparableConv1D(4, 3)]),
    "SeparableConv2D": (WIDE, lambda: [layers.SeparableConv2D(4, 5)]),
    "Dense": (ROWS, lambda: [layers.Dense(33)]),
    "Dense on lines": (LINE, lambda: [layers.Dense(3)]),
    "Flatten, Dense": (IMAGE, lambda: [layers.Flatten(), layers.Dense(3)]),
    "SimpleRNN": (LINE, lambda: [layers.SimpleRNN(9)]),
    "GRU": (LINE, lambda: [layers.GRU(9)]),
    "GRU, reset before": (LINE, lambda: [layers.GRU(9, reset_after=False)]),
    "LSTM": (LINE, lambda: [layers.LSTM(9, recurrent_dropout=0.5)]),
    "LSTM of one sequence": ((1, 1100, 31), lambda: [layers.LSTM(9, dropout=0.5)]),
    "Bidirectional": (LINE, lambda: [layers.Bidirectional(layers.LSTM(5))]),
    "ConvLSTM1D": (WIDE, lambda: [layers.ConvLSTM1D(4, 3)]),
    "ConvLSTM2D": ((3, 4, 31, 31, 3), lambda: [layers.ConvLSTM2D(4, 3)]),
    "Masking": (LINE, lambda: [layers.Masking(), layers.LSTM(5)]),
    "TimeDistributed": (LINE, lambda: [layers.TimeDistributed(layers.Dense(4))]),
    "MaxPooling1D": (LINE, lambda: [layers.MaxPooling1D(3, 2)]),
    "MaxPooling2D": (IMAGE, lambda: [layers.MaxPooling2D()]),
    "MaxPooling3D": (VOLUME, lambda: [layers.MaxPooling3D()]),
    "AveragePooling2D": (IMAGE, lambda: [layers.AveragePooling2D(2)]),
    "GlobalMaxPooling2D": (IMAGE, lambda: [layers.GlobalMaxPooling2D()]),
    "GlobalAveragePooling1D": (LINE, lambda: [layers.GlobalAveragePooling1D()]),
    "BatchNormalization": (IMAGE, lambda: [layers.BatchNormalization()]),
    "LayerNormalization": (LINE, lambda: [layers.LayerNormalization()]),
    "GroupNormalization": (WIDE, lambda: [layers.GroupNormalization(4)]),
    **{
        name: (LINE, lambda name=name: [layers.Activation(name)])
        for name in ("relu", "tanh", "softmax", "gelu", "linear")
    },
    "PReLU": (LINE, lambda: [layers.PReLU()]),
    "Dropout": (LINE, lambda: [layers.Dropout(0.5), layers.Dense(3)]),
    "Dropout alone": (LINE, lambda: [layers.Dropout(0.5)]),
    "Flatten alone": (IMAGE, lambda: [layers.Flatten()]),
    "GaussianNoise": (LINE, lambda: [layers.GaussianNoise(0.5)]),
    "Rescaling": (IMAGE, lambda: [layers.Rescaling(2.0)]),
    "RandomFlip": (IMAGE, lambda: [layers.RandomFlip()]),
    "RandomTranslation": (IMAGE, lambda: [layers.RandomTranslation(0.2, 0.2)]),
    "ZeroPadding2D": (IMAGE, lambda: [layers.ZeroPadding2D()]),
    "Cropping2D": (IMAGE, lambda: [layers.Cropping2D()]),
    "UpSampling2D": (IMAGE, lambda: [layers.UpSampling2D()]),
    "Permute": (LINE, lambda: [layers.Permute((2, 1))]),
    "Reshape": (LINE, lambda: [layers.Reshape((31, 125)), layers.Dense(3)]),
    "RepeatVector": (ROWS, lambda: [layers.RepeatVector(2)]),
    "Residual": (LINE, lambda: [layers.Residual([layers.Dense(31)])]),
    "Branches": (LINE, lambda: [layers.Branches([layers.Dense(3), layers.Dense(4)])]),
}  # fmt: skip


def guarded(values):
    """The same numbers, read-only though NumPy does not know it, before a page of nothing."""
    pages = -(-values.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, pages + mmap.PAGESIZE)
    array = np.frombuffer(memory, np.float32, values.size, pages - values.nbytes)
    array[...] = values.reshape(-1)
    begin = array.ctypes.data - (pages - values.nbytes)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for place, size, allowed in ((begin, pages, mmap.PROT_READ), (begin + pages, 1, 0)):
        assert protect(ctypes.c_void_p(place), ctypes.c_size_t(size), allowed) == 0
    assert array.flags.writeable
    return array.reshape(values.shape)


def results(model, x):
    """What three predictions and train steps return: the first two go through Python."""
    y = np.zeros(model.predict_on_batch(x).shape, np.float32)
    predicted = [model.predict_on_batch(batch) for batch in (x, x, 2 - x, x)]
    losses = [model.train_on_batch(x, y) for _ in range(3)]
    return [*predicted, *losses, model.evaluate(x, y, len(x)), model.predict(x, len(x))]


@pytest.mark.parametrize("case", CASES)
def test_where_it_lies(case, monkeypatch):
    """The bits of a batch that is copied first."""
    shape, stack = CASES[case]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    assert x.size >= device.LARGE
    models = [Sequential([layers.Input(shape[1:]), *stack()], seed=2) for _ in range(2)]
    for model in models:
        model.compile("sgd", "mse")
    shown, show = [], recorded.Launches._with
    monkeypatch.setattr(recorded.Launches, "_with", lambda *given: shown.append(1) or show(*given))
    lent = results(models[0], guarded(x))
    assert len(shown) >= 2  # all but the first two go without Python
    monkeypatch.setattr(device, "LARGE", x.size + 1)
    copied = results(models[1], x)
    for one, other in zip(lent, copied, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.setflags(write=False) or x,  # kernels would be compiled anew for it
        np.asfortranarray,
        lambda x: x.astype(np.float64),
        lambda x: np.repeat(x, 2, 1)[:, ::2],
        lambda x: x[: len(x) // 2],
    ],
)
def test_what_is_copied(change, monkeypatch):
    """A batch that is read-only, in another order or of another type; or small."""
    model = Sequential([layers.Input((257,)), layers.Dense(3)], seed=3)
    x = np.random.default_rng(4).standard_normal(ROWS).astype(np.float32)
    given = change(x.copy())
    for _ in range(3):
        expected = model.predict_on_batch(x[: len(given)])
    monkeypatch.setattr(recorded.Launches, "_with", None)
    np.testing.assert_array_equal(model.predict_on_batch(given), expected)


def test_a_look_at_validation_data_keeps_nothing():
    model = Sequential([layers.Input((257,)), layers.Dense(3)], seed=3)
    model.compile("sgd", "mse")
    x, y = np.ones(ROWS, np.float32), np.ones((ROWS[0], 3), np.float32)
    held = sys.getrefcount(x)
    model.fit(x[:2], y[:2], epochs=0, verbose=0, validation_data=(x, y), validation_batch_size=130)
    assert sys.getrefcount(x) == held


def test_nothing_is_kept():
    """A batch that was lent belongs to the caller alone afterwards, and may be another one."""
    model = Sequential([layers.Input((257,)), layers.Dense(3)], seed=3)
    x = np.random.default_rng(4).standard_normal(ROWS).astype(np.float32)
    for _ in range(3):
        expected = model.predict_on_batch(x)
    held = sys.getrefcount(x)
    moved = x.copy()
    np.testing.assert_array_equal(model.predict_on_batch(moved), expected)
    assert sys.getrefcount(x) == held
    moved *= 2
    assert (model.predict_on_batch(moved) != expected).any()
    moved[3, 5] = np.nan
    with pytest.raises(ValueError, match="sample 3"):
        model.predict_on_batch(moved)
