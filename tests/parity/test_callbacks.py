"""Callbacks, against Keras: the same course of numbers, the same decisions."""

import csv

import keras
import numpy as np
import pytest

import minicnnrnn as mini

SIDES = (mini, keras)
X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(12, 1)
COURSES = {
    "falling": [5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.4, 0.3],
    "plateau": [3.0, 2.0, 2.0, 2.00001, 1.9999, 2.0, 2.0, 1.0],
    "rising": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
    "back and forth": [3.0, 1.0, 2.0, 0.5, 3.0, 3.0, 0.4, 3.0],
    "nan": [3.0, float("nan"), 2.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    "nan first": [float("nan"), 3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0],
}


def told(module, course, key="val_loss"):
    """A callback that puts a course of numbers in the place of the epoch's own."""

    class Told(module.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs[key] = course[epoch]

    return Told()


def run(module, make, epochs=8, metrics=None, layers=1, **arguments):
    """(history, model, callbacks) after fitting with the callbacks that `make` gives."""
    model = module.Sequential([module.layers.Input((1,)), module.layers.Dense(1)])
    model.compile(module.optimizers.SGD(0.5), "mse", metrics=metrics)
    model.set_weights([np.ones((1, 1)), np.zeros(1)])
    callbacks = make(module)
    history = model.fit(
        X, 2 * X, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks, **arguments
    )
    return history, model, callbacks


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"patience": 2},
        {"patience": 1, "min_delta": 0.5, "restore_best_weights": True},
        {"patience": 2, "baseline": 1.5, "restore_best_weights": True},
        {"patience": 1, "start_from_epoch": 3, "restore_best_weights": True},
        {"mode": "max", "patience": 1, "restore_best_weights": True},
    ],
)
def test_early_stopping(course, arguments, capsys):
    def make(module):
        stopping = module.callbacks.EarlyStopping(verbose=1, **arguments)
        return [told(module, COURSES[course]), stopping]

    results = []
    for module in SIDES:
        history, model, (_, stopping) = run(module, make)
        state = (
            history.epoch,
            stopping.stopped_epoch,
            stopping.wait,
            stopping.best_epoch,
            str(stopping.best),
            capsys.readouterr().out,
        )
        results.append((state, model.get_weights()))
    assert results[0][0] == results[1][0]
    for mine, expected in zip(results[0][1], results[1][1]):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize(
    "arguments",
    [
        {"patience": 1},
        {"patience": 2, "factor": 0.5, "cooldown": 2},
        {"patience": 1, "min_lr": 0.03, "min_delta": 0.5},
        {"patience": 1, "mode": "max", "cooldown": 1},
    ],
)
def test_reduce_on_plateau(course, arguments, capsys):
    def make(module):
        return [told(module, COURSES[course]), module.callbacks.ReduceLROnPlateau(**arguments)]

    rates = [run(module, make)[0].history["learning_rate"] for module in SIDES]
    np.testing.assert_allclose(*rates, rtol=1e-6)


@pytest.mark.parametrize("metric", ["accuracy", "mae", "mse"])
def test_modes_of_metrics(metric):
    def make(module):
        stopping = module.callbacks.EarlyStopping(metric, patience=1)
        return [told(module, COURSES["back and forth"], metric), stopping]

    epochs = [run(module, make, metrics=[metric])[0].epoch for module in SIDES]
    assert epochs[0] == epochs[1]


@pytest.mark.parametrize(
    "schedule", [lambda epoch: 0.5 / (epoch + 1), lambda epoch, rate: rate * 0.9]
)
def test_learning_rate_scheduler_and_csv_logger(schedule, tmp_path):
    def make(module):
        return [
            module.callbacks.LearningRateScheduler(schedule),
            module.callbacks.CSVLogger(str(tmp_path / module.__name__)),
        ]

    tables = []
    for module in SIDES:
        run(module, make, epochs=3, metrics=["mae"])
        with open(tmp_path / module.__name__, newline="") as file:
            tables.append(list(csv.reader(file)))
    assert tables[0][0] == tables[1][0]
    assert len(tables[0]) == len(tables[1]) == 4
    for mine, expected in zip(tables[0][1:], tables[1][1:]):
        numbers = [[float(v) for v in row if v != "NA"] for row in (mine, expected)]
        np.testing.assert_allclose(*numbers, rtol=1e-5)
        assert [v == "NA" for v in mine] == [v == "NA" for v in expected]


@pytest.mark.parametrize(
    "arguments",
    [
        {"filepath": "{epoch:02d}-{val_loss:.2f}.keras"},
        {"filepath": "best.weights.h5", "save_best_only": True, "save_weights_only": True},
        {"filepath": "{epoch}.keras", "save_best_only": True, "initial_value_threshold": 2.5},
        {"filepath": "{epoch}.keras", "save_best_only": True, "mode": "max"},
        {"filepath": "{epoch}-{batch}.keras", "save_freq": 5},
        {"filepath": "{epoch}-{batch}.weights.h5", "save_freq": 1, "save_weights_only": True},
        {"filepath": "a/b/{epoch}.keras", "save_freq": 4},
    ],
)
def test_model_checkpoint(arguments, tmp_path, capsys):
    results = []
    for module in SIDES:
        folder = tmp_path / module.__name__
        path = str(folder / arguments["filepath"])

        def make(module, path=path):
            checkpoint = module.callbacks.ModelCheckpoint(
                **{**arguments, "filepath": path}, verbose=1
            )
            return [told(module, COURSES["back and forth"]), checkpoint]

        run(module, make, epochs=4, batch_size=4)
        files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        results.append((files, capsys.readouterr().out.replace(str(folder), "")))
    assert results[0] == results[1]


def test_hooks_come_in_the_same_order():
    def recorder(module, seen):
        class Recorder(module.callbacks.Callback):
            pass

        for name in dir(module.callbacks.Callback):
            if name.startswith("on_"):

                def hook(self, *arguments, name=name, **keywords):
                    logs = keywords["logs"] if keywords else arguments[-1]
                    seen.append((name, sorted(logs or {})))

                setattr(Recorder, name, hook)
        return Recorder()

    results = []
    for module in SIDES:
        seen = []
        _, model, _ = run(
            module,
            lambda m, seen=seen: [recorder(m, seen)],
            epochs=2,
            validation_data=(X, X),
            validation_batch_size=6,
            batch_size=6,
        )
        again = recorder(module, seen)
        model.evaluate(X, X, batch_size=6, verbose=0, callbacks=[again])
        model.predict(X, batch_size=12, verbose=0, callbacks=[again])
        results.append(seen)
    assert results[0] == results[1]
