"""Metrics: scikit-learn's numbers, in several batches, weighted, masked, compiled."""

import pickle

import numpy as np
import pytest

from minicnnrnn import Sequential, layers, metrics
from minicnnrnn.layers import Layer

RNG = np.random.default_rng(0)
SCORES = (RNG.random((40, 3)) * 0.998 + 0.001).astype(np.float32)
LABELS = RNG.integers(0, 3, 40)
ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]
MANY = (RNG.random((40, 3)) < 0.4).astype(np.float32)  # any number of classes a sample
REAL = RNG.standard_normal((40, 3)).astype(np.float32)
WEIGHTS = RNG.uniform(0.5, 2, 40).astype(np.float32)
BEST = SCORES.argmax(axis=1)


def flat(a):
    return a.ravel()


# metric, targets, outputs, scikit-learn's function and what it is given
SKLEARN = {
    "mse": (metrics.MeanSquaredError(), REAL, SCORES, "mean_squared_error", REAL, SCORES, {}),
    "rmse": (
        metrics.RootMeanSquaredError(), REAL[:, :1], SCORES[:, :1], "root_mean_squared_error",
        REAL[:, :1], SCORES[:, :1], {},
    ),
    "mae": (metrics.MeanAbsoluteError(), REAL, SCORES, "mean_absolute_error", REAL, SCORES, {}),
    "msle": (
        metrics.MeanSquaredLogarithmicError(), MANY, SCORES, "mean_squared_log_error",
        MANY, SCORES, {},
    ),
    "r2": (metrics.R2Score(), REAL, SCORES, "r2_score", REAL, SCORES, {}),
    "r2 of each": (
        metrics.R2Score(None), REAL, SCORES, "r2_score", REAL, SCORES,
        {"multioutput": "raw_values"},
    ),
    "r2 by variance": (
        metrics.R2Score("variance_weighted_average"), REAL, SCORES, "r2_score", REAL, SCORES,
        {"multioutput": "variance_weighted"},
    ),
    "log loss": (
        metrics.SparseCategoricalCrossentropy(), LABELS,
        SCORES / SCORES.sum(axis=1, keepdims=True), "log_loss", LABELS,
        SCORES / SCORES.sum(axis=1, keepdims=True), {},
    ),
    "precision": (
        metrics.Precision(), MANY, SCORES, "precision_score", MANY, SCORES > 0.5,
        {"average": "micro"},
    ),
    "precision of a class": (
        metrics.Precision(0.3, class_id=1), MANY, SCORES, "precision_score",
        MANY[:, 1], SCORES[:, 1] > 0.3, {},
    ),
    "recall": (
        metrics.Recall(), MANY, SCORES, "recall_score", MANY, SCORES > 0.5, {"average": "micro"},
    ),
    "f1": (
        metrics.F1Score(), ONE_HOT, SCORES, "f1_score", LABELS, BEST, {"average": None},
    ),
    "f1 weighted": (
        metrics.F1Score("weighted"), ONE_HOT, SCORES, "f1_score", LABELS, BEST,
        {"average": "weighted"},
    ),
    "f beta": (
        metrics.FBetaScore("macro", 0.5, 0.4), MANY, SCORES, "fbeta_score",
        MANY, SCORES > 0.4, {"average": "macro", "beta": 0.5},
    ),
    "f beta micro": (
        metrics.FBetaScore("micro", 2.0, 0.4), MANY, SCORES, "fbeta_score",
        MANY, SCORES > 0.4, {"average": "micro", "beta": 2.0},
    ),
    "iou": (
        metrics.MeanIoU(3, sparse_y_pred=False), LABELS, SCORES, "jaccard_score",
        LABELS, BEST, {"average": "macro"},
    ),
    "iou of a class": (
        metrics.OneHotIoU(3, [2]), ONE_HOT, SCORES, "jaccard_score",
        LABELS == 2, BEST == 2, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", SKLEARN)
def test_scikit_learn_agrees(case, weighted):
    sklearn = pytest.importorskip("sklearn.metrics")
    metric, t, y, name, *given, options = SKLEARN[case]
    weights = WEIGHTS if weighted else None
    metric.reset_state()
    for batch in (slice(0, 11), slice(11, 40)):
        metric.update_state(t[batch], y[batch], weights[batch] if weighted else None)
    theirs = getattr(sklearn, name)(*given, sample_weight=weights, **options)
    np.testing.assert_allclose(metric.result(), theirs, rtol=1e-5)


def test_areas_are_scikit_learns_where_thresholds_part_all_outputs():
    sklearn = pytest.importorskip("sklearn.metrics")
    edges = np.sort(SCORES.ravel())
    between = ((edges[1:] + edges[:-1]) / 2).tolist()
    roc = metrics.AUC(thresholds=between)
    assert roc(MANY, SCORES, WEIGHTS) == pytest.approx(
        sklearn.roc_auc_score(flat(MANY), flat(SCORES), sample_weight=np.repeat(WEIGHTS, 3))
    )
    apart = metrics.AUC(thresholds=between, multi_label=True)
    assert apart(MANY, SCORES) == pytest.approx(sklearn.roc_auc_score(MANY, SCORES))
    average = metrics.AUC(thresholds=between, curve="PR", summation_method="majoring")
    theirs = sklearn.average_precision_score(flat(MANY), flat(SCORES))
    assert average(MANY, SCORES) == pytest.approx(theirs)
    logits = np.log(SCORES) - np.log1p(-SCORES)
    from_logits = metrics.AUC(thresholds=between, from_logits=True)
    assert from_logits(MANY, logits, WEIGHTS) == pytest.approx(roc.result(), abs=1e-3)
    assert metrics.AUC()(MANY, SCORES) == pytest.approx(
        sklearn.roc_auc_score(flat(MANY), flat(SCORES)), abs=2e-3
    )


def test_counts_and_constraints():
    t, y = [0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9]
    assert metrics.TruePositives()(t, y) == 1
    assert metrics.FalsePositives()(t, y) == 1
    assert metrics.TrueNegatives([0.5, 0.05])(t, y).tolist() == [1, 0]
    assert metrics.FalseNegatives()(t, y, [1, 1, 3, 1]) == 3
    assert metrics.SensitivityAtSpecificity(0.5)(t, y) == 1
    assert metrics.SpecificityAtSensitivity(1.0)(t, y) == 0.5
    assert metrics.PrecisionAtRecall(1.0)(t, y) == pytest.approx(2 / 3)
    assert metrics.RecallAtPrecision(1.0)(t, y) == 0.5
    assert metrics.RecallAtPrecision(1.0)([0, 0], [0.5, 0.6]) == 0
    assert metrics.Precision(top_k=2)([[0, 0, 1, 1]], [[3, 9, 5, 1]]) == 0.5


def test_degenerate_scores():
    r2 = metrics.R2Score(None)
    constant = np.ones((3, 2), np.float32)
    found = r2(constant, [[1, 1], [1, 2], [1, 1]])
    assert found.tolist() == [1, 0]  # as in scikit-learn
    assert metrics.F1Score("macro")([[1, 0], [0, 0]], np.zeros((2, 2))) == 0
    assert metrics.MeanIoU(3)([0, 2, 7], [0, 2, 1]) == 1  # 1 is absent, 7 is no class
    assert metrics.BinaryIoU()([[1], [0]], [[0.5], [0.2]]) == 1
    assert metrics.AUC()([0, 0], [0.1, 0.2]) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: metrics.Precision(thresholds=2),
        lambda: metrics.Precision(thresholds=[]),
        lambda: metrics.Precision(top_k=0),
        lambda: metrics.Precision(class_id=3)(ONE_HOT, SCORES),
        lambda: metrics.AUC(curve="lift"),
        lambda: metrics.AUC(num_thresholds=1),
        lambda: metrics.AUC(num_labels=3),
        lambda: metrics.AUC(multi_label=True, num_labels=2)(ONE_HOT, SCORES),
        lambda: metrics.AUC(label_weights=[1, 2])(ONE_HOT, SCORES),
        lambda: metrics.FBetaScore(average="mean"),
        lambda: metrics.FBetaScore(beta=0),
        lambda: metrics.FBetaScore(threshold=0),
        lambda: metrics.R2Score("sum"),
        lambda: metrics.IoU(2, [2]),
        lambda: metrics.IoU(2, [0], sparse_y_true=False),
        lambda: metrics.MeanIoU("3"),
        lambda: metrics.MeanIoU(3, axis=1),
        lambda: metrics.SensitivityAtSpecificity(2),
        lambda: metrics.SparseTopKCategoricalAccuracy(from_sorted_ids=True),
        lambda: metrics.MeanMetricWrapper("mse"),
        lambda: metrics.CosineSimilarity(axis=0),
    ],
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(ValueError, match="Expected.*Received"):
        make()


@pytest.mark.parametrize("name", sorted(metrics.TABLE))
def test_names(name):
    try:
        metric = metrics.get(name)
    except TypeError:  # it needs arguments
        return
    assert metric.name == name
    assert metrics.get(metric) is metric


def test_metrics_that_are_left_out_say_so():
    with pytest.raises(TypeError, match="Give metrics a function"):
        metrics.PearsonCorrelation()
    with pytest.raises(TypeError, match="Give metrics a function"):
        metrics.get("pearson_correlation")
    with pytest.raises(AttributeError, match="no attribute 'Auc'"):
        metrics.Auc  # noqa: B018


class Masked(Layer):
    """Hands on a mask that is given beforehand."""

    supports_masking = True

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, x, mask, training):
        return x, self.mask


