"""Hold models to Keras': the same layers, Keras' weights, the same data.

`both` makes a layer on both sides from one constructor call, `check` compares two stacks of
layers, `check_models` two Sequential models. Compared are the output, the loss, and all weights
after some steps of training.
"""

from typing import Any

import keras
import numpy as np

import minicnnrnn as mini
from minicnnrnn.layers import Layer

OUTPUT = 1e-5  # relative to the largest element
LOSS = 2e-5
WEIGHT = {"sgd": 1e-4, "adam": 5e-4}  # relative to the largest element of each weight
SHARE = {"sgd": 1.0, "adam": 0.98}  # of a weight's elements that are this close
STEP = 1e-2  # of the way that SGD took a weight, relative to its largest element
RATES = {"sgd": 0.05, "adam": 0.001}
EPSILON = float(np.finfo(np.float32).eps)


def both(name: str, *args: Any, **kwargs: Any) -> tuple[Layer, Any]:
    """Our layer of that class name, and Keras', from the same arguments.

    A layer, or a list of layers, among the arguments is given as such a pair itself::

        both("TimeDistributed", both("Dense", 3))
    """
    ours, theirs = (
        (module.Sequential if name == "Sequential" else getattr(module.layers, name))(
            *(_of_side(arg, side) for arg in args),
            **{key: _of_side(value, side) for key, value in kwargs.items()},
        )
        for side, module in enumerate((mini, keras))
    )
    return ours, theirs


def check(
    ours: Any,
    theirs: Any = None,
    x: Any = None,
    mask: Any = None,
    y: Any = None,
    loss: Any = "mse",
    steps: int = 5,
    optimizer: Any = "sgd",
    sample_weight: Any = None,
    metrics: Any = None,
    seed: int = 0,
) -> None:
    """Compare a stack of our layers with a stack of Keras'.

    Parameters
    ----------
    ours, theirs : list of layers
        Or, as `ours` alone, a list of pairs that `both` made, or one such pair.
    x : array
        Whole numbers in an integer type are ids.
    mask : (N, T) array of bool, optional
        Comes out of a layer put in front; what `x` holds in masked steps stays there.
    y : array, optional
        Normal numbers of the output's shape if left out.
    loss, metrics : as ``compile`` of both takes them, or a tuple (ours, theirs)
    steps : int
        Batches to train on, always the same one; 0 compares output and loss alone.
    optimizer : {"sgd", "adam"}, a tuple of both, or a dict {name: (ours, theirs)}
        Training starts over with each; a dict maps a name for error messages to a pair of
        functions that make one.
    sample_weight : array, optional
    seed : int
        Of Keras' initial weights and of `y`.
    """
    keras.utils.set_random_seed(seed)
    pairs = [ours] if isinstance(ours, tuple) else ours
    if theirs is None:
        ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    ours, theirs = list(ours), list(theirs)
    if mask is not None:
        mask = np.asarray(mask, bool)
        assert mask.shape == x.shape[:2], "one element of the mask for each step"
        ours.insert(0, GivenMask(mask))
        theirs.insert(0, KerasGivenMask(mask))
    x = np.asarray(x)
    x = x.astype(np.int32 if x.dtype.kind in "iu" else np.float32)
    theirs.insert(0, keras.Input(batch_shape=x.shape, dtype=x.dtype.name))
    check_models(
        mini.Sequential(ours),
        keras.Sequential(theirs),
        x,
        y,
        loss,
        steps,
        optimizer,
        sample_weight,
        metrics,
        seed,
    )


def check_models(
    ours: mini.Sequential,
    theirs: Any,
    x: Any,
    y: Any = None,
    loss: Any = "mse",
    steps: int = 5,
    optimizer: Any = "sgd",
    sample_weight: Any = None,
    metrics: Any = None,
    seed: int = 0,
) -> None:
    """Compare two Sequential models; parameters as in `check`."""
    if not theirs.built:
        theirs.build(x.shape)
    if not ours.built:
        ours.build(x.shape)
    start = _perturbed(theirs.get_weights(), seed)
    _assign(ours, theirs, start)
    expected = theirs.predict_on_batch(x)
    assert ours.compute_output_shape(x.shape) == expected.shape, (
        f"predicted shape {ours.compute_output_shape(x.shape)}, Keras' {expected.shape}"
    )
    assert np.isfinite(expected).all(), "Keras' output is not finite: nothing to compare"
    close("output", ours.predict_on_batch(x), expected, OUTPUT)
    if _stateful(theirs):
        _reset_states(ours, theirs)
        for call in ("first", "second", "third"):
            close(f"output of the {call} call", ours(x), np.asarray(theirs(x)), OUTPUT)
    if y is None:
        y = np.random.default_rng(seed).standard_normal(expected.shape).astype(np.float32)
    for name, pair in _optimizers(optimizer).items():
        _assign(ours, theirs, start)
        _train(ours, theirs, x, y, loss, steps, name, pair, sample_weight, metrics)


