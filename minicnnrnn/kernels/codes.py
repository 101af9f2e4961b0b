"""The integers by which layers, losses and metrics tell kernels what they mean.

Apart from the kernels, so that a layer can name them before anything of Numba is loaded.
"""

# A long sum is cut this many ways, whatever the number of threads.
PARTS = 16

# --- activations -----------------------------------------------------------------------

LINEAR, RELU, LEAKY_RELU, ELU, SELU, GELU, GELU_TANH = 0, 1, 2, 3, 4, 5, 6
SILU, SOFTPLUS, TANH, SIGMOID, HARD_SIGMOID = 7, 8, 9, 10, 11
RELU6, HARD_TANH, SPARSE_SIGMOID, HARD_SILU, SOFT_SHRINK, HARD_SHRINK = 12, 13, 14, 15, 16, 17
EXPONENTIAL, SOFTSIGN, LOG_SIGMOID, MISH, TANH_SHRINK = 18, 19, 20, 21, 22
SQUAREPLUS, SPARSE_PLUS = 23, 24

# The derivative of these follows from the output alone; that of the others needs the input.
FROM_OUTPUT = (
    LINEAR, RELU, LEAKY_RELU, ELU, SELU, SOFTPLUS, TANH, SIGMOID, HARD_SIGMOID, RELU6, HARD_TANH,
    SPARSE_SIGMOID, SOFT_SHRINK, HARD_SHRINK, EXPONENTIAL, SOFTSIGN, LOG_SIGMOID,
)  # fmt: skip

# --- merging, of branches and of directions --------------------------------------------

ADD, MULTIPLY, MAXIMUM, AVERAGE, CONCAT = range(5)

# How the axes of a batch of sequences turn.
AS_IT_IS, FROM_SAMPLES, FROM_STEPS = 0, 1, 2

# --- what a translation finds outside the image ------------------------------------------

REFLECT, WRAP, CONSTANT, NEAREST = 0, 1, 2, 3

# --- losses ----------------------------------------------------------------------------

SQUARED, ABSOLUTE, HUBER, PERCENTAGE, LOGARITHMIC, LOG_COSH, POISSON = range(7)

# y holds probabilities; or logits; or probabilities that softmax or sigmoid made, and `dy` is
# wanted with respect to its logits: the derivative of the activation is skipped.
PROBABILITIES, LOGITS, FUSED = 0, 1, 2

IGNORE_NONE = -(2**31)  # a label that no row has

# What becomes of the losses of all rows.
SUM, MEAN, WEIGHTED_MEAN = range(3)

# --- metrics ---------------------------------------------------------------------------

# Which outputs of a row may count as positive: all; or those equal to the largest one, unless it
# is zero. A number k above zero: the k largest, of equals the first.
ALL, LARGEST = 0, -1
# What the outputs of a row are: scores, of which the largest is the answer; answers, each to be
# compared with its target; or each yes where it is not below a threshold.
SCORES, CLASSES, BINARY = 0, 1, 2

# --- clipping of gradients ---------------------------------------------------------------

VALUE, NORM, GLOBAL_NORM = range(3)
