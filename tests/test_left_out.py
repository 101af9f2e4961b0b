"""Names of Keras that are left out say so, and what to use instead."""

import pytest

import minicnnrnn
from minicnnrnn import layers, left_out
from minicnnrnn.layers import LSTM, Conv1D, Lambda, MaxPool2D, MaxPooling2D


@pytest.mark.parametrize("name", sorted(left_out.LAYERS))
def test_layers_that_are_left_out(name):
    assert not name.startswith("_")
    with pytest.raises(TypeError, match=f"Received: {name}, which Keras has. [A-Z]"):
        getattr(layers, name)(1, units=2)


@pytest.mark.parametrize("name", sorted(left_out.MODELS))
def test_models_that_are_left_out(name):
    with pytest.raises(TypeError, match="Use Sequential, with layers.Residual"):
        getattr(minicnnrnn, name)([], [])


def test_what_they_advise_exists():
    for advice in left_out.LAYERS.values():
        for word in advice.replace("(", " ").replace(",", " ").split():
            if word.startswith("layers."):
                assert word.removeprefix("layers.").rstrip(".") in layers.__all__


def test_they_can_be_imported_and_others_cannot():
    with pytest.raises(TypeError, match="Write a Layer"):
        Lambda(abs)
    assert MaxPool2D is MaxPooling2D
    with pytest.raises(AttributeError, match="has no attribute 'Conv5D'"):
        layers.Conv5D  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'Modell'"):
        minicnnrnn.Modell  # noqa: B018


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Conv2D(1, 1, data_format="channels_first"),
        lambda: LSTM(2, unroll=True),
        lambda: LSTM(2, return_state=True),
        lambda: Conv1D(1, 1, data_format="channels_first"),
        lambda: layers.MaxPooling2D(data_format="channels_first"),
        lambda: layers.Flatten(data_format="channels_first"),
    ],
)
def test_arguments_that_are_left_out(make):
    with pytest.raises(ValueError, match="Expected .*Received: "):
        make()
