"""Bad input: one error that names the layer, before anything changes, and a model still usable."""

import numpy as np
import pytest

from minicnnrnn import Sequential, layers, losses, metrics, optimizers

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.normal(size=(12, 8, 8, 1)), RNG.integers(0, 3, 12)


def model():
    """A small model that has been trained a little."""
    made = Sequential(
        [
            layers.Conv2D(2, 3, activation="relu", name="look"),
            layers.MaxPooling2D(name="shrink"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="decide"),
        ],
        name="tiny",
        seed=0,
    )
    made.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    made.fit(IMAGES, LABELS, verbose=0)
    return made


def with_value(array, index, value):
    changed = np.array(array, dtype=float)
    changed[index] = value
    return changed


BAD_FITS = {
    "rank": (IMAGES[..., 0], LABELS, {}, "layer 'look': Expected inputs"),
    "channels": (IMAGES.repeat(2, -1), LABELS, {}, "layer 'look': Expected inputs with 1 channels"),
    "too small": (IMAGES[:, :2, :2], LABELS, {}, "layer 'look': Expected inputs of at least"),
    "pooled away": (IMAGES[:, :3, :3], LABELS, {}, "layer 'shrink': Expected inputs of at least"),
    "other size": (
        IMAGES[:, :6, :6],
        LABELS,
        {},
        "layer 'decide': Expected inputs with 18 features",
    ),
    "nan": (with_value(IMAGES, (5, 1, 1, 0), np.nan), LABELS, {"shuffle": False}, "5"),
    "infinity": (with_value(IMAGES, (7, 0, 0, 0), np.inf), LABELS, {"shuffle": False}, "7"),
    "label too large": (
        IMAGES,
        with_value(LABELS, 4, 3),
        {"shuffle": False},
        "labels from 0 to 2.*sample 4",
    ),
    "label negative": (IMAGES, with_value(LABELS, 0, -1), {}, "labels from 0 to 2"),
    "label not whole": (IMAGES, with_value(LABELS, 3, 0.5), {}, "whole"),
    "lengths": (IMAGES, LABELS[:-1], {}, "Expected"),
    "empty": (IMAGES[:0], LABELS[:0], {}, "Expected"),
    "one-hot": (IMAGES, np.eye(3)[LABELS], {}, "categorical_crossentropy"),
    "strings": (IMAGES, np.array(["a", "b", "c"])[LABELS], {}, "LabelEncoder"),
    "strings in x": (np.full((12, 8, 8, 1), "a"), LABELS, {}, "Expected"),
    "no targets": (IMAGES, None, {}, "Expected targets"),
    "dict": ({"a": IMAGES}, LABELS, {}, "one input"),
    "several inputs": ([IMAGES, IMAGES], LABELS, {}, "one input"),
    "weights": (IMAGES, LABELS, {"sample_weight": np.ones(5)}, "Expected"),
    "weights of steps": (IMAGES, LABELS, {"sample_weight": np.ones((12, 4))}, "sample_weight"),
    "batch size": (IMAGES, LABELS, {"batch_size": 0}, "batch_size"),
    "epochs": (IMAGES, LABELS, {"epochs": -1}, "epochs"),
    "epochs as float": (IMAGES, LABELS, {"epochs": 2.5}, "epochs"),
    "steps": (IMAGES, LABELS, {"steps_per_epoch": 0}, "steps_per_epoch"),
    "verbose": (IMAGES, LABELS, {"verbose": 7}, "verbose"),
    "split": (IMAGES, LABELS, {"validation_split": 1.0}, "validation_split"),
    "callbacks": (IMAGES, LABELS, {"callbacks": [print]}, "Callback"),
    "validation": (IMAGES, LABELS, {"validation_data": (IMAGES,)}, "validation_data"),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_a_bad_fit_changes_nothing_and_the_next_good_one_works(case):
    x, y, options, message = BAD_FITS[case]
    made = model()
    before, steps = made.get_weights(), made.optimizer.iterations
    with pytest.raises((ValueError, TypeError), match=message):
        made.fit(x, y, **{"verbose": 0, **options})
    for a, b in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert made.optimizer.iterations == steps
    made.fit(IMAGES, LABELS, verbose=0)
    assert made.predict(IMAGES).shape == (12, 3)


@pytest.mark.parametrize("case", ["rank", "channels", "too small", "nan", "empty", "dict"])
@pytest.mark.parametrize("method", ["predict", "predict_on_batch", "evaluate", "test_on_batch"])
def test_the_other_methods_refuse_the_same(case, method):
    x, y, _, message = BAD_FITS[case]
    made = model()
    expected = made.predict(IMAGES)
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(made, method)(*([x] if method.startswith("predict") else [x, y]))
    np.testing.assert_array_equal(made.predict(IMAGES), expected)


BAD_LAYERS = {
    "filters 0": (lambda: layers.Conv2D(0, 3, name="l"), "filters"),
    "filters float": (lambda: layers.Conv2D(2.0, 3, name="l"), "filters"),
    "kernel negative": (lambda: layers.Conv2D(2, -3, name="l"), "kernel_size"),
    "kernel of 3 entries": (lambda: layers.Conv2D(2, (3, 3, 3), name="l"), "kernel_size"),
    "strides 0": (lambda: layers.Conv1D(2, 3, strides=0, name="l"), "strides"),
    "padding": (lambda: layers.Conv2D(2, 3, padding="full", name="l"), "padding"),
    "causal in 2D": (lambda: layers.Conv2D(2, 3, padding="causal", name="l"), "padding"),
    "strides and dilation": (
        lambda: layers.Conv2D(2, 3, strides=2, dilation_rate=2, name="l"),
        "strides",
    ),
    "groups": (lambda: layers.Conv2D(3, 3, groups=2, name="l"), "filters"),
    "channels first": (
        lambda: layers.Conv2D(2, 3, data_format="channels_first", name="l"),
        "data_format",
    ),
    "activation": (lambda: layers.Conv2D(2, 3, activation="rleu", name="l"), "activation"),
    "initializer": (lambda: layers.Dense(2, kernel_initializer="he", name="l"), "layer 'l'"),
    "regularizer": (
        lambda: layers.Dense(2, kernel_regularizer="l3", name="l"),
        "regularizer",
    ),
    "units": (lambda: layers.Dense(-1, name="l"), "units"),
    "units bool": (lambda: layers.Dense(True, name="l"), "units"),
    "pool": (lambda: layers.MaxPooling2D(0, name="l"), "pool_size"),
    "pool padding": (lambda: layers.MaxPooling2D(padding="causal", name="l"), "padding"),
    "rate": (lambda: layers.Dropout(1.5, name="l"), "rate"),
    "reshape": (lambda: layers.Reshape((-1, -1), name="l"), "target_shape"),
    "softmax in LSTM": (lambda: layers.LSTM(3, activation="softmax", name="l"), "activation"),
    "return_state": (lambda: layers.LSTM(3, return_state=True, name="l"), "return_state"),
    "unroll": (lambda: layers.GRU(3, unroll=True, name="l"), "unroll"),
    "unknown argument": (lambda: layers.Dense(3, nmae="x", name="l"), "nmae"),
    "dtype": (lambda: layers.Dense(3, dtype="float16", name="l"), "dtype"),
    "input_shape": (lambda: layers.Dense(3, input_shape=(0,), name="l"), "shape"),
    "input": (lambda: layers.Input(28, name="l"), "shape"),
}


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_a_bad_layer_is_refused_by_name(case):
    make, message = BAD_LAYERS[case]
    with pytest.raises(
        (ValueError, TypeError), match=rf"layer 'l'.*Expected.*{message}|{message}"
    ) as error:
        make()
    assert "'l'" in str(error.value)
    assert "Received" in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "sdg"}, "optimizer"),
        ({"optimizer": 3}, "optimizer"),
        ({"loss": "mean_square"}, "loss"),
        ({"metrics": ["acuracy"]}, "metrics"),
        ({"metrics": ["acc", "acc"]}, "different names"),
        ({"loss_weights": [1]}, "loss_weights"),
    ],
)
def test_a_bad_compile_changes_nothing(arguments, message):
    made = model()
    before = made.optimizer, made.loss
    with pytest.raises(ValueError, match=message):
        made.compile(**arguments)
    assert (made.optimizer, made.loss) == before
    made.fit(IMAGES, LABELS, verbose=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.SGD(-0.1),
        lambda: optimizers.SGD("fast"),
        lambda: optimizers.SGD(momentum=1.5),
        lambda: optimizers.Adam(beta_1=1.0),
        lambda: optimizers.Adam(use_ema=True),
        lambda: optimizers.Adam(gradient_accumulation_steps=2),
        lambda: optimizers.Adam(clipnorm=-1.0),
        lambda: optimizers.Adam(clipnorm=1.0, clipvalue=1.0),
        lambda: optimizers.Adam(epsilon=float("nan")),
        lambda: losses.Huber(delta=0),
        lambda: losses.MeanSquaredError(reduction="none"),
        lambda: metrics.BinaryAccuracy(threshold=2),
        lambda: metrics.TopKCategoricalAccuracy(k=0),
    ],
)
def test_bad_hyper_parameters_are_refused(make):
    with pytest.raises(ValueError, match=r"Expected.*Received"):
        make()


