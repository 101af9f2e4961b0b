"""Files: what is saved comes back, training goes on exactly, and a bad file changes nothing."""

import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import minicnnrnn
from minicnnrnn import (
    Sequential,
    callbacks,
    initializers,
    layers,
    optimizers,
    regularizers,
    saving,
)

h5py = pytest.importorskip("h5py")

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(10, 5, 3)), RNG.normal(size=(10, 5, 2))


class Doubled(layers.Layer):
    """A layer of a user's own, with an argument that it does not keep."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.square = factor**2

    def forward(self, x, mask, training):
        return x * np.float32(self.square), mask

    def backward(self, dy, input_gradient=True):
        return dy * np.float32(self.square)


class Renamed(layers.Dense):
    """A subclass in Keras' manner: it adds to the configuration."""

    def __init__(self, size, **kwargs):
        super().__init__(size, **kwargs)

    def get_config(self):
        return {**super().get_config(), "size": self.units}


def clip(w):
    return np.clip(w, -0.5, 0.5)


def network(**arguments):
    return Sequential(
        [
            layers.LSTM(4, return_sequences=True, kernel_initializer=initializers.HeNormal(3)),
            layers.Dropout(0.3),
            layers.Residual([layers.Dense(4, "relu", kernel_constraint="max_norm")]),
            Sequential([layers.Dense(3, kernel_regularizer=regularizers.L1L2(0.01, 0.02))]),
            layers.Branches([layers.Dense(1)], [layers.Dense(1)], merge="concat"),
        ],
        device="numpy",
        seed=0,
        **arguments,
    )


def trained(optimizer="adam", **arguments):
    model = network(**arguments)
    model.compile(optimizer, "huber", metrics=["mae"], weighted_metrics=["mse"])
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
    return model


def same_weights(one, other):
    for mine, expected in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optimizers.SGD(0.1),
        lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipnorm=0.5),
        lambda: optimizers.RMSprop(momentum=0.5, centered=True),
        lambda: optimizers.Adagrad(0.1, weight_decay=0.1),
        lambda: optimizers.Adam(optimizers.schedules.CosineDecay(0.01, 20), amsgrad=True),
        lambda: optimizers.AdamW(0.007),
    ],
)
def test_training_goes_on_exactly(optimizer, tmp_path):
    model = trained(optimizer())
    model.optimizer.learning_rate  # noqa: B018
    model.save(tmp_path / "model.keras")
    other = minicnnrnn.load_model(tmp_path / "model.keras", device="numpy")
    same_weights(other, model)
    assert other.evaluate(X, Y) == model.evaluate(X, Y)
    histories = [m.fit(X, Y, batch_size=4, epochs=2, verbose=0).history for m in (model, other)]
    assert histories[0] == histories[1]
    same_weights(other, model)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_loss_that_was_inferred(compiled, tmp_path):
    model = Sequential([layers.Dense(2)], device="numpy")
    if compiled:
        model.compile("sgd")
    model.fit(X[:, 0], Y[:, 0], verbose=0)
    model.save(tmp_path / "model.keras")
    other = minicnnrnn.load_model(tmp_path / "model.keras", device="numpy")
    assert other.metrics_names == model.metrics_names
    assert other.evaluate(X[:, 0], Y[:, 0]) == model.evaluate(X[:, 0], Y[:, 0])
    again = minicnnrnn.load_model(tmp_path / "model.keras", compile=False)
    assert again.optimizer is None
    same_weights(again, model)


def test_exclusions_from_decay_are_kept(tmp_path):
    optimizer = optimizers.SGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = trained(optimizer)
    model.save(tmp_path / "model.keras")
    other = minicnnrnn.load_model(tmp_path / "model.keras", device="numpy")
    for each in (model, other):
        each.train_on_batch(X, Y)
    same_weights(other, model)


def test_what_is_frozen_stays_frozen(tmp_path):
    model = network()
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    other = minicnnrnn.load_model(tmp_path / "model.keras", device="numpy")
    assert not other.layers[0].trainable
    assert other.layers[1].trainable
    for each in (model, other):
        each.fit(X, Y, verbose=0)
    same_weights(other, model)


def test_configurations_make_equal_models():
    model = network(name="net")
    model.build(X.shape)
    other = Sequential.from_config(json.loads(json.dumps(model.get_config())))
    assert other.name == "net"
    assert [layer.name for layer in other.layers] == [layer.name for layer in model.layers]
    assert other.get_config() == model.get_config()
    assert other.built
    lines, others = [], []
    model.summary(lines.append)
    other.summary(others.append)
    assert lines == others


