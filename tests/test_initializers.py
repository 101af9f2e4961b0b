"""Initializers: Keras' names and defaults, and the statistics that each one promises."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnnrnn import initializers
from minicnnrnn.initializers import get

NAMES = {
    "zeros": {},
    "ones": {},
    "constant": {"value": 0.0},
    "identity": {"gain": 1.0},
    "random_normal": {"mean": 0.0, "stddev": 0.05, "seed": None},
    "random_uniform": {"minval": -0.05, "maxval": 0.05, "seed": None},
    "truncated_normal": {"mean": 0.0, "stddev": 0.05, "seed": None},
    "variance_scaling": {
        "scale": 1.0,
        "mode": "fan_in",
        "distribution": "truncated_normal",
        "seed": None,
    },
    "glorot_uniform": {"seed": None},
    "glorot_normal": {"seed": None},
    "he_uniform": {"seed": None},
    "he_normal": {"seed": None},
    "lecun_uniform": {"seed": None},
    "lecun_normal": {"seed": None},
    "orthogonal": {"gain": 1.0, "seed": None},
}


def camel_case(name):
    return "".join(word.capitalize() for word in name.split("_"))


def draw(identifier, shape, seed=0):
    return get(identifier)(shape, np.random.default_rng(seed))


@pytest.mark.parametrize("name", NAMES)
def test_names_defaults_and_round_trip(name):
    initializer = get(name)
    assert type(initializer).__name__ == camel_case(name)
    assert type(get(camel_case(name))) is type(initializer)
    assert initializer.get_config() == NAMES[name]
    again = get(initializers.serialize(initializer))
    assert type(again) is type(initializer)
    assert again.get_config() == initializer.get_config()
    assert repr(again) == repr(initializer)
    np.testing.assert_array_equal(draw(again, (4, 5)), draw(initializer, (4, 5)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3, 7)])
def test_float32_contiguous_and_of_the_shape(name, shape):
    values = draw(name, shape)
    assert values.dtype == np.float32
    assert values.shape == shape
    assert values.flags.c_contiguous
    assert values.flags.writeable


def test_worked_examples():
    assert draw("zeros", (2,)).tolist() == [0, 0]
    assert draw("ones", (1, 2)).tolist() == [[1, 1]]
    assert draw(initializers.Constant(3), (2,)).tolist() == [3, 3]
    assert draw(initializers.Constant([1, 2]), (2, 2)).tolist() == [[1, 2], [1, 2]]
    assert draw(initializers.Identity(2), (2, 3)).tolist() == [[2, 0, 0], [0, 2, 0]]


@pytest.mark.parametrize(
    ("shape", "fans"),
    [
        ((), (1, 1)),
        ((5,), (5, 5)),
        ((5, 7), (5, 7)),
        ((3, 5, 7), (15, 21)),
        ((3, 3, 2, 4), (18, 36)),
        ((2, 3, 4, 5, 6), (120, 144)),
    ],
)
def test_fans(shape, fans):
    assert initializers.compute_fans(shape) == fans


VARIANCES = {
    "glorot_uniform": lambda i, o: 2 / (i + o),
    "glorot_normal": lambda i, o: 2 / (i + o),
    "he_uniform": lambda i, o: 2 / i,
    "he_normal": lambda i, o: 2 / i,
    "lecun_uniform": lambda i, o: 1 / i,
    "lecun_normal": lambda i, o: 1 / i,
}


@pytest.mark.parametrize("name", VARIANCES)
@pytest.mark.parametrize("shape", [(200, 300), (3, 3, 40, 160)])
def test_variance_follows_the_fans(name, shape):
    values = draw(name, shape).astype(np.float64)
    variance = VARIANCES[name](*initializers.compute_fans(shape))
    assert values.var() == pytest.approx(variance, rel=0.03)
    assert abs(values.mean()) < 5 * math.sqrt(variance / values.size)
    if name.endswith("uniform"):
        assert np.abs(values).max() == pytest.approx(math.sqrt(3 * variance), rel=1e-3)
    else:
        assert np.abs(values).max() <= 2.001 * math.sqrt(variance) / initializers.TRUNCATED_STDDEV


def test_untruncated_normal_and_fan_out():
    initializer = initializers.VarianceScaling(3.0, "fan_out", "untruncated_normal")
    values = draw(initializer, (200, 300))
    assert values.var() == pytest.approx(3 / 300, rel=0.03)
    assert np.abs(values).max() > 3.5 * math.sqrt(3 / 300)


def test_plain_distributions():
    uniform = draw(initializers.RandomUniform(1, 3), (100_000,))
    assert uniform.min() >= 1
    assert uniform.max() <= 3
    assert uniform.mean() == pytest.approx(2, abs=0.01)
    normal = draw(initializers.RandomNormal(1, 2), (100_000,))
    assert normal.mean() == pytest.approx(1, abs=0.03)
    assert normal.std() == pytest.approx(2, rel=0.01)
    truncated = draw(initializers.TruncatedNormal(1, 2), (100_000,))
    assert np.abs(truncated - 1).max() <= 4.00001
    assert truncated.std() == pytest.approx(2 * initializers.TRUNCATED_STDDEV, rel=0.01)


def test_truncated_normal_has_the_distribution_of_scipy():
    special = pytest.importorskip("scipy.special")
    values = np.sort(draw(initializers.TruncatedNormal(0, 1), (20_000,)))
    low, high = special.ndtr([-2, 2])
    cumulative = (special.ndtr(values) - low) / (high - low)
    steps = np.arange(values.size) / values.size
    assert np.abs(cumulative - steps).max() < 1.95 / math.sqrt(values.size)  # Kolmogorov, 0.1 %


@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(0, 2**32 - 1))
def test_orthogonal_columns_or_rows(shape, seed):
    matrix = draw(initializers.Orthogonal(2.0), tuple(shape), seed).astype(np.float64)
    matrix = matrix.reshape(-1, shape[-1])
    short = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(short, 4 * np.eye(len(short)), atol=1e-5)


def test_orthogonal_has_no_preferred_signs():
    diagonal = [draw("orthogonal", (2, 2), seed)[0, 0] for seed in range(200)]
    assert 60 < sum(value > 0 for value in diagonal) < 140


@pytest.mark.parametrize("name", [name for name, config in NAMES.items() if "seed" in config])
def test_seeds(name):
    cls = getattr(initializers, camel_case(name))
    rng = np.random.default_rng(0)
    first, second = cls(seed=5)((3, 4), rng), cls(seed=5)((3, 4), rng)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, cls(seed=6)((3, 4), rng))
    assert not np.array_equal(cls()((3, 4), rng), cls()((3, 4), rng))
    np.testing.assert_array_equal(draw(name, (3, 4), 1), draw(name, (3, 4), 1))


def test_get_takes_classes_callables_aliases_and_none():
    def mine(shape, rng):
        return np.zeros(shape, np.float32)

    assert get(mine) is mine
    assert get(None) is None
    assert isinstance(get(initializers.HeNormal), initializers.HeNormal)
    assert isinstance(get("normal"), initializers.RandomNormal)
    assert isinstance(get("uniform"), initializers.RandomUniform)
    keras = {"module": "keras.initializers", "class_name": "OrthogonalInitializer", "config": {}}
    assert isinstance(get(keras), initializers.Orthogonal)


@pytest.mark.parametrize("identifier", ["glorot", {"class_name": "Glorot"}, {}, 3, [1]])
def test_get_lists_what_exists(identifier):
    with pytest.raises(ValueError, match=r"one of: constant, .*variance_scaling, zeros") as error:
        get(identifier)
    assert repr(identifier) in str(error.value)


@pytest.mark.parametrize(
    "arguments", [{"scale": 0}, {"scale": -1}, {"mode": "fan"}, {"distribution": "normal"}]
)
def test_variance_scaling_checks_its_arguments(arguments):
    with pytest.raises(ValueError, match=r"Expected .* Received"):
        initializers.VarianceScaling(**arguments)


@pytest.mark.parametrize(("name", "shape"), [("identity", (3,)), ("orthogonal", (3,))])
def test_shapes_without_a_matrix_raise(name, shape):
    with pytest.raises(ValueError, match="Expected a shape of"):
        draw(name, shape)


def test_the_base_class_draws_nothing():
    with pytest.raises(TypeError, match="abstract"):
        initializers.Initializer()
