"""What Keras has and this package leaves out: each name says what to use instead.

``layers.Lambda`` can be imported, and raises when it is called: a script that comes from Keras
stops at the line in question, with an answer.
"""

from collections.abc import Callable
from typing import Any

MERGE = "Use layers.Branches([...], [...], merge={!r}), or layers.Residual for a shortcut"
FUNCTIONAL = "Use Sequential, with layers.Residual and layers.Branches where a chain is not enough"
ATTENTION = "This package is for CNNs and RNNs. Use layers.LSTM or layers.GRU, or Keras itself"
CELL = "Use layers.LSTM, layers.GRU or layers.SimpleRNN, several of them for a stack"
TEXT = "Turn words into ids first (e.g. sklearn.feature_extraction.text), then layers.Embedding"
IMAGES = (
    "Use layers.RandomFlip and layers.RandomTranslation, or change images before they are given "
    "to fit (e.g. by Pillow)"
)
FOREIGN = "Write a Layer with forward and backward"

LAYERS = {
    **dict.fromkeys(("Lambda", "Wrapper", "EinsumDense"), FOREIGN),
    **dict.fromkeys(("JaxLayer", "FlaxLayer", "TFSMLayer", "TorchModuleWrapper"), FOREIGN),
    **dict.fromkeys(("Add", "add"), MERGE.format("add")),
    **dict.fromkeys(("Average", "average"), MERGE.format("average")),
    **dict.fromkeys(("Concatenate", "concatenate"), MERGE.format("concat")),
    **dict.fromkeys(("Maximum", "maximum"), MERGE.format("max")),
    **dict.fromkeys(("Multiply", "multiply"), MERGE.format("mul")),
    **dict.fromkeys(("Dot", "Minimum", "Subtract", "dot", "minimum", "subtract"), FUNCTIONAL),
    **dict.fromkeys(("AdditiveAttention", "Attention", "GroupQueryAttention"), ATTENTION),
    **dict.fromkeys(("MultiHeadAttention", "ReversibleEmbedding"), ATTENTION),
    **dict.fromkeys(("GRUCell", "LSTMCell", "RNN", "SimpleRNNCell", "StackedRNNCells"), CELL),
    **dict.fromkeys(("CategoryEncoding", "Discretization", "HashedCrossing", "Hashing"), TEXT),
    **dict.fromkeys(("IntegerLookup", "StringLookup", "TextVectorization"), TEXT),
    **dict.fromkeys(
        ("AugMix", "AutoContrast", "CenterCrop", "CutMix", "Equalization", "MixUp", "RandAugment",
         "RandomBrightness", "RandomContrast", "RandomCrop", "RandomErasing", "RandomRotation",
         "RandomShear", "RandomZoom", "Resizing", "Solarization"),
        IMAGES,
    ),
    "AlphaDropout": "Use layers.Dropout or layers.GaussianDropout",
    "Identity": "Use layers.Activation('linear')",
    "RMSNormalization": "Use layers.LayerNormalization",
    "SpectralNormalization": "Use a kernel_constraint, such as constraints.MaxNorm",
    "UnitNormalization": "Use layers.LayerNormalization, or normalize before fit",
}  # fmt: skip
CALLBACKS = {
    "BackupAndRestore": "Use ModelCheckpoint, then load_model and fit(initial_epoch=...)",
    "ProgbarLogger": "Use fit(verbose=1)",
    "SwapEMAWeights": "Keep an average in a Callback, by get_weights and set_weights",
    **dict.fromkeys(("OrbaxCheckpoint",), "Use ModelCheckpoint"),
    **dict.fromkeys(("RemoteMonitor", "TensorBoard"), "Use CSVLogger, or the History of fit"),
}
OPTIMIZERS = {
    **dict.fromkeys(("Adadelta", "Adamax", "Ftrl", "Nadam"), "Use Adam, AdamW or RMSprop"),
    **dict.fromkeys(("Adafactor", "Lamb", "Lion", "Muon", "ScheduleFreeAdamW"), "Use AdamW"),
    "LossScaleOptimizer": "Nothing here is float16: use the optimizer itself",
    "MultiOptimizer": "Use one optimizer",
}
LOSS = "Write a Loss with a value and a gradient (see losses.Loss)"
METRIC = "Give metrics a function f(y_true, y_pred) in NumPy"
LOSSES = dict.fromkeys(
    ("CategoricalGeneralizedCrossEntropy", "Circle", "Dice", "Tversky", "circle", "dice",
     "categorical_generalized_cross_entropy", "tversky"),
    LOSS,
)  # fmt: skip
METRICS = dict.fromkeys(
    ("ConcordanceCorrelation", "PearsonCorrelation", "concordance_correlation",
     "pearson_correlation"),
    METRIC,
)  # fmt: skip
MODELS = dict.fromkeys(("Functional", "Model"), FUNCTIONAL)


def stand_in(name: str, advice: str) -> Callable[..., Any]:
    """What is found under a name that is left out: a call of it raises.

    Examples
    --------
    >>> stand_in("Lambda", "Write a Layer with forward and backward")(abs)
    Traceback (most recent call last):
    TypeError: Expected a name of this package. Received: Lambda, which Keras has. Write a Layer \
with forward and backward.
    """

    def raising(*args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"Expected a name of this package. Received: {name}, which Keras has. {advice}."
        )

    raising.__name__ = raising.__qualname__ = name
    raising.__doc__ = f"Left out. {advice}."
    return raising