def test_masked_steps_and_sample_weights_count_in_every_metric():
    mask = (RNG.random((8, 5)) < 0.6).astype(np.uint8)
    x, t = SCORES.reshape(8, 5, 3), MANY.reshape(8, 5, 3)
    kept = mask.ravel() == 1
    asked = [metrics.Precision, metrics.AUC, metrics.F1Score, metrics.R2Score, metrics.BinaryIoU]
    model = Sequential([Masked(mask)])
    model.compile(
        "sgd",
        "mse",
        metrics=[metric() for metric in asked],
        weighted_metrics=[metric(name=f"weighted_{metric.__name__}") for metric in asked],
    )
    weights = WEIGHTS.reshape(8, 5)
    _, *measured = model.evaluate(x, t, sample_weight=weights)
    for given in (None, WEIGHTS[kept]):
        for metric in asked:
            expected = metric()(MANY[kept], SCORES[kept], given)
            np.testing.assert_allclose(measured.pop(0), expected, rtol=1e-6)


def test_metrics_of_several_numbers_in_training(capsys):
    model = Sequential([layers.Dense(3, activation="softmax")], seed=0)
    asked = [metrics.F1Score(), metrics.Recall([0.2, 0.5]), metrics.MeanIoU(3, sparse_y_pred=False)]
    model.compile("adam", "categorical_crossentropy", metrics=[*asked[:2], "auc"])
    history = model.fit(REAL, ONE_HOT, epochs=2, verbose=2, validation_split=0.2).history
    assert np.shape(history["f1_score"]) == (2, 3)
    assert np.shape(history["val_recall"]) == (2, 2)
    assert "f1_score: [0." in capsys.readouterr().out
    results = model.evaluate(REAL, ONE_HOT, return_dict=True, verbose=1)
    expected = metrics.F1Score()(ONE_HOT, model.predict(REAL))
    np.testing.assert_allclose(results["f1_score"], expected)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=asked[2:])
    expected = metrics.MeanIoU(3)(LABELS, model.predict(REAL).argmax(axis=1))
    assert model.evaluate(REAL, LABELS)[1] == pytest.approx(expected)


