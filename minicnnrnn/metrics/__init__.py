"""Metrics: what is reported beside the loss."""

from typing import TYPE_CHECKING, Any

from minicnnrnn import left_out
from minicnnrnn.configuration import find
from minicnnrnn.metrics.accuracy import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)
from minicnnrnn.metrics.auc import AUC
from minicnnrnn.metrics.base import Mean, MeanMetricWrapper, Metric, Sum, snake_case
from minicnnrnn.metrics.confusion import (
    FalseNegatives,
    FalsePositives,
    Precision,
    PrecisionAtRecall,
    Recall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
    TrueNegatives,
    TruePositives,
)
from minicnnrnn.metrics.crossentropy import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    KLDivergence,
    Poisson,
    SparseCategoricalCrossentropy,
)
from minicnnrnn.metrics.f_score import F1Score, FBetaScore
from minicnnrnn.metrics.hinge import CategoricalHinge, Hinge, SquaredHinge
from minicnnrnn.metrics.iou import BinaryIoU, IoU, MeanIoU, OneHotIoU, OneHotMeanIoU
from minicnnrnn.metrics.regression import (
    CosineSimilarity,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    R2Score,
    RootMeanSquaredError,
)

__all__ = [
    "AUC",
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "BinaryIoU",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "F1Score",
    "FBetaScore",
    "FalseNegatives",
    "FalsePositives",
    "Hinge",
    "IoU",
    "KLDivergence",
    "LogCoshError",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanIoU",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "OneHotIoU",
    "OneHotMeanIoU",
    "Poisson",
    "Precision",
    "PrecisionAtRecall",
    "R2Score",
    "Recall",
    "RecallAtPrecision",
    "RootMeanSquaredError",
    "SensitivityAtSpecificity",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SpecificityAtSensitivity",
    "SquaredHinge",
    "Sum",
    "TopKCategoricalAccuracy",
    "TrueNegatives",
    "TruePositives",
    "get",
]

CLASSES: dict[str, type[Metric]] = {
    name: globals()[name] for name in __all__ if name not in ("Metric", "get")
}
ALIASES = {
    "acc": Accuracy,
    "bce": BinaryCrossentropy,
    "mae": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "mse": MeanSquaredError,
    "msle": MeanSquaredLogarithmicError,
}
TABLE = CLASSES | {snake_case(name): metric for name, metric in CLASSES.items()} | ALIASES
TABLE |= {short.upper(): metric for short, metric in ALIASES.items() if short != "acc"}


def get(identifier: Any) -> Metric:
    """The metric of this name, which becomes its key in the history, or the one given.

    A function ``f(y_true, y_pred)`` becomes a metric of its name: see ``MeanMetricWrapper``.

    Examples
    --------
    >>> from minicnnrnn import metrics
    >>> metrics.get("acc")
    <Accuracy name='acc'>
    """
    if isinstance(identifier, str) and identifier in left_out.METRICS:
        left_out.stand_in(identifier, left_out.METRICS[identifier])()
    found = find(identifier, TABLE)
    if isinstance(found, Metric):
        if isinstance(identifier, str):
            found.name = identifier
        return found
    if callable(found):
        return MeanMetricWrapper(found)
    known = sorted({*ALIASES, *(snake_case(name) for name in CLASSES)})
    raise ValueError(f"metrics: Expected a Metric or one of {known}. Received: {identifier!r}")


if not TYPE_CHECKING:  # a type checker is to complain about names that do not exist

    def __getattr__(name: str) -> Any:
        """Metrics that are left out, which raise when they are called."""
        if name in left_out.METRICS:
            return left_out.stand_in(name, left_out.METRICS[name])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