@pytest.mark.parametrize("input_shape", [{"input_shape": (5, 3)}, {"batch_shape": (2, 5, 3)}])
def test_a_declared_shape_is_kept(input_shape, tmp_path):
    model = Sequential([layers.SimpleRNN(2, **input_shape)])
    model.save(tmp_path / "model.keras")
    other = minicnnrnn.load_model(tmp_path / "model.keras")
    assert other.declared_shape == model.layers[0].declared_shape
    same_weights(other, model)


def test_a_shape_that_was_not_declared_stays_open(tmp_path):
    model = Sequential([layers.LSTM(2, return_sequences=True)])
    model.predict(X)
    model.save(tmp_path / "model.keras")
    other = minicnnrnn.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(other.predict(X[:, :4]), model.predict(X[:, :4]))


def test_classes_and_functions_of_ones_own(tmp_path):
    model = Sequential(
        [
            Doubled(3.0),
            Renamed(2, kernel_constraint=clip),
            layers.Dense(2, kernel_initializer=initializers.Constant(np.eye(2))),
        ],
        device="numpy",
    )
    y = model.predict(X[:, 0])
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises(ValueError, match="custom_objects"):
        minicnnrnn.load_model(path)
    own = {"Doubled": Doubled, "Renamed": Renamed, "clip": clip}
    other = minicnnrnn.load_model(path, custom_objects=own)
    np.testing.assert_allclose(other.predict(X[:, 0]), y, rtol=1e-6)
    assert isinstance(other.layers[1], Renamed)
    anonymous = Sequential([layers.Dense(2, kernel_constraint=lambda w: w), layers.Dense(2)])
    anonymous.build((None, 3))
    with pytest.raises(ValueError, match=r"kernel_constraint.*Expected a value that can be saved"):
        anonymous.save(tmp_path / "other.keras")
    assert os.listdir(tmp_path) == ["model.keras"]


def test_weights_alone(tmp_path):
    model, path = trained(), tmp_path / "model.weights.h5"
    model.save_weights(path)
    other = network()
    with pytest.raises(ValueError, match="Expected a built model"):
        other.load_weights(path)
    other.build(X.shape)
    other.load_weights(path)
    same_weights(other, model)
    again = trained()
    again.load_weights(path)
    for each in (model, again):
        each.train_on_batch(X, Y)
    assert again.optimizer.iterations == model.optimizer.iterations
    other.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="skipped the state of the optimizer"):
        other.load_weights(path)
    model.save(tmp_path / "model.keras")
    other.compile("adam", "mse")
    other.load_weights(tmp_path / "model.keras")
    same_weights(other, model)


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    def stack(*units):
        model = Sequential([layers.Dense(n) for n in units])
        model.build((None, 4))
        return model

    path, model = tmp_path / "x.weights.h5", stack(3, 2)
    model.save_weights(path)
    for other in (stack(3, 5), stack(3), stack(3, 2, 2), stack(4, 2)):
        before = other.get_weights()
        with pytest.raises(ValueError, match=r"Expected .*Received"):
            other.load_weights(path)
        for mine, expected in zip(other.get_weights(), before):
            np.testing.assert_array_equal(mine, expected)
    other = stack(3, 5)
    with pytest.warns(UserWarning, match="Skipped.*shape"):
        other.load_weights(path, skip_mismatch=True)
    np.testing.assert_array_equal(other.layers[0].kernel, model.layers[0].kernel)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "no weights", "no config", "bad hdf5"])
