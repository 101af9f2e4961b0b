"""Embedding, Masking: where sequences, and the masks of their steps, begin."""

from typing import Any

import numpy as np

from minicnnrnn import shapes
from minicnnrnn.arrays import copy_batch
from minicnnrnn.initializers import Constant
from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.parameters import WeightView
from minicnnrnn.recorded import assign, needs_host


class Embedding(Layer):
    """Turn every id into a vector of its own, which is learnt.

    Parameters
    ----------
    input_dim : int
        Number of ids: they go from 0 to `input_dim` - 1.
    output_dim : int
        Length of the vectors.
    embeddings_initializer : str or Initializer
    embeddings_regularizer : str or Regularizer, optional
    embeddings_constraint : str or Constraint, optional
    mask_zero : bool
        The id 0 is padding: layers behind this one skip its steps. It has a vector too.
    weights : array (input_dim, output_dim), optional
        Initial vectors, in the place of the initializer's.
    input_length : ignored, as in Keras

    Notes
    -----
    Input (batch, ...) of ids, output (batch, ..., output_dim); weight: embeddings (input_dim,
    output_dim). Ids may be whole numbers of any type; an id out of range raises. Behind another
    layer they come as float32, which is exact up to 2**24. Bengio et al. 2003, "A Neural
    Probabilistic Language Model".

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layer = layers.Embedding(3, 2, weights=[[0, 0], [1, 10], [2, 20]])
    >>> layer(np.array([[1, 2, 1]]))
    array([[[ 1., 10.],
            [ 2., 20.],
            [ 1., 10.]]], dtype=float32)
    """

    input_dtype = "int32"
    embeddings = WeightView()

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        lora_rank: Any = None,
        lora_alpha: Any = None,
        quantization_config: Any = None,
        *,
        input_length: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.refuse(
            lora_rank=lora_rank, lora_alpha=lora_alpha, quantization_config=quantization_config
        )
        (self.input_dim,) = shapes.to_tuple(input_dim, 1, "input_dim", self.name)
        (self.output_dim,) = shapes.to_tuple(output_dim, 1, "output_dim", self.name)
        self.embeddings_initializer = self.initializer(embeddings_initializer)
        self.embeddings_regularizer = self.regularizer(embeddings_regularizer)
        self.embeddings_constraint = self.constraint(embeddings_constraint)
        self.mask_zero = self.supports_masking = bool(mask_zero)
        if weights is not None:
            self.embeddings_initializer = self._given(weights)
        self._checked: Any = None  # the ids that `check_batch` has just let pass

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: no memory of a batch."""
        return super().__getstate__() | {"_checked": None}

    def _given(self, weights: Any) -> Constant:
        """Initial vectors, alone or as the one entry of a list, as Keras takes them."""
        wanted = (self.input_dim, self.output_dim)
        values = np.asarray(weights)
        if isinstance(weights, list | tuple) and values.shape == (1, *wanted):
            values = values[0]
        if values.shape != wanted:
            self.fail(f"weights of shape {wanted}", values.shape)
        return Constant(values)

    def check_input(self, input_shape: Shape) -> None:
        """Any axes behind the batch; with `mask_zero` it is the steps alone."""
        if len(input_shape) < 2:
            self.fail("inputs (batch, steps)", input_shape)
        if self.mask_zero and len(input_shape) != 2:
            self.fail("inputs (batch, steps), as mask_zero masks steps", input_shape)

    def build(self, input_shape: Shape) -> None:
        """Declare the table."""
        self.add_weight(
            "embeddings",
            (self.input_dim, self.output_dim),
            self.embeddings_initializer,
            self.embeddings_regularizer,
            self.embeddings_constraint,
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """A vector for every id."""
        return (*input_shape, self.output_dim)

    def check_batch(self, x: Any) -> None:
        """Raise if an id has no vector: kernels trust."""
        if x.min() < 0 or x.max() >= self.input_dim:
            first = tuple(int(axis[0]) for axis in np.nonzero((x < 0) | (x >= self.input_dim)))
            self.fail(
                f"ids from 0 to {self.input_dim - 1} (input_dim={self.input_dim})",
                f"{int(x[first])} in sample {first[0]} of its batch",
            )

    def trust_batch(self, x: Any) -> None:
        """Remember that these ids were checked."""
        self._checked = x

    def _ids(self, x: Any) -> Any:
        """Ids as int32; those of a batch that the model has not shown before are checked."""
        ids = x
        if x.dtype != np.int32 or x is not self._checked:
            needs_host()
        if x.dtype != np.int32:
            ids = self.buffer("ids", *x.shape, dtype=np.int32)
            try:
                with self.device.writing(ids) as host:
                    copy_batch(host, np.asarray(x), name="ids")
            except ValueError as error:
                raise ValueError(f"layer {self.name!r}: {error}") from None
        if ids is not self._checked:
            self.check_batch(np.asarray(ids))
        self._checked = None
        return ids.reshape(-1)

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Look up the vectors; with `mask_zero`, mask the steps of padding."""
        ids = self._ids(x)
        y = self.buffer("y", *x.shape, self.output_dim)
        self.kernels.embedding_forward(y.reshape(-1, self.output_dim), ids, self.weights[0].value)
        self._saved = ids, x.shape
        if not self.mask_zero:
            return y, None
        mask = self.buffer("mask", *x.shape, dtype=np.uint8)
        self.kernels.embedding_mask(mask.reshape(-1), ids)
        return y, mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Gather the table's gradient; ids have none, so zeros go further down."""
        (ids, shape), table = self._saved, self.weights[0]
        if table.trainable:
            ws, _ = self.workspace(self.kernels.embedding_workspace(ids.size, self.input_dim))
            self.kernels.embedding_backward_weight(
                table.gradient, dy.reshape(-1, self.output_dim), ids, ws
            )
        if not input_gradient:
            return None
        dx = self.gradient("dx", *shape)
        assign(dx, 0)
        return dx


class Masking(Layer):
    """Mask the steps that hold nothing but one value, and set them to zero.

    Parameters
    ----------
    mask_value : float

    Notes
    -----
    Input and output (batch, steps, features). Layers behind this one skip the masked steps.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.Masking(mask_value=-1.0)(np.array([[[1.0, -1.0], [-1.0, -1.0]]]))
    array([[[ 1., -1.],
            [ 0.,  0.]]], dtype=float32)
    """

    supports_masking = True

    def __init__(self, mask_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not shapes.is_real(mask_value, -np.inf, np.inf):
            self.fail("mask_value to be a number", repr(mask_value))
        self.mask_value = float(mask_value)

    def check_input(self, input_shape: Shape) -> None:
        """Three axes."""
        if len(input_shape) != 3:
            self.fail("inputs (batch, steps, features)", input_shape)

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """The steps that count, and which they are."""
        rows = (-1, x.shape[-1])
        y = self.buffer("y", *x.shape)
        found = self.buffer("mask", *x.shape[:2], dtype=np.uint8)
        self.kernels.masking_forward(
            y.reshape(rows), found.reshape(-1), x.reshape(rows), self.mask_value
        )
        self._saved = found
        return y, found

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """The gradient of the steps that count."""
        if not input_gradient:
            return None
        rows = (-1, dy.shape[-1])
        dx = self.gradient("dx", *dy.shape)
        self.kernels.masking_backward_input(
            dx.reshape(rows), dy.reshape(rows), self._saved.reshape(-1)
        )
        return dx
