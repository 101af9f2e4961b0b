"""Recorded steps: the bits of eager ones, whatever happens in between."""

import copy
import pickle
import sys

import numpy as np
import pytest

from minicnnrnn import Sequential, callbacks, layers, losses, metrics, recorded
from minicnnrnn.kernels import gpu, stream
from minicnnrnn.layers import LSTM, BatchNormalization, Conv2D, Dense, Dropout, Flatten, Masking
from minicnnrnn.optimizers import SGD, Adam, schedules

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 3)).astype(np.float32)
LABELS = RNG.integers(0, 2, 5)
WEIGHTS = np.linspace(0.5, 1.5, 5)
FIT = {"batch_size": 2, "epochs": 2, "verbose": 0}  # the last batch is shorter
LOSS = "sparse_categorical_crossentropy"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.gpu])])
def device(request):
    return request.param


@pytest.fixture
def counts(monkeypatch, device):
    """How many steps are recorded, and replayed."""
    found = {"recorded": 0, "refused": 0, "replayed": 0}
    module = recorded if device == "cpu" else stream
    record = module.record

    def counted(work, *parts):
        try:
            recording = record(work, *parts)
        except recorded.Unrecordable:
            found["refused"] += 1
            raise
        found["recorded"] += 1
        replay = recording.replay

        def counted_replay():
            found["replayed"] += 1
            replay()

        recording.replay = counted_replay
        return recording

    monkeypatch.setattr(module, "record", counted)
    return found


@pytest.fixture
def model(device):
    def make(*stack, recorded=True, optimizer="adam"):
        stack = [*(stack or (Dense(4, activation="relu"), Dropout(0.3)))]
        graph = recorded or device == "cpu"
        stack.append(Dense(2, activation="softmax"))
        made = Sequential(stack, seed=0, device=device, cuda_graph=graph)
        made.compile(optimizer, LOSS, metrics=["accuracy"], run_eagerly=not recorded)
        return made

    return make


def both(run):
    """What a function gives with and without recordings, and must be the same."""
    replayed, eager = run(True), run(False)
    compare(replayed, eager)
    return replayed


def compare(one, other):
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            compare(*pair)
    elif isinstance(one, dict):
        compare(list(one.items()), list(other.items()))
    else:
        np.testing.assert_array_equal(one, other)


def state(trained):
    """All that a training leaves behind."""
    slots = trained.optimizer.get_state(trained.context.parameters, trained.weights)
    random = np.asarray(trained.context.random_state)
    return [trained.get_weights(), slots, random, trained.context.updates]


def test_a_cnn(model, counts):
    images = RNG.standard_normal((5, 2, 2, 1)).astype(np.float32)

    def run(recorded):
        made = model(
            Conv2D(1, 1, activity_regularizer="l1"),
            BatchNormalization(),
            Dropout(0.3),
            Flatten(),
            recorded=recorded,
            optimizer=Adam(schedules.ExponentialDecay(0.1, 2, 0.9), clipvalue=0.05),
        )
        options = FIT | {"validation_data": (images[:3], LABELS[:3])}
        history = made.fit(images, LABELS, sample_weight=WEIGHTS, **options)
        return [history.history, state(made), made.predict(images, verbose=0)]

    both(run)
    assert counts == {"recorded": 2, "refused": 0, "replayed": 4}


def test_an_lstm_with_masks(model, counts):
    sequences = RNG.standard_normal((4, 3, 2)).astype(np.float32)
    sequences[::2, 2] = 0

    def run(recorded):
        stack = Masking(), LSTM(2, dropout=0.2, recurrent_dropout=0.2, kernel_constraint="max_norm")
        made = model(*stack, recorded=recorded, optimizer=SGD(0.1, 0.9, clipvalue=0.01))
        history = made.fit(sequences, LABELS[:4], **FIT)
        return [history.history, state(made)]

    both(run)
    assert counts == {"recorded": 1, "refused": 0, "replayed": 3}


