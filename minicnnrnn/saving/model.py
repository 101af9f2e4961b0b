"""Saved: what makes a model one that files can hold."""

from collections.abc import Mapping
from typing import Any, Self

from minicnnrnn.layers.base import Layer
from minicnnrnn.saving.objects import deserialize, serialize


class Saved(Layer):
    """Files and configurations of a model."""

    optimizer: Any
    loss: Any
    compile: Any
    _asked: Any
    _given: Any

    def save(self, filepath: Any, overwrite: bool = True) -> None:
        """Write the model to a file that ends in ".keras": see ``saving.save_model``."""
        from minicnnrnn import saving

        saving.save_model(self, filepath, overwrite)

    def save_weights(self, filepath: Any, overwrite: bool = True) -> None:
        """Write the weights to a file that ends in ".weights.h5": see ``saving.save_weights``."""
        from minicnnrnn import saving

        saving.save_weights(self, filepath, overwrite)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False) -> None:
        """Read weights from a file: see ``saving.load_weights``."""
        from minicnnrnn import saving

        saving.load_weights(self, filepath, skip_mismatch)

    # --- configurations ------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Return the layers, with the arguments to make them again, and the input's shape.

        Examples
        --------
        >>> from minicnnrnn import Sequential, layers
        >>> model = Sequential([layers.Input((4,)), layers.Dense(3, "relu"), layers.Dense(1)])
        >>> Sequential.from_config(model.get_config()).output_shape
        (None, 1)
        """
        described = [serialize(layer) for layer in self.children]
        declared = self.declared_shape
        if declared is None and self.children:
            declared = self.children[0].declared_shape
        if declared is not None:
            config = {"batch_shape": list(declared), "dtype": self.input_dtype}
            described.insert(
                0,
                {
                    "module": "keras.layers",
                    "class_name": "InputLayer",
                    "config": config,
                    "registered_name": None,
                },
            )
        made: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "layers": described}
        if self.input_shape is not None:
            made["build_input_shape"] = list(self.input_shape)
        return made

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a model from what ``get_config`` returned, built if that one was."""
        make: Any = cls
        made: Self = make(
            deserialize(config["layers"]), name=config["name"], device=config.get("device")
        )
        made._trainable = bool(config.get("trainable", True))  # the layers have their own
        if config.get("build_input_shape") and not made.built:
            made.build_once(config["build_input_shape"])
        return made

    def get_compile_config(self) -> dict[str, Any]:
        """Return the arguments of ``compile`` as a dict."""
        plain, weighted = self._asked
        given = self._given
        return {
            "optimizer": serialize(self.optimizer),
            "loss": _described(given["loss"], self.loss),
            "loss_weights": None,
            "metrics": _described_all(given["metrics"], plain),
            "weighted_metrics": _described_all(given["weighted_metrics"], weighted),
        }

    def compile_from_config(
        self, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> None:
        """Compile as ``get_compile_config`` says."""
        self.compile(**deserialize(config, custom_objects))


def _described(given: Any, made: Any) -> Any:
    return given if isinstance(given, str) else serialize(made)


def _described_all(given: Any, made: list[Any]) -> Any:
    listed = given if isinstance(given, list | tuple) else [given]
    return [_described(*pair) for pair in zip(listed, made)] if made else None