def test_damaged_files(damage, tmp_path):
    model, path = trained(), tmp_path / "model.keras"
    model.save(path)
    whole = path.read_bytes()
    if damage in ("no weights", "no config", "bad hdf5"):
        memory = io.BytesIO()
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(memory, "w") as new:
            for name in old.namelist():
                if damage == "bad hdf5" and name.endswith("h5"):
                    new.writestr(name, b"nothing")
                elif damage.removeprefix("no ") not in name:
                    new.writestr(name, old.read(name))
        path.write_bytes(memory.getvalue())
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"text"}[damage])
    with pytest.raises(ValueError, match=r"Expected .*Received"):
        minicnnrnn.load_model(path)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    model, path = trained(), tmp_path / "model.keras"
    model.save(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        model.save(path, overwrite=False)
    monkeypatch.setattr(zipfile.ZipFile, "writestr", lambda *_: (_ for _ in ()).throw(OSError()))
    with pytest.raises(OSError):
        model.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.keras"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize(
    "use",
    [
        lambda m, p: m.save(p / "model.h5"),
        lambda m, p: m.save_weights(p / "weights.h5"),
        lambda m, p: m.load_weights(p / "weights.npz"),
        lambda m, p: saving.load_model(p / "model.h5"),
        lambda m, p: network().save(p / "model.keras"),
        lambda m, p: callbacks.ModelCheckpoint(p / "model.h5"),
        lambda m, p: callbacks.ModelCheckpoint(p / "m.keras", save_weights_only=True),
        lambda m, p: callbacks.ModelCheckpoint(p / "m.keras", save_freq="batch"),
    ],
)
def test_refused(use, tmp_path):
    with pytest.raises(ValueError, match=r"Expected .*Received"):
        use(trained(), tmp_path)


def test_objects_of_keras_that_are_left_out():
    inside = {"module": "keras.layers", "class_name": "Attention", "config": {"name": "a"}}
    with pytest.raises(TypeError, match="which Keras has"):
        saving.objects.deserialize(inside)
    dense = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 2, "new": None}}
    assert saving.objects.deserialize(dense).units == 2
    dense["config"]["new"] = 3
    with pytest.raises(ValueError, match="new=3"):
        saving.objects.deserialize(dense)


def test_without_h5py(tmp_path):
    script = (
        "import sys; sys.modules['h5py'] = None\n"
        "from minicnnrnn import Sequential, layers\n"
        "model = Sequential([layers.Input((2,)), layers.Dense(1)])\n"
        "model.save('model.keras')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, stderr=subprocess.PIPE
    )
    assert b"ImportError: Expected h5py" in done.stderr
    assert os.listdir(tmp_path) == []


# --- checkpoints -----------------------------------------------------------------------


class Told(callbacks.Callback):
    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.losses[epoch]


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ({"filepath": "{epoch:02d}-{val_loss:.1f}.keras"}, ["01-3.0", "02-1.0", "03-2.0"]),
        ({"filepath": "{epoch}.keras", "save_best_only": True}, ["1", "2"]),
        ({"filepath": "a/{epoch}.keras", "save_best_only": True, "mode": "max"}, ["1"]),
        (
            {
                "filepath": "{epoch}.keras",
                "save_best_only": True,
                "initial_value_threshold": 2.5,
            },
            ["2"],
        ),
        ({"filepath": "{epoch}-{batch}.keras", "save_freq": 4}, ["2-1", "3-2"]),
        ({"filepath": "all.weights.h5", "save_weights_only": True}, ["all.weights"]),
    ],
)
def test_checkpoints(arguments, files, tmp_path):
    checkpoint = callbacks.ModelCheckpoint(
        **{**arguments, "filepath": str(tmp_path / arguments["filepath"])}
    )
    model = network()
    model.compile("sgd", "mse")
    model.fit(X, Y, 4, epochs=3, verbose=0, callbacks=[Told([3, 1, 2]), checkpoint])
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.stem for path in found) == files


def test_a_checkpoint_brings_training_back(tmp_path):
    path = tmp_path / "{epoch}.keras"
    model = network()
    model.compile("adam", "mse")
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[callbacks.ModelCheckpoint(path)])
    other = minicnnrnn.load_model(tmp_path / "2.keras", device="numpy")
    history = other.fit(X, Y, epochs=3, initial_epoch=2, verbose=0)
    assert history.epoch == [2]
    same_weights(other, model)


def test_checkpoints_say_what_is_wrong(tmp_path):
    model = network()
    model.compile("sgd", "mse")
    for path, error in (("{foo}.keras", KeyError), ("folder.keras", IsADirectoryError)):
        (tmp_path / "folder.keras").mkdir(exist_ok=True)
        with pytest.raises(error, match="ModelCheckpoint: Expected"):
            model.fit(X, Y, verbose=0, callbacks=[callbacks.ModelCheckpoint(tmp_path / path)])
    checkpoint = callbacks.ModelCheckpoint(tmp_path / "x.keras", save_best_only=True)
    with pytest.warns(UserWarning, match="Can save best model only with val_loss available"):
        model.fit(X, Y, verbose=0, callbacks=[checkpoint])