def test_a_stateful_layer_forgets(model, counts):
    sequences = RNG.standard_normal((6, 2, 1)).astype(np.float32)

    class Forget(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            """Start afresh."""
            self.model.reset_states()

    def run(recorded):
        made = model(LSTM(2, stateful=True), recorded=recorded)
        labels = np.array([0, 1, 1, 0, 1, 0])
        options = FIT | {"shuffle": False, "callbacks": [Forget()]}
        return [made.fit(sequences, labels, **options).history, state(made)]

    both(run)
    assert counts["replayed"] == 4


class Meddle(callbacks.Callback):
    """Change what can be changed, between epochs and within them."""

    def on_epoch_begin(self, epoch, logs=None):
        """Freeze a layer, change hyper-parameters, train elsewhere."""
        if epoch == 2:
            self.model.layers[0].trainable = False
        if epoch == 3:
            self.model.layers[1].rate, self.model.optimizer.beta_1 = 0.6, 0.5
        if epoch == 4:
            self.model.optimizer.clipvalue = 0.01
        if epoch == 1:
            self.model.predict(X, verbose=0)  # more at a time than in training: memory moves

    def on_train_batch_begin(self, batch, logs=None):
        """Change the learning rate."""
        self.model.optimizer.learning_rate = 0.1 / (1 + batch)

    def on_train_batch_end(self, batch, logs=None):
        """Read what was measured: nothing is counted twice."""
        self.seen = [*getattr(self, "seen", []), sorted(logs.items())]


def test_changes_reach_the_next_step(model, counts):
    def run(recorded):
        made, meddle = model(recorded=recorded), Meddle()
        made.fit(X[:4], LABELS[:4], **FIT | {"epochs": 6, "callbacks": [meddle]})
        made.fit(X, LABELS, **FIT | {"batch_size": 3})
        return [[[n for _, n in logs] for logs in meddle.seen], state(made)]

    both(run)
    assert counts["replayed"] >= 6


def test_batch_by_batch(model, counts):
    """What comes from the host is copied, and the rest replayed; weights are packed anew."""

    def run(recorded):
        made, seen = model(recorded=recorded), []
        for number in range(6):
            w = WEIGHTS[:4] if number >= 3 else None
            seen.append(made.train_on_batch(X[:4], LABELS[:4], w))
            seen.append(made.predict(X, verbose=0).sum())  # in larger buffers, the first time
        return [seen, state(made)]

    both(run)
    assert counts == {"recorded": 2, "refused": 0, "replayed": 4 - 1}


def test_every_step_draws_anew(model, counts):
    """Weights that stay as they are: the losses differ by what dropout draws."""
    made = model(Dense(64), Dropout(0.5), optimizer=SGD(1e-30))
    drawn = [made.train_on_batch(X[:4], LABELS[:4], return_dict=True)["loss"] for _ in range(6)]
    assert len(set(drawn)) == 6
    assert np.asarray(made.context.random_state)[1] == 6
    assert counts["replayed"] == 5


@pytest.mark.parametrize("wrong", [-1, 2, 1.5, np.nan])
def test_wrong_labels_after_right_ones(model, counts, wrong):
    """A batch like those before is not looked at as a first one is, but its numbers are."""
    made = model()
    for _ in range(3):
        made.train_on_batch(X[:4], LABELS[:4])
    before = state(made)
    labels = np.array([0, 1, 0, wrong])
    with pytest.raises(ValueError, match="sample 3"):
        made.train_on_batch(X[:4], labels.astype(int) if wrong in (-1, 2) else labels)
    compare(before, state(made))


def test_data_that_do_not_fit(model, counts, monkeypatch):
    monkeypatch.setattr(gpu, "free_memory", lambda: 0)
    both(lambda recorded: state(trained(model(recorded=recorded))))
    assert counts["replayed"] == 4


def trained(made, **options):
    made.fit(X, LABELS, **FIT | options)
    return made


class Doubled(layers.Layer):
    """A layer in NumPy."""

    calls = 0

    def forward(self, x, mask, training):
        """Twice the input."""
        self._calls = getattr(self, "_calls", 0) + 1
        y = self.buffer("y", *x.shape)
        y[...] = 2 * np.asarray(x)
        return y, mask

    def backward(self, dy, input_gradient=True):
        """Twice the gradient."""
        dx = self.buffer("dx", *dy.shape)
        dx[...] = 2 * dy
        return dx


class Counting(Doubled):
    """A layer that does something else each time."""

    def forward(self, x, mask, training):
        """Count."""
        self.calls += 1
        y = self.buffer("y", *x.shape)
        y[...] = x
        y += self.calls
        return y, mask


def squared(y_true, y_pred):
    """A metric in NumPy."""
    return np.square(y_pred).sum(axis=-1)


class Swallowing(metrics.Metric):
    """One that hides what goes wrong."""

    sparse = True

    def value(self, kernels, values, y, t):
        """Zero."""
        try:
            values[:] = 0 * np.asarray(y)[:, 0] + 3
        except Exception:
            values[:] = 5


class Plain(losses.Loss):
    """A loss in NumPy."""

    def value(self, kernels, values, y, t):
        """Squares."""
        values[:] = np.square(y - t).mean(axis=1)

    def gradient(self, kernels, dy, y, t, weights, fused=False):
        """Their derivative."""
        dy[...] = 2 * np.asarray(weights)[:, None] * (y - t) / y.shape[1]


@pytest.mark.parametrize("own", ["layer", "counting", "metric", "swallowing", "loss"])
def test_what_needs_the_host_runs_eagerly(model, own, counts):
    def run(recorded):
        stack = {"layer": (Doubled(),), "counting": (Counting(),)}.get(own, ())
        made = model(*stack, recorded=recorded)
        chosen = {"metric": [squared], "swallowing": [Swallowing()]}.get(own, [])
        targets = np.eye(2)[LABELS] if own == "loss" else LABELS
        loss = Plain() if own == "loss" else LOSS
        made.compile("sgd", loss, metrics=chosen, run_eagerly=not recorded)
        history = made.fit(X, targets, **FIT)
        return [history.history, state(made)]

    both(run)
    assert counts["replayed"] == 0
    assert counts["refused"] == (0 if own == "counting" else 2)


def test_a_rate_that_is_asked_for_each_time(model, counts):
    def run(recorded):
        rates = iter(range(1, 100))
        return state(trained(model(recorded=recorded, optimizer=SGD(lambda: 0.01 * next(rates)))))

    both(run)
    assert counts["replayed"] == 4


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_go_on_alone(model, copied, counts):
    original = trained(model())
    twin = copied(original)
    compare(state(twin), state(original))
    compare(state(trained(twin)), state(trained(original)))


def test_saved_and_moved(model, tmp_path, counts, device):
    def run(recorded):
        made = trained(model(recorded=recorded))
        made.save(tmp_path / "model.keras")
        made.load_weights(tmp_path / "model.keras")
        trained(made.to("numpy").to(device))
        made.set_weights([np.ones_like(w) for w in made.get_weights()])
        return state(trained(made))

    both(run)
    assert counts["replayed"] >= 10


def test_a_replayed_step_asks_little_of_the_host(model, device):
    """The functions of Python that a step of ``fit`` calls, once it is recorded."""
    calls, inside = [0], []

    def note(frame, event, argument):
        if frame.f_code.co_name == "replay" and event in ("call", "return"):
            inside.append(event)
            if event == "return":
                calls.append(0)
        elif event == "call" and inside[-1:] != ["call"]:  # what the simulator does is no part
            calls[-1] += 1

    made = model()
    sys.setprofile(note)
    try:
        made.fit(X[:4], LABELS[:4], **FIT | {"epochs": 1, "batch_size": 1})
    finally:
        sys.setprofile(None)
    assert len(calls) == 4
    assert max(calls[1:-1]) <= (100 if device == "cpu" else 22)  # a CPU checks batch by batch