def test_functions_as_metrics():
    seen = []

    def shapes(y_true, y_pred):
        seen.append((y_true.shape, y_pred.shape))
        return np.zeros(len(y_pred))

    def rows(y_true, y_pred):
        return (y_pred.argmax(axis=-1) == y_true).astype(float)

    def whole(y_true, y_pred):
        return 3.0

    x, y = REAL.reshape(8, 5, 3), LABELS.reshape(8, 5)
    model = Sequential([layers.Activation("softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[shapes, rows, whole, "acc"])
    _, zero, share, three, accuracy = model.evaluate(x, y, batch_size=4)
    assert (zero, three) == (0, 3)
    assert share == pytest.approx(accuracy)
    assert seen == [((4, 5), (4, 5, 3))] * 2
    w = WEIGHTS.reshape(8, 5)
    model.compile("sgd", "sparse_categorical_crossentropy", weighted_metrics=[rows, "acc"])
    _, share, accuracy = model.evaluate(x, y, sample_weight=w)
    assert share == pytest.approx(accuracy)
    pointless = metrics.MeanMetricWrapper(lambda t, y: np.zeros((2, 7)), name="pointless")
    with pytest.raises(ValueError, match=r"pointless to return an array of \(8, 5\)"):
        pointless(y, x)

    def change(y_true, y_pred):
        y_pred[:] = 0

    with pytest.raises(ValueError, match="read-only"):
        metrics.MeanMetricWrapper(change)(y, x)
    scaled = metrics.MeanMetricWrapper(lambda t, y, scale: scale * y.mean(axis=-1), scale=2)
    assert scaled(REAL, SCORES) == pytest.approx(2 * SCORES.mean(), rel=1e-6)


def test_means_and_sums():
    mean, total = metrics.Mean(), metrics.Sum()
    assert mean.result() == total.result() == 0
    for metric in (mean, total):
        metric.update_state([1, 3, 5])
        metric.update_state(7, sample_weight=2)
    assert mean.result() == pytest.approx(23 / 5)
    assert total([[1, 1], [2, 2]], sample_weight=[1, 0]) == 25
    total.reset_state()
    assert total.result() == 0


def test_metrics_can_be_copied():
    metric = metrics.AUC(curve="pr")
    metric.update_state(MANY, SCORES)
    copy = pickle.loads(pickle.dumps(metric))
    assert copy.result() == metric.result()
    assert metrics.AUC.from_config(metric.get_config())(MANY, SCORES) == metric.result()