def test_models_refuse_what_is_no_layer_and_models_without_layers():
    with pytest.raises(TypeError, match=r"model 'm'|layer 'm'"):
        Sequential(["dense"], name="m")
    with pytest.raises(ValueError, match="different names"):
        Sequential([layers.Dense(1, name="a"), layers.Dense(1, name="a")])
    empty = Sequential(name="empty")
    for use in (
        lambda: empty.fit(IMAGES, LABELS, verbose=0),
        lambda: empty.predict(IMAGES),
        lambda: empty(IMAGES),
        lambda: empty.pop(),
        lambda: empty.build((None, 3)),
    ):
        with pytest.raises(ValueError, match=r"'empty'.*Expected"):
            use()
    empty.add(layers.Dense(2))
    assert empty.predict(np.zeros((3, 4))).shape == (3, 2)


def test_a_layer_that_does_not_fit_is_not_added():
    made = Sequential([layers.Input((4,)), layers.Dense(3)])
    with pytest.raises(ValueError, match="layer 'conv'"):
        made.add(layers.Conv2D(2, 3, name="conv"))
    assert len(made.layers) == 1
    assert made.predict(np.zeros((2, 4))).shape == (2, 3)


def test_sizes_declared_are_sizes_expected():
    made = Sequential([layers.Input((None, 3)), layers.LSTM(2, name="lstm")])
    with pytest.raises(ValueError, match="Expected"):
        made.predict(np.zeros((2, 5, 4)))
    stateful = Sequential([layers.Input(batch_shape=(4, 5, 3)), layers.LSTM(2, stateful=True)])
    with pytest.raises(ValueError, match="Expected"):
        stateful.predict(np.zeros((3, 5, 3)))
    assert stateful.predict(np.zeros((4, 5, 3))).shape == (4, 2)


def test_unbuilt_models_say_so():
    made = Sequential([layers.Dense(2)], name="new")
    for use in (made.get_weights, made.count_params, lambda: made.output_shape):
        with pytest.raises(ValueError, match=r"'new'.*built"):
            use()
