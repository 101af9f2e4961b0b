"""Metrics against Keras': after several batches, weighted, masked, compiled."""

import inspect

import keras
import numpy as np
import pytest
from parity.parity import both, check

from minicnnrnn import left_out, metrics

SHARES = "probabilities"
# class name: kind of outputs, kind of targets, arguments
METRICS = {
    "MeanSquaredError": ("real", "real", [{}]),
    "RootMeanSquaredError": ("real", "real", [{}]),
    "MeanAbsoluteError": ("real", "real", [{}]),
    "MeanAbsolutePercentageError": ("real", "real", [{}]),
    "MeanSquaredLogarithmicError": ("real", "real", [{}]),
    "LogCoshError": ("real", "real", [{}]),
    "CosineSimilarity": ("real", "real", [{}]),
    "R2Score": (
        "real",
        "real",
        [
            {},
            {"class_aggregation": None},
            {"class_aggregation": "variance_weighted_average"},
            {"num_regressors": 3},
        ],
    ),
    "Hinge": ("real", "binary", [{}]),
    "SquaredHinge": ("real", "binary", [{}]),
    "CategoricalHinge": ("real", "one-hot", [{}]),
    "KLDivergence": (SHARES, SHARES, [{}]),
    "Poisson": (SHARES, "binary", [{}]),
    "BinaryCrossentropy": (SHARES, "binary", [{}, {"label_smoothing": 0.1}]),
    "CategoricalCrossentropy": (SHARES, "one-hot", [{}, {"from_logits": True}]),
    "SparseCategoricalCrossentropy": (SHARES, "labels", [{}]),
    "BinaryAccuracy": (SHARES, "binary", [{}, {"threshold": 0.3}]),
    "CategoricalAccuracy": (SHARES, "one-hot", [{}]),
    "SparseCategoricalAccuracy": (SHARES, "labels", [{}]),
    "TopKCategoricalAccuracy": (SHARES, "one-hot", [{"k": 2}]),
    "SparseTopKCategoricalAccuracy": (SHARES, "labels", [{"k": 2}]),
    "TruePositives": (SHARES, "binary", [{}, {"thresholds": [0.6, 0.2]}]),
    "FalsePositives": (SHARES, "binary", [{}, {"thresholds": 0.3}]),
    "TrueNegatives": (SHARES, "binary", [{}]),
    "FalseNegatives": (SHARES, "binary", [{}, {"thresholds": [0, 0.5, 1]}]),
    "Precision": (
        SHARES,
        "one-hot",
        [{}, {"thresholds": [0.2, 0.4]}, {"top_k": 2}, {"class_id": 1, "thresholds": 0.3},
         {"top_k": 1, "class_id": 2}],
    ),
    "Recall": (SHARES, "one-hot", [{"thresholds": 0.3}, {"top_k": 2}]),
    "SensitivityAtSpecificity": (SHARES, "binary", [{"specificity": 0.6}]),
    "SpecificityAtSensitivity": (SHARES, "binary", [{"sensitivity": 0.6, "num_thresholds": 1}]),
    "PrecisionAtRecall": (SHARES, "binary", [{"recall": 0.4, "class_id": 1}]),
    "RecallAtPrecision": (SHARES, "binary", [{"precision": 0.6, "num_thresholds": 30}]),
    "AUC": (
        SHARES,
        "binary",
        [
            *({"curve": curve, "summation_method": method}
              for curve in ("ROC", "PR", "PRGAIN")
              for method in ("interpolation", "majoring", "minoring")),
            {"thresholds": [0.7, 0.2, 0.25]},
            {"multi_label": True},
            {"multi_label": True, "num_labels": 3, "label_weights": [1.0, 2.0, 0.5]},
            {"label_weights": [1.0, 2.0, 0.5], "curve": "pr"},
            {"from_logits": True, "num_thresholds": 20},
        ],
    ),
    "F1Score": (SHARES, "one-hot", [{}, {"average": "micro"}, {"average": "weighted"}]),
    "FBetaScore": (
        SHARES,
        "binary",
        [{"average": "macro", "beta": 2.0, "threshold": 0.4}, {"threshold": 0.3, "beta": 0.5}],
    ),
    "IoU": (SHARES, "labels", [{"num_classes": 3, "target_class_ids": [0, 2],
                                "sparse_y_pred": False}]),
    "MeanIoU": (SHARES, "labels", [{"num_classes": 3, "sparse_y_pred": False, "ignore_class": 1}]),
    "BinaryIoU": (SHARES, "binary", [{}, {"target_class_ids": [1], "threshold": 0.3}]),
    "OneHotIoU": (SHARES, "one-hot", [{"num_classes": 3, "target_class_ids": [1]}]),
    "OneHotMeanIoU": (SHARES, "one-hot", [{"num_classes": 3}]),
}  # fmt: skip
CASES = [
    pytest.param(name, outputs, kind, arguments, id=f"{name}-{i}")
    for name, (outputs, kind, variants) in METRICS.items()
    for i, arguments in enumerate(variants)
]


