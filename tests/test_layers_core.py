"""Dense and Activation: shapes, and agreement with PyTorch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnnrnn import layers

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


@settings(max_examples=15)
@given(SHAPES, st.integers(1, 9), st.integers(1, 4))
def test_predicted_shapes_are_actual_shapes(shape, units, batch):
    x = np.zeros((batch, *shape), np.float32)
    for layer in (
        layers.Dense(units, activation="tanh"),
        layers.Activation("relu"),
    ):
        assert layer.compute_output_shape(x.shape) == layer(x).shape


def test_dense_is_what_it_says():
    layer = layers.Dense(2, activation="relu")
    layer.build_once((None, 3))
    layer.set_weights([np.array([[1, -1], [2, 0], [0, 3]]), np.array([0.5, -7])])
    np.testing.assert_array_equal(layer([[1, 2, 3], [-4, 0, 5]]), [[5.5, 1], [0, 12]])
    assert [w.shape for w in layers.Dense(4, use_bias=False, input_dim=3).weights] == []


def test_dense_agrees_with_torch():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    layer, other = layers.Dense(7, activation="silu"), torch.nn.Linear(5, 7)
    layer.build_once((None, 4, 5))
    layer.set_weights([other.weight.detach().numpy().T, other.bias.detach().numpy()])
    expected = torch.nn.functional.silu(other(torch.tensor(x))).detach().numpy()
    np.testing.assert_allclose(layer(x), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("relu", "relu"),
        ("elu", "elu"),
        ("selu", "selu"),
        ("silu", "silu"),
        ("softplus", "softplus"),
        ("tanh", "tanh"),
        ("sigmoid", "sigmoid"),
        ("hard_sigmoid", "hardsigmoid"),
    ],
)
def test_activations_agree_with_torch(name, theirs):
    torch = pytest.importorskip("torch")
    x = np.concatenate([np.linspace(-9, 9, 50), [0, 1e-7, -1e-7, 80, -80]]).astype(np.float32)
    expected = getattr(torch.nn.functional, theirs)(torch.tensor(x)).numpy()
    np.testing.assert_allclose(layers.Activation(name)(x[None])[0], expected, rtol=1e-5, atol=1e-6)
