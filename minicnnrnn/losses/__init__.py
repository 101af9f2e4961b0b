"""Losses: what training makes small."""

from typing import TYPE_CHECKING, Any

from minicnnrnn import left_out
from minicnnrnn.configuration import find
from minicnnrnn.losses.base import Loss
from minicnnrnn.losses.crossentropy import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    CrossEntropy,
    KLDivergence,
    SparseCategoricalCrossentropy,
)
from minicnnrnn.losses.ctc import CTC
from minicnnrnn.losses.hinge import CategoricalHinge, Hinge, SquaredHinge
from minicnnrnn.losses.regression import (
    CosineSimilarity,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    RegressionLoss,
)

__all__ = [
    "CTC",
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "CrossEntropy",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "RegressionLoss",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "get",
]

LOSSES: dict[str, type[Loss]] = {
    "binary_crossentropy": BinaryCrossentropy,
    "binary_focal_crossentropy": BinaryFocalCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "categorical_focal_crossentropy": CategoricalFocalCrossentropy,
    "categorical_hinge": CategoricalHinge,
    "cosine_similarity": CosineSimilarity,
    "ctc": CTC,
    "hinge": Hinge,
    "huber": Huber,
    "kl_divergence": KLDivergence,
    "log_cosh": LogCosh,
    "mean_absolute_error": MeanAbsoluteError,
    "mean_absolute_percentage_error": MeanAbsolutePercentageError,
    "mean_squared_error": MeanSquaredError,
    "mean_squared_logarithmic_error": MeanSquaredLogarithmicError,
    "poisson": Poisson,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "squared_hinge": SquaredHinge,
}
ALIASES = {
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "mse": "mean_squared_error",
    "msle": "mean_squared_logarithmic_error",
}
TABLE = LOSSES | {loss.__name__: loss for loss in LOSSES.values()}
TABLE |= {short: LOSSES[name] for short, name in ALIASES.items()}
TABLE |= {short.upper(): LOSSES[name] for short, name in ALIASES.items()}


def get(identifier: Any) -> Loss:
    """The loss of this name, or the one that is given.

    Examples
    --------
    >>> from minicnnrnn import losses
    >>> losses.get("mse")
    MeanSquaredError(reduction='sum_over_batch_size', name='mean_squared_error', dtype=None)
    """
    if isinstance(identifier, str) and identifier in left_out.LOSSES:
        left_out.stand_in(identifier, left_out.LOSSES[identifier])()
    found = find(identifier, TABLE)
    if isinstance(found, Loss):
        return found
    if callable(identifier):
        raise TypeError(
            "loss: Expected a Loss, an object with a value and a gradient (see losses.Loss), since "
            f"a function has no gradient here. Received: {identifier!r}"
        )
    known = sorted([*LOSSES, *ALIASES])
    raise ValueError(f"loss: Expected a Loss or one of {known}. Received: {identifier!r}")


if not TYPE_CHECKING:  # a type checker is to complain about names that do not exist

    def __getattr__(name: str) -> Any:
        """Losses that are left out, which raise when they are called."""
        if name in left_out.LOSSES:
            return left_out.stand_in(name, left_out.LOSSES[name])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
