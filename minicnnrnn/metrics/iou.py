"""Intersection over union: how well areas of classes cover each other."""

from typing import Any

import numpy as np

from minicnnrnn.kernels.codes import BINARY, CLASSES, IGNORE_NONE, SCORES
from minicnnrnn.metrics.base import KerasMetric, ratio


class IoU(KerasMetric):
    """The mean over classes of intersection over union, from a confusion matrix.

    For each class, ``true positives / (true positives + false positives + false negatives)``;
    classes that occur neither in targets nor in outputs are left out.

    Parameters
    ----------
    num_classes : int
    target_class_ids : list of int
        The classes to average over.
    name, dtype : as in ``Metric``
    ignore_class : int, optional
        Targets of this class are left out.
    sparse_y_true : bool
        Whether targets are classes, instead of one-hot.
    sparse_y_pred : bool
        Whether outputs are classes, instead of scores of which the largest is the answer.
    axis : int
        Only -1.

    Examples
    --------
    >>> from minicnnrnn import metrics
    >>> metrics.IoU(num_classes=2, target_class_ids=[0])([0, 0, 1, 1], [0, 1, 0, 1])
    0.3333333333333333
    """

    kind = SCORES
    threshold = 0.5

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Any,
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype)
        self.num_classes = self.check_count("num_classes", num_classes, 1)
        self.target_class_ids = [
            self.check_count("target_class_ids", target, 0) for target in target_class_ids
        ]
        if max(self.target_class_ids, default=num_classes) >= num_classes:
            self.fail(f"target_class_ids below {num_classes}", target_class_ids)
        if axis != -1:
            self.fail("axis -1", axis)
        if sparse_y_pred and not sparse_y_true:
            self.fail("sparse_y_pred only with sparse_y_true", sparse_y_pred)
        self.ignore_class, self.axis = self.check_class("ignore_class", ignore_class), -1
        self.sparse_y_true, self.sparse_y_pred = bool(sparse_y_true), bool(sparse_y_pred)
        self.sparse = self.sparse_y_true and not self.sparse_y_pred
        self.kind = CLASSES if self.sparse_y_pred else SCORES

    @property
    def size(self) -> int:
        """A count for each pair of classes."""
        return self.num_classes**2

    def update(self, kernels: Any, totals: Any, values: Any, y: Any, t: Any, weights: Any) -> None:
        """Count the pairs."""
        ignore = IGNORE_NONE if self.ignore_class is None else self.ignore_class
        if self.sparse:
            kernels.sparse_confusion_matrix(totals, y, t, weights, self.num_classes, ignore)
        else:
            kernels.confusion_matrix(
                totals, y, t, weights, self.num_classes, self.kind, self.threshold, ignore
            )

    def compute(self, totals: Any) -> float:
        """The mean over the classes that occur."""
        matrix = totals.reshape(self.num_classes, -1)
        both = np.diag(matrix)
        either = matrix.sum(axis=0) + matrix.sum(axis=1) - both
        chosen = self.target_class_ids
        shares = ratio(both, either)[chosen]
        return float(ratio(np.sum(shares), np.count_nonzero(either[chosen])))


class BinaryIoU(IoU):
    """Intersection over union where each output says yes or no.

    Parameters
    ----------
    target_class_ids : list of int
        0, 1 or both.
    threshold : float
        Outputs not below it say yes.
    name, dtype : as in ``Metric``
    """

    def __init__(
        self,
        target_class_ids: Any = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold, self.kind = self.check_real("threshold", threshold, 0, 1), BINARY


class MeanIoU(IoU):
    """The mean over all classes; parameters as in ``IoU``."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        classes = range(num_classes) if isinstance(num_classes, int) else []
        super().__init__(
            num_classes, classes, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis
        )


class OneHotIoU(IoU):
    """Intersection over union with one-hot targets; parameters as in ``IoU``."""

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Any,
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(
            num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis
        )


class OneHotMeanIoU(MeanIoU):
    """The mean over all classes with one-hot targets; parameters as in ``IoU``."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)
