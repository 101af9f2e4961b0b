"""How many kernels a train step on CUDA launches: in a CUDA graph each costs a microsecond or two.

Nothing is computed here: launches are counted, and models have the sizes that they are used with.
"""

import numpy as np
import pytest

from minicnnrnn import Sequential, applications, callbacks, layers
from minicnnrnn.kernels import gpu
from minicnnrnn.layers import Conv2D, Dense, Flatten, Input, MaxPooling2D

pytestmark = pytest.mark.cuda

BATCH, BATCHES = 8, 4  # how many launches there are does not depend on the samples
CNN = (
    lambda: Conv2D(32, 3, activation="relu"),
    MaxPooling2D,
    lambda: Conv2D(64, 3, activation="relu"),
    MaxPooling2D,
    Flatten,
)
# shape of a sample, layers in front of the last one, launches of a train step
MODELS = {
    "lenet": ((28, 28, 1), lambda: [make() for make in CNN], 26),
    "lstm": ((28, 28), lambda: [layers.LSTM(128)], 25),
    "gru": ((28, 28), lambda: [layers.GRU(128)], 24),
    "simple_rnn": ((28, 28), lambda: [layers.SimpleRNN(128)], 24),
    "resnet20": ((32, 32, 3), lambda: None, 245),
}


class Counted:
    """Stands in for what numba-cuda makes of a kernel."""

    def __init__(self, name, launched):
        self.name, self.launched = name, launched

    def __getitem__(self, configuration):
        return lambda *arguments: self.launched.append(self.name)


def compiled(shape, stack, **options):
    if stack is None:
        model = applications.resnet(20, input_shape=shape, device="cuda")
    else:
        last = Dense(10, activation="softmax", **options)
        model = Sequential([Input(shape), *stack, last], device="cuda")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def launches(model, monkeypatch):
    """The names of the kernels of a train step that is neither the first nor the last."""
    launched, starts = [], []
    count = property(lambda kernel: Counted(kernel.__name__, launched))
    monkeypatch.setattr(gpu.GpuFunction, "dispatcher", count)

    class Watch(callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            """Note where the step begins."""
            starts.append(len(launched))

    shape = (BATCH * BATCHES, *model.input_shape[1:])
    x, y = np.zeros(shape, np.float32), np.zeros(shape[0], np.int64)
    with np.errstate(all="ignore"):  # nobody has written what is read
        model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[Watch()])
    assert len(starts) == BATCHES
    return launched[starts[2] : starts[3]]


@pytest.mark.parametrize("name", MODELS)
def test_a_step_has_few_launches(name, monkeypatch):
    shape, make, most = MODELS[name]
    found = launches(compiled(shape, make()), monkeypatch)
    assert 10 < len(found) <= most, found


def test_what_is_absent_is_not_launched(monkeypatch):
    plain = launches(compiled((4,), []), monkeypatch)
    for kernel in ("_fill", "_copy", "_sum_piece", "_gradient_elements", "_add_total", "_count"):
        assert kernel not in plain
    penalized = launches(compiled((4,), [], kernel_regularizer="l2"), monkeypatch)
    assert sorted(set(penalized) - set(plain)) == [
        "_add_pieces", "_add_total", "_fill", "_gradient_elements", "_sum_piece",
    ]  # fmt: skip
