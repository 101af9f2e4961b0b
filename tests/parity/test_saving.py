"""Files: what Keras writes is read here, and what is written here is read by Keras."""

import keras
import numpy as np
import pytest

import minicnnrnn as mini

SIDES = (mini, keras)
RNG = np.random.default_rng(0)
IMAGES, SEQUENCES = RNG.normal(size=(6, 8, 7, 2)), RNG.normal(size=(6, 5, 3))


def images(module):
    layers = module.layers
    return module.Sequential(
        [
            layers.Input((8, 7, 2)),
            layers.Conv2D(3, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            module.Sequential([layers.Conv2D(4, 2), layers.Flatten()], name="inside"),
            layers.Dense(5, kernel_constraint=module.constraints.MaxNorm(1.5), name="first"),
            layers.Dense(2, bias_initializer=module.initializers.Constant(0.5)),
        ]
    )


def sequences(module):
    layers = module.layers
    return module.Sequential(
        [
            layers.Input((None, 3)),
            layers.LSTM(4, return_sequences=True),
            layers.GRU(3, return_sequences=True, reset_after=False),
            layers.SimpleRNN(3),
            layers.Dense(2, "softmax", kernel_regularizer=module.regularizers.L1L2(0.1, 0.2)),
        ]
    )


def wrapped(module):
    layers = module.layers
    return module.Sequential(
        [
            layers.Input((5, 3)),
            layers.TimeDistributed(layers.Dense(4, activation="tanh")),
            layers.BatchNormalization(),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
            layers.LayerNormalization(),
            layers.Conv1D(2, 2, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2),
        ]
    )


MODELS = {"images": (images, IMAGES), "sequences": (sequences, SEQUENCES)}
if all(hasattr(mini.layers, n) for n in ("Bidirectional", "BatchNormalization", "Embedding")):
    MODELS["wrapped"] = (wrapped, SEQUENCES)
OPTIMIZERS = {
    "sgd": lambda m: m.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda m: m.optimizers.Adam(m.optimizers.schedules.CosineDecay(0.01, 9), amsgrad=True),
    "rmsprop": lambda m: m.optimizers.RMSprop(centered=True, momentum=0.5, clipnorm=1.0),
}


def trained(module, name, optimizer):
    make, x = MODELS[name]
    model = make(module)
    model.compile(OPTIMIZERS[optimizer](module), "mse", metrics=["mae"])
    model.fit(x, np.ones((6, 2)), epochs=2, verbose=0)
    return model


def close(mine, expected):
    for one, other in zip(mine, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("writer", [0, 1])
def test_models_go_from_one_to_the_other(name, optimizer, writer, tmp_path):
    model, path = trained(SIDES[writer], name, optimizer), str(tmp_path / "model.keras")
    model.save(path)
    readers = mini.load_model, keras.models.load_model
    other = readers[1 - writer](path)
    x = MODELS[name][1]
    close([other.predict(x, verbose=0)], [model.predict(x, verbose=0)])
    close(other.get_weights(), model.get_weights())
    assert int(other.optimizer.iterations) == int(model.optimizer.iterations) == 2
    if name == "wrapped":  # without dropout, which draws other numbers there
        for each in (model, other):
            each.train_on_batch(x, np.ones((6, 2)))
        close(other.get_weights(), model.get_weights())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("writer", [0, 1])
def test_weights_go_from_one_to_the_other(name, writer, tmp_path):
    model, path = trained(SIDES[writer], name, "sgd"), str(tmp_path / "model.weights.h5")
    model.save_weights(path)
    other = MODELS[name][0](SIDES[1 - writer])
    other.load_weights(path)
    close(other.get_weights(), model.get_weights())