def numbers(kind, rng, *shape):
    real = rng.standard_normal((*shape, 3)).astype(np.float32)
    if kind == "labels":
        return rng.integers(0, 3, shape)
    if kind == "one-hot":
        return np.eye(3, dtype=np.float32)[rng.integers(0, 3, shape)]
    if kind == "binary":
        return (real > 0).astype(np.float32)
    if kind == SHARES:
        return np.exp(real) / np.exp(real).sum(axis=-1, keepdims=True)
    return real


@pytest.mark.parametrize(("name", "outputs", "kind", "arguments"), CASES)
def test_batches_add_up(name, outputs, kind, arguments):
    rng = np.random.default_rng(0)
    ours, theirs = (getattr(module, name)(**arguments) for module in (metrics, keras.metrics))
    assert ours.result() == 0
    for size, weighted in ((5, False), (1, True), (9, True)):
        t, y = numbers(kind, rng, size), numbers(outputs, rng, size)
        weights = known = rng.uniform(0.5, 2, size).astype(np.float32) if weighted else None
        if weighted and "IoU" in name:  # Keras counts in whole numbers
            weights = known = rng.integers(0, 4, size).astype(np.int32)
        if weighted and name == "BinaryIoU":  # and wants a weight for each output
            known = np.repeat(weights, 3)
        ours.update_state(t, y, sample_weight=weights)
        theirs.update_state(t, y, sample_weight=known)
    result = np.asarray(theirs.result())
    assert np.shape(ours.result()) == result.shape
    # Keras counts negatives as what is left of all, in single precision.
    np.testing.assert_allclose(ours.result(), result, rtol=2e-5, atol=5e-6)
    ours.reset_state()
    assert ours.result() == 0


def test_classes_as_outputs_and_vectors():
    ours, theirs = (m.MeanIoU(num_classes=3) for m in (metrics, keras.metrics))
    for metric in (ours, theirs):
        metric.update_state([0, 1, 2, 2], [0, 2, 2, 1])
    assert ours.result() == pytest.approx(float(theirs.result()), rel=1e-6)
    ours, theirs = (m.AUC(num_thresholds=3) for m in (metrics, keras.metrics))
    for metric in (ours, theirs):
        metric.update_state([0, 0, 1, 1], [0, 0.5, 0.3, 0.9], sample_weight=[1, 0, 0, 1])
    assert ours.result() == pytest.approx(float(theirs.result()))


def furthest(y_true, y_pred):
    """A metric that a user wrote; it works on NumPy's arrays and on JAX's."""
    return abs(y_true - y_pred).max(-1)


MASKED = ["mse", "mae", "mape", "msle", "cosine_similarity", "hinge", "kl_divergence", "poisson"]


@pytest.mark.parametrize("masked", [False, True])
def test_compiled(masked):
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 6, 5), np.float32), rng.random((4, 6, 3), np.float32)
    check(
        [both("Dense", 3, activation="softmax")],
        None,
        x,
        mask=rng.random((4, 6)) < 0.6 if masked else None,
        y=y,
        metrics=[*MASKED, "accuracy", furthest],
        steps=1,
    )


def test_all_arguments_and_names():
    for name in set(metrics.__all__) & set(dir(keras.metrics)) - {"get"}:
        ours, theirs = (
            list(inspect.signature(getattr(module, name)).parameters.values())
            for module in (metrics, keras.metrics)
        )
        assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs], name
    for name, (_, _, variants) in METRICS.items():
        ours, theirs = (getattr(m, name)(**variants[0]).name for m in (metrics, keras.metrics))
        assert theirs.startswith(ours)  # Keras numbers them
    names = set(keras.src.metrics.ALL_OBJECTS_DICT) - {"Metric", "metric"}
    assert names <= set(metrics.TABLE) | set(left_out.METRICS)