def close(what: str, actual: Any, expected: Any, relative: float, share: float = 1.0) -> None:
    """Raise unless a share of the elements is within `relative` of the largest expected one."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, Keras {expected.shape}"
    if not expected.size:
        return
    largest = float(np.max(np.abs(expected)))
    error = np.asarray(np.abs(actual.astype(np.float64) - expected))
    error[~np.isfinite(error)] = np.inf
    within = error <= relative * largest + 1e-12
    if within.mean() < share:
        worst = np.unravel_index(np.argmax(error), error.shape)
        raise AssertionError(
            f"{what}: {np.sum(~within)} of {within.size} elements differ from Keras by more than "
            f"{relative:g} of the largest, {largest:.4g}. The worst is at "
            f"{tuple(map(int, worst))} of {expected.shape}: {actual[worst]:.8g}, Keras "
            f"{expected[worst]:.8g} ({error[worst] / (largest or 1):.3g} of the largest)."
        )


def _train(
    ours: Any,
    theirs: Any,
    x: Any,
    y: Any,
    loss: Any,
    steps: int,
    name: str,
    pair: Any,
    sample_weight: Any,
    metrics: Any,
) -> None:
    """Compile both, compare the loss, train, compare the losses on the way and the weights."""
    sides = (ours, theirs)
    for side, model in enumerate(sides):
        model.compile(
            optimizer=pair[side](), loss=_of_side(loss, side), metrics=_of_side(metrics, side)
        )
    _same_numbers("evaluate", *(model.test_on_batch(x, y, sample_weight) for model in sides))
    before = theirs.get_weights()
    for step in range(steps):
        _reset_states(*sides)
        _same_numbers(
            f"{name}, step {step + 1} of {steps}, before the update",
            # Of the losses alone: Keras on JAX loses the mask before the metrics of training.
            *(np.ravel(model.train_on_batch(x, y, sample_weight))[0] for model in sides),
        )
    if not steps:
        return
    mine, expected = ours.get_weights(), theirs.get_weights()
    paths = [variable.path for variable in theirs.weights]
    for path, got, after, start in zip(paths, mine, expected, before, strict=True):
        what = f"weight {path} after {steps} steps of {name}"
        close(what, got, after, WEIGHT.get(name, 1e-4), SHARE.get(name, 1.0))
        if name == "sgd":
            # A small step from a large weight would pass unseen: compare the way itself.
            way, noise = after - start, 4 * steps * EPSILON * float(np.max(np.abs(after)))
            if (far := float(np.max(np.abs(way)))) > 0:
                close(f"way of {what}", got - start, way, STEP + noise / far)
            else:  # a bias before a normalization has a gradient of nothing but rounding
                most = float(np.max(np.abs(got - start)))
                assert most <= noise, f"{what}: changed by {most:g}; Keras leaves it alone"


def _assign(ours: Any, theirs: Any, weights: list[Any]) -> None:
    """Give both sides these weights, and no memory of what came before."""
    theirs.set_weights(weights)
    given = [weight.shape for weight in ours.weights]
    assert given == [w.shape for w in weights], (
        f"weights of shapes {given}, Keras {[(v.path, v.shape) for v in theirs.weights]}"
    )
    ours.set_weights(theirs.get_weights())
    _reset_states(ours, theirs)


def _perturbed(weights: list[Any], seed: int) -> list[Any]:
    """Keras' initial weights, with something in the place of biases of zero and gains of one.

    Zeros and ones would hide a bias that is forgotten or weights that are swapped. Counts and
    variances stay positive.
    """
    rng = np.random.default_rng(seed)
    return [
        np.asarray(w * rng.uniform(0.8, 1.2, w.shape) + 0.1 * rng.uniform(0, 1, w.shape), w.dtype)
        if w.size and np.ptp(w) == 0
        else w
        for w in weights
    ]


def _stateful(theirs: Any) -> bool:
    return any(getattr(layer, "stateful", False) for layer in theirs._flatten_layers())


def _reset_states(ours: Any, theirs: Any) -> None:
    """Forget the last batch: Keras on JAX moves states on in plain calls, not in training."""
    if not _stateful(theirs):
        return
    for layer in [*ours.layers, *theirs._flatten_layers()]:
        getattr(layer, "reset_states", int)()


def _same_numbers(what: str, mine: Any, expected: Any) -> None:
    mine, expected = np.atleast_1d(mine), np.atleast_1d(expected)
    assert mine.shape == expected.shape, f"{what}: {mine}, Keras {expected}"
    assert np.isfinite(expected).all(), f"{what}: Keras gives {expected}: nothing to compare"
    error = np.abs(mine - expected)
    assert np.all(error <= LOSS * np.abs(expected) + 1e-7), (
        f"{what}: loss and metrics {mine.tolist()}, Keras {expected.tolist()}"
    )


def _optimizers(chosen: Any) -> dict[str, Any]:
    """{name: (makes ours, makes theirs)}."""
    if isinstance(chosen, dict):
        return chosen
    names = (chosen,) if isinstance(chosen, str) else chosen
    classes = {"sgd": "SGD", "adam": "Adam"}

    def maker(module: Any, name: str) -> Any:
        return lambda: getattr(module.optimizers, classes[name])(RATES[name])

    return {name: (maker(mini, name), maker(keras, name)) for name in names}


def _of_side(value: Any, side: int) -> Any:
    """Our half or Keras' of a value that is a pair, or a list with pairs in it."""
    if isinstance(value, tuple) and len(value) == 2 and _is_pair(value):
        return value[side]
    if isinstance(value, list):
        return [_of_side(item, side) for item in value]
    return value


def _is_pair(value: Any) -> bool:
    """Whether a tuple is (ours, theirs) of some kind of object, and not a size."""
    mine, expected = (type(part).__module__.partition(".")[0] for part in value)
    return (mine == "minicnnrnn" and expected == "keras") or isinstance(value[0], Layer)


class GivenMask(Layer):
    """Hands on a mask that is known beforehand."""

    supports_masking = True

    def __init__(self, mask: Any) -> None:
        super().__init__()
        self.mask = np.ascontiguousarray(mask, np.uint8)

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        return x, self.mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        return dy


class KerasGivenMask(keras.layers.Layer):
    """The same in Keras."""

    def __init__(self, mask: Any) -> None:
        super().__init__()
        self.mask = mask
        self.supports_masking = True

    def call(self, x: Any) -> Any:
        return x

    def compute_mask(self, x: Any, previous_mask: Any = None) -> Any:
        return keras.ops.convert_to_tensor(self.mask)
