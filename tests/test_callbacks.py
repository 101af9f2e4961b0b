"""Callbacks: when hooks are called, what they are told, what they do."""

import csv
import pickle

import numpy as np
import pytest

from minicnnrnn import Sequential, callbacks, layers, metrics, optimizers
from minicnnrnn.callbacks.monitor import direction_of

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(12, 1)


def compiled(optimizer="sgd", compiled_metrics=(), device="numpy"):
    model = Sequential([layers.Dense(1)], device=device, seed=0)
    model.compile(optimizer, "mse", metrics=list(compiled_metrics))
    return model


def fit(model, *listed, epochs=3, **arguments):
    arguments = {"batch_size": 5, "verbose": 0, **arguments}
    return model.fit(X, 2 * X, epochs=epochs, callbacks=list(listed), **arguments)


class Recorder(callbacks.Callback):
    """Remembers every hook with the numbers that it was told."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __getattribute__(self, name):
        if name.startswith("on_") and "_batch_" not in name.replace("_train_batch", ""):
            return lambda *arguments: self.seen.append((name, *arguments))
        return super().__getattribute__(name)


class Told(callbacks.Callback):
    """Plays a course of numbers to the callbacks behind it, instead of those of the epoch."""

    def __init__(self, **numbers):
        super().__init__()
        self.numbers = numbers

    def on_epoch_end(self, epoch, logs=None):
        logs.update({key: values[epoch] for key, values in self.numbers.items()})


def test_hooks_come_in_keras_order():
    recorder = Recorder()
    assert recorder.model is None
    fit(compiled(), recorder, epochs=1, validation_data=(X, X))
    names = [name for name, *_ in recorder.seen]
    step = ["on_train_batch_begin", "on_train_batch_end"]
    assert names == [
        "on_train_begin",
        "on_epoch_begin",
        *step * 3,
        "on_test_begin",
        "on_test_end",
        "on_epoch_end",
        "on_train_end",
    ]
    by_name = dict(zip(names, recorder.seen))
    assert by_name["on_epoch_begin"][1:] == (0, {})
    assert by_name["on_train_batch_begin"][1:] == (2, {})
    assert set(by_name["on_train_batch_end"][2]) == {"loss"}
    assert set(by_name["on_epoch_end"][2]) == {"loss", "val_loss"}
    assert by_name["on_train_end"][1] == by_name["on_epoch_end"][2]
    assert recorder.params == {"epochs": 1, "steps": 3, "verbose": 0}


def test_batch_hooks_under_either_name():
    seen = []

    class Old(callbacks.Callback):
        def on_batch_begin(self, batch, logs=None):
            seen.append(batch)

        def on_batch_end(self, batch, logs=None):
            seen.append(logs["loss"])

    fit(compiled(), Old(), epochs=1)
    assert seen[::2] == [0, 1, 2]
    assert all(isinstance(loss, float) for loss in seen[1::2])


def test_evaluate_and_predict_tell_too():
    model, seen = compiled(), []
    names = [f"on_{what}_{when}" for what in ("test", "predict") for when in ("begin", "end")]
    names += [f"on_{what}_batch_{w}" for what in ("test", "predict") for w in ("begin", "end")]
    tell = callbacks.LambdaCallback(
        **{name: lambda *arguments, name=name: seen.append((name, *arguments)) for name in names}
    )
    model.evaluate(X, X, batch_size=12, callbacks=[tell])
    assert [name for name, *_ in seen] == [
        "on_test_begin",
        "on_test_batch_begin",
        "on_test_batch_end",
        "on_test_end",
    ]
    assert seen[2][2] == seen[3][1]
    seen.clear()
    y = model.predict(X, batch_size=12, callbacks=[tell])
    assert [name for name, *_ in seen] == [
        "on_predict_begin",
        "on_predict_batch_begin",
        "on_predict_batch_end",
        "on_predict_end",
    ]
    np.testing.assert_array_equal(seen[2][2]["outputs"], y)


def test_lambda_callback():
    seen = []
    hooks = ["epoch_begin", "epoch_end", "train_begin", "train_end"]
    hooks += ["train_batch_begin", "train_batch_end"]
    tell = callbacks.LambdaCallback(
        **{f"on_{hook}": lambda *a, hook=hook: seen.append(hook) for hook in hooks}, extra=3
    )
    fit(compiled(), tell, epochs=1)
    step = ["train_batch_begin", "train_batch_end"]
    assert seen == ["train_begin", "epoch_begin", *step * 3, "epoch_end", "train_end"]
    assert tell.extra == 3


def test_nobody_is_told_of_the_end_when_training_breaks(tmp_path):
    def broken(batch, logs):
        raise KeyboardInterrupt

    seen, logger = [], callbacks.CSVLogger(tmp_path / "log.csv")
    tell = callbacks.LambdaCallback(on_train_end=seen.append, on_train_batch_end=broken)
    with pytest.raises(KeyboardInterrupt):
        fit(compiled(), logger, tell, verbose=1)
    assert seen == []
    assert logger.csv_file is None


# --- EarlyStopping ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "losses", "epochs", "best"),
    [
        ({}, [3, 2, 2.5, 1], 3, 2),
        ({"patience": 2}, [3, 2, 2.5, 2.2, 1], 4, 2),
        ({"patience": 2}, [3, 2, 2.5, 1, 1, 1, 0], 6, 1),
        ({"min_delta": 0.6}, [3, 2, 1.5, 0], 3, 2),
        ({"min_delta": -0.6}, [3, 2, 1.5, 0], 3, 2),
        ({"mode": "max"}, [1, 2, 1.5, 3], 3, 2),
        ({"baseline": 1.5, "patience": 2}, [3, 2.5, 2, 1], 4, 1),
        ({"baseline": 1.5, "patience": 2}, [3, 2.5, 2.6, 1], 3, 2.5),
        ({"start_from_epoch": 2}, [1, 2, 3, 4, 5], 4, 3),
        ({}, [3, 4, 5], 2, 3),
        ({}, [float("nan"), 1], 2, None),
    ],
)
def test_early_stopping(arguments, losses, epochs, best):
    stopping = callbacks.EarlyStopping("watched", **{"mode": "min", **arguments})
    model = compiled()
    history = fit(model, Told(watched=losses), stopping, epochs=len(losses))
    assert len(history.epoch) == epochs
    assert stopping.best == best or best is None
    assert model.stop_training == (epochs < len(losses) or stopping.stopped_epoch > 0)


@pytest.mark.parametrize(("losses", "best"), [([3, 1, 2, 4], 1), ([3, 2, 1], 2), ([1, 2], 0)])
def test_early_stopping_restores_the_best_weights(losses, best, capsys):
    model, weights = compiled(), []
    keep = callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(model.get_weights())
    )
    stopping = callbacks.EarlyStopping(
        "watched", patience=1, restore_best_weights=True, mode="min", verbose=1
    )
    fit(model, Told(watched=losses), keep, stopping, epochs=len(losses))
    for one, other in zip(model.get_weights(), weights[best]):
        np.testing.assert_array_equal(one, other)
    said = capsys.readouterr().out
    assert f"Restoring model weights from the end of the best epoch: {best + 1}." in said
    assert ("early stopping" in said) == (best < len(losses) - 1)


def test_early_stopping_starts_afresh():
    stopping = callbacks.EarlyStopping("watched", mode="min")
    for _ in range(2):
        history = fit(compiled(), Told(watched=[2, 1, 3, 0]), stopping, epochs=4)
        assert len(history.epoch) == 3


def test_what_is_watched_must_be_known():
    model = compiled(compiled_metrics=["mae"])
    with pytest.raises(ValueError, match="mode='min' or mode='max'"):
        fit(model, callbacks.EarlyStopping("watched"))
    with pytest.warns(UserWarning, match="`val_loss` which is not available"):
        fit(model, callbacks.EarlyStopping())
    with pytest.warns(UserWarning, match="fallback to auto mode"):
        callbacks.EarlyStopping("loss", mode="least")
    with pytest.warns(UserWarning, match="`val_loss` which is not available"):
        fit(model, callbacks.ReduceLROnPlateau())


def test_directions():
    class Mine(metrics.Metric):
        pass

    class Better(Mine):
        direction = "up"

    class Close(metrics.MeanAbsoluteError):
        pass

    found = [direction_of(m) for m in (metrics.get("accuracy"), Close(), Mine(), Better())]
    assert found == ["up", "down", None, "up"]


# --- learning rates --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "losses", "rates"),
    [
        ({"patience": 1}, [3, 3, 2, 2, 2], [1, 1, 0.1, 0.1, 0.01]),
        ({"patience": 2, "factor": 0.5}, [3, 3, 3, 3, 3], [1, 1, 1, 0.5, 0.5]),
        ({"patience": 1, "factor": 0.5, "cooldown": 2}, [3] * 6, [1, 1, 0.5, 0.5, 0.25, 0.25]),
        ({"patience": 1, "min_lr": 0.05}, [3] * 4, [1, 1, 0.1, 0.05]),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.8, 2.0, 2.0], [1, 1, 0.1, 0.1]),
        ({"patience": 1, "mode": "max"}, [1, 2, 2, 3], [1, 1, 1, 0.1]),
    ],
)
def test_reduce_on_plateau(arguments, losses, rates):
    plateau = callbacks.ReduceLROnPlateau("watched", **{"mode": "min", **arguments})
    history = fit(compiled(optimizers.SGD(1.0)), Told(watched=losses), plateau, epochs=len(losses))
    np.testing.assert_allclose(history.history["learning_rate"], rates)


def test_reduce_on_plateau_says_so_and_refuses(capsys):
    plateau = callbacks.ReduceLROnPlateau("watched", 0.5, patience=1, mode="min", verbose=1)
    model = compiled(optimizers.SGD(1.0))
    fit(model, Told(watched=[1, 1]), plateau, epochs=2)
    assert model.optimizer.learning_rate == 0.5
    assert "Epoch 2: ReduceLROnPlateau reducing learning rate to 0.5." in capsys.readouterr().out
    with pytest.raises(ValueError, match="factor below 1"):
        callbacks.ReduceLROnPlateau(factor=1.0)
    scheduled = compiled(optimizers.SGD(optimizers.schedules.CosineDecay(0.1, 10)))
    with pytest.raises(TypeError, match="schedule"):
        fit(scheduled, Told(watched=[1, 1]), plateau, epochs=2)


@pytest.mark.parametrize(
    "schedule", [lambda epoch: 0.5**epoch, lambda epoch, rate: rate / 2 if epoch else 1.0]
)
def test_learning_rate_scheduler(schedule, capsys):
    scheduler = callbacks.LearningRateScheduler(schedule, verbose=1)
    history = fit(compiled(), scheduler)
    assert history.history["learning_rate"] == [1.0, 0.5, 0.25]
    said = capsys.readouterr().out
    assert "Epoch 2: LearningRateScheduler setting learning rate to 0.5." in said
    with pytest.raises(ValueError, match="float"):
        fit(compiled(), callbacks.LearningRateScheduler(lambda epoch: "fast"))


# --- files, and the end ----------------------------------------------------------------


def rows(path, separator=","):
    with open(path, newline="") as file:
        return list(csv.reader(file, delimiter=separator))


def test_csv_logger(tmp_path):
    path, model = tmp_path / "log.csv", compiled(compiled_metrics=["mae"])
    history = fit(model, callbacks.CSVLogger(path)).history
    table = rows(path)
    assert table[0] == ["epoch", "loss", "mae", "val_loss", "val_mae"]
    assert [row[0] for row in table[1:]] == ["0", "1", "2"]
    assert [float(row[2]) for row in table[1:]] == history["mae"]
    assert table[1][3:] == ["NA", "NA"]
    again = callbacks.CSVLogger(path, append=True)
    fit(model, again, epochs=2, validation_data=(X, X))
    assert len(rows(path)) == 6
    fit(model, callbacks.CSVLogger(str(path), separator=";"), epochs=1, validation_data=(X, X))
    assert [len(row) for row in rows(path, ";")] == [5, 5]
    new = callbacks.CSVLogger(tmp_path / "new.csv", append=True)
    fit(model, new, epochs=1)
    assert len(rows(tmp_path / "new.csv")) == 2
    pickle.loads(pickle.dumps(new))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where nothing is compiled
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_terminate_on_nan(number, capsys):
    model = compiled(device="cpu")

    def spoil(batch, logs):
        if batch == 1:
            model.restore_weights([np.full_like(w, number) for w in model.get_weights()])

    spoiling = callbacks.LambdaCallback(on_train_batch_begin=spoil)
    history = fit(model, spoiling, callbacks.TerminateOnNaN())
    assert len(history.epoch) == 1
    assert "Batch 1: Invalid loss, terminating training" in capsys.readouterr().out
    model = compiled(device="cpu")
    with pytest.raises(RuntimeError, match="at batch 1"):
        fit(model, spoiling, callbacks.TerminateOnNaN(raise_error=True))


def test_a_callback_may_stop_after_a_batch():
    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    recorder, model = Recorder(), compiled()
    fit(model, Stop(), recorder)
    assert sum(name == "on_train_batch_end" for name, *_ in recorder.seen) == 2
    assert model.stop_training
    assert len(fit(model).epoch) == 3


def test_left_out():
    for make in (callbacks.TensorBoard, callbacks.BackupAndRestore, optimizers.Nadam):
        with pytest.raises(TypeError, match="which Keras has"):
            make("logs")
    with pytest.raises(AttributeError):
        callbacks.Nothing  # noqa: B018
    with pytest.raises(AttributeError):
        optimizers.Nothing  # noqa: B018
