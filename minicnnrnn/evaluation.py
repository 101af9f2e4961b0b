"""Evaluation: compile, evaluate, predict - what needs forward alone."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minicnnrnn import callbacks as callbacks_module
from minicnnrnn import changes, data, losses, metrics, optimizers
from minicnnrnn.arrays import copy_batch
from minicnnrnn.callbacks import CallbackList
from minicnnrnn.device import Buffer
from minicnnrnn.layers.container import Chain
from minicnnrnn.layers.context import Context
from minicnnrnn.recorded import Replaying
from minicnnrnn.resident import Resident, ResidentBatch
from minicnnrnn.saving.model import Saved
from minicnnrnn.shapes import is_integer
from minicnnrnn.targets import Targets, check_labels, check_weight, infer_loss


class Evaluation(Replaying, Saved, Chain):
    """What makes layers a model that can be compiled, evaluated and asked."""

    optimizer: optimizers.Optimizer | None = None
    loss: losses.Loss | None = None
    _asked: tuple[list[metrics.Metric], list[metrics.Metric]] = ([], [])
    _given: Any = None  # what `compile` was given for loss and metrics
    _resolved: list[tuple[metrics.Metric, bool]] | None = None  # (metric, by sample weight)
    _targets: Targets | None = None
    _totals: Any = None  # what loss and metrics have added up so far, each an array on the device
    _samples = 0
    _settled: Any = None  # the last kind of batch that ``_ready`` has seen on its own

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: all but what a batch has left, and recorded steps."""
        left = {"_targets": None, "_recorded": None, "_settled": None, "_lent": ()}
        return super().__getstate__() | left

    # --- compiling -----------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Choose optimizer, loss and metrics.

        Parameters
        ----------
        optimizer : str or Optimizer
        loss : str or Loss, optional
            Left out, it follows from the last activation and the targets (see ``fit``).
        loss_weights : None
            Not supported: there is one output.
        metrics, weighted_metrics : list of str or Metric, optional
            The weighted ones count rows by their sample weights.
        run_eagerly : bool
            Go through the Python of every layer in every step, as a debugger wants it. Left
            ``False``, the second step of a kind is noted and replayed for all that follow.
        steps_per_execution, jit_compile, auto_scale_loss : ignored
            Nothing here depends on them.

        Raises
        ------
        ValueError
            For unknown names; the model is as it was then.
        """
        self.refuse(loss_weights=loss_weights)
        chosen = optimizers.get(optimizer)
        chosen_loss = None if loss is None else losses.get(loss)
        plain, weighted = self._metric_list(metrics), self._metric_list(weighted_metrics)
        names = [metric.name for metric in plain + weighted]
        if len(set(names)) < len(names) or "loss" in names:
            raise ValueError(f"metrics: Expected different names. Received: {names}")
        changes.note()
        self.optimizer, self.loss, self.run_eagerly = chosen, chosen_loss, bool(run_eagerly)
        self._asked = (plain, weighted)
        self._given = {"loss": loss, "metrics": metrics, "weighted_metrics": weighted_metrics}
        self._resolved = None

    @staticmethod
    def _metric_list(given: Any) -> list[metrics.Metric]:
        if given is None:
            return []
        listed = given if isinstance(given, list | tuple) else [given]
        return [metrics.get(identifier) for identifier in listed]

    @property
    def metrics_names(self) -> list[str]:
        """The key of the loss and those of the metrics."""
        return ["loss", *(metric.name for metric in self.compiled_metrics())]

    def compiled_metrics(self) -> list[metrics.Metric]:
        """The metrics that were asked for."""
        return [*self._asked[0], *self._asked[1]]

    def _ready(self, source: data.Source, training: bool, verbose: int) -> None:
        """Build, allocate and settle loss and metrics, from a first look at the data."""
        batch = source.peek()
        outputs = self._fitting(source, batch)
        if self.loss is None:
            whole = source.y if isinstance(source, data.ArraySource) else batch.y
            self._infer(whole, outputs, verbose)
        assert self.loss is not None
        if batch.y is None:
            raise ValueError("Expected targets y. Received: none.")
        if self._resolved is None:
            self._resolve(outputs[-1], self.loss.sparse or batch.y.shape != outputs)
        assert self._resolved is not None
        self.allocate()
        if training:
            assert self.context is not None
            assert self.optimizer is not None
            self.optimizer.claim(self)
            self.context.parameters.allocate_gradients()
        if self._targets is None or self._targets.device is not self.device:
            changes.note()
            self._targets = Targets(self.device)
        sizes = [2, *(metric.size for metric, _ in self._resolved)]
        if self._totals is None or [len(total) for total in self._totals] != sizes:
            changes.note()
            self._totals = [self.device.zeros((size,), np.float64) for size in sizes]
        if isinstance(source, data.ArraySource) and (True in self._kinds() or not self.loss.by_row):
            # Raise now what a later batch would raise; but not for NaN, which would take a pass.
            everything = source.gather(slice(0, source.samples))
            if self.loss.by_row:
                ignore = getattr(self.loss, "ignore_class", None)
                check_labels(everything.y, outputs[-1], ignore, everything.positions)
            else:
                self._targets.load_sequences(everything.y, outputs, everything.positions)
        if isinstance(source, data.ArraySource) and self.input_dtype != "float32":
            for start in range(0, source.samples, source.batch_size):
                stop = min(start + source.batch_size, source.samples)
                self._load_input(source.gather(slice(start, stop)))

    def _fitting(self, source: data.Source, batch: data.Batch) -> tuple[int, ...]:
        """The output's shape for this batch, once it and the last, shorter one are known to fit."""
        shape = self._batch_shape(batch.x)
        outputs = self.output_shape_of(shape)
        if isinstance(source, data.ArraySource) and (rest := source.samples % source.batch_size):
            self.output_shape_of((rest, *shape[1:]))
        return outputs

    def _resolve(self, outputs: int, labels: bool) -> None:
        """Settle which accuracy is meant, and how many totals metrics need."""
        plain, weighted = (
            [metric.resolve(outputs, labels) for metric in group] for group in self._asked
        )
        self._resolved = [(m, False) for m in plain] + [(m, True) for m in weighted]

    def _kinds(self) -> set[bool]:
        """The kinds of targets that loss and metrics want: labels (True), numbers (False)."""
        assert self.loss
        assert self._resolved is not None
        rows = [metric for metric, _ in self._resolved if self.loss.by_row or not metric.shaped]
        kinds = {metric.sparse for metric in rows}
        return kinds | {self.loss.sparse} if self.loss.by_row else kinds

    def _targets_for(self, metric: metrics.Metric) -> Any:
        """The targets that a metric wants of those that are loaded."""
        assert self.loss
        assert self._targets
        if metric.shaped and not self.loss.by_row:
            return self._targets.sequences
        return self._targets.labels if metric.sparse else self._targets.numbers

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Bad input on a first use leaves no trace: what it built or inferred is undone."""
        assert self.context is not None
        context, built = self.context, self.built
        before = self.optimizer, self.loss, self._asked, self._given, self._resolved
        fresh, updates = [] if built else self.unbuilt(), context.updates
        try:
            yield
        except (ValueError, TypeError):
            if context.updates == updates:
                changes.note()
                self.optimizer, self.loss, self._asked, self._given, self._resolved = before
                if not built:
                    self.forget(fresh)
            raise

    def _infer(self, y: Any, outputs: tuple[int, ...], verbose: int) -> None:
        activation = self.last_activation()
        loss, metric = infer_loss(activation.name if activation else None, y, len(outputs))
        if self.optimizer is None:
            self.compile("adam", loss, metrics=[metric])
            if verbose:
                print(f"Not compiled, so: Adam, {loss}, {metric}.")
        else:
            self.loss, self._given = losses.get(loss), self._given | {"loss": loss}
            if verbose:
                print(f"Compiled without a loss, so: {loss}.")

    # --- one batch -----------------------------------------------------------------

    def _batch_shape(self, x: Any) -> tuple[int, ...]:
        """The shape of a batch; samples that are numbers become samples of one feature."""
        if len(x) == 0:
            raise ValueError("Expected at least one sample. Received an empty batch.")
        return (len(x), 1) if x.ndim == 1 else tuple(x.shape)

    def _load_input(self, batch: data.Batch) -> Any:
        shape = self._batch_shape(batch.x)
        self.output_shape_of(shape)
        x = self.buffer(f"{self.input_dtype} input", *shape, dtype=self.input_dtype)
        rows = batch.x.reshape(shape)
        self._lent = (x, rows) if self.device.reads_in_place(x, rows) else ()
        if self._lent or self.device.copy_finite(x, rows):
            self.check_batch(rows)
        else:
            with self.device.writing(x) as host:
                copy_batch(host, rows, batch.positions)
                self.check_batch(host)
        self.trust_batch(x)
        return x

    def _load(self, batch: data.Batch) -> tuple[Any, Any]:
        """Check and copy all of a batch: nothing is computed before this has succeeded."""
        assert self.loss
        assert self._targets
        assert self._resolved is not None
        if isinstance(batch, ResidentBatch):
            return self._gather(batch)
        outputs = self.output_shape_of(self._batch_shape(batch.x))
        weighed = outputs if self.loss.by_row else (outputs[0], 1)
        w = check_weight(batch.w, weighed, batch.positions)
        self._load_targets(self._targets, batch, outputs)
        return self._load_input(batch), self._targets.place(w)

    def _load_targets(self, targets: Targets, batch: data.Batch, outputs: tuple[int, ...]) -> None:
        assert self.loss
        wanted = self._kinds()
        ignore = getattr(self.loss, "ignore_class", None)
        targets.load(batch.y, outputs, True in wanted, False in wanted, ignore, batch.positions)
        if not self.loss.by_row:
            targets.load_sequences(batch.y, outputs, batch.positions)

    def resident(self, source: Any) -> Any:
        """The data in the device's own memory, if it has one and the data are arrays that fit."""
        assert self.loss
        if not isinstance(source, data.ArraySource) or not self.device.free_memory():
            return source
        inputs = self._batch_shape(source.peek().x)
        outputs = self.output_shape_of(inputs)
        if not Resident.fits(source, self.device, outputs[1:]):
            return source
        weighed = outputs[1:] if self.loss.by_row else (1,)
        return Resident(
            source,
            self.device,
            (inputs[1:], outputs[1:], weighed),
            self.input_dtype,
            self._load_targets,
        )

    def _gather(self, batch: ResidentBatch) -> tuple[Any, Any]:
        """A batch of resident data, which was checked when it was copied to the device."""
        assert self._targets
        x = self.buffer(f"{self.input_dtype} input", *batch.inputs, dtype=self.input_dtype)
        batch.fill("x", x)
        self.trust_batch(x)
        self._targets.gather(batch, self.output_shape_of(batch.inputs)[-1])
        return x, batch.gather("w", self._sample_weights())

    def _sample_weights(self) -> Buffer:
        return self._buffers.setdefault("sample weights", Buffer(self.device))

    def _forward_and_measure(self, x: Any, w: Any, training: bool) -> tuple[Any, Any, Any]:
        """Forward, then add loss and metrics to the totals: (output rows, targets, weights)."""
        assert self.loss
        assert self._targets
        assert self._resolved is not None
        assert self.context is not None
        kernels = self.kernels
        self.context.forget_penalty()
        y, mask = self.run_forward(x, None, training)
        self.context.parameters.add_penalties(self.context, self.weights)
        rows = y.reshape(-1, y.shape[-1])
        gradient, reported, plain, weighted = self._targets.weights(w, mask, y.shape, self.loss)
        t = self._targets.labels if self.loss.sparse else self._targets.numbers
        t = t if self.loss.by_row else self._targets.sequences
        t = self.loss.targets(kernels, t, y, mask, self.buffer)
        values = self.buffer("values", len(reported))
        self.loss.value(kernels, values, rows if self.loss.by_row else y, t)
        kernels.weighted_sum(self._totals[0], values, reported)
        if self.context.penalized:
            kernels.penalty_total(self._totals[0], self.context.penalty, len(x))
        values = self.buffer("values", len(rows))
        for i, (metric, by_sample) in enumerate(self._resolved, 1):
            target, weights = self._targets_for(metric), weighted if by_sample else plain
            if metric.shaped:
                whole = y.shape[:-1] if metric.sparse else y.shape
                target = target.reshape(whole) if self.loss.by_row else target
                metric.update(kernels, self._totals[i], values, y, target, weights)
            else:
                metric.update(kernels, self._totals[i], values, rows, target, weights)
        return y, t, gradient

    def _test_step(self, batch: data.Batch) -> None:
        x, w = loaded = self._load(batch)
        kind = ("test", *self._kind(loaded))
        self._run_pass(kind, lambda: self._forward_and_measure(x, w, False))
        self._samples += len(x)

    def packed(self) -> tuple[int, int]:
        """What is another one when the weights that layers have packed are others."""
        assert self.context is not None
        return self.context.parameters.version, self.context.packings

    def _predict_batch(self, batch: data.Batch) -> Any:
        """A copy of the output for a batch."""
        x = self._load_input(batch)
        return np.array(self._run_pass(x.shape, lambda: self.forward(x, None, False)[0]))

    def _reset_totals(self) -> None:
        self._samples = 0
        for total in self._totals:
            total[:] = 0

    def read_logs(self) -> dict[str, Any]:
        """Loss and metrics so far in this epoch or evaluation; a metric of several is an array."""
        assert self._resolved is not None
        loss, *totals = (np.asarray(total) for total in self._totals)
        results = [float(loss[0]) / self._samples if self._samples else math.nan]
        if totals:
            with np.errstate(invalid="ignore", divide="ignore"):
                results += [m.result(t) for (m, _), t in zip(self._resolved, totals, strict=True)]
        return dict(zip(self.metrics_names, results, strict=True))

    def _measure(
        self, source: data.Source, steps: int | None, told: CallbackList
    ) -> dict[str, Any]:
        told.call("on_test_begin", {})
        listens = told.listens("on_test_batch_begin") or told.listens("on_test_batch_end")
        self._reset_totals()
        for step, batch in enumerate(source.epoch(None, steps)):
            if listens:
                told.call("on_test_batch_begin", step, {})
            self._test_step(batch)
            if listens:
                told.call("on_test_batch_end", step, self.read_logs())
        logs = self.read_logs()
        told.call("on_test_end", logs)
        return logs

    # --- evaluate and predict ------------------------------------------------------

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Measure loss and metrics.

        Parameters
        ----------
        x, y, batch_size, sample_weight, callbacks : as in ``fit``
        verbose : {"auto", 0, 1, 2}
            Silent ("auto"), or a line.
        steps : int, optional
            Batches to use.
        return_dict : bool
            Return a dict instead of numbers.

        Returns
        -------
        float, list of float, or dict
            The loss; with metrics, a list that begins with it.
        """
        level = verbosity(verbose, 0)
        if steps is not None:
            check_integer("steps", steps, 1)
        listed = callbacks_module.check(callbacks)
        with self.model_context().lock, self.all_or_nothing():
            source = data.source(x, y, sample_weight, batch_size)
            self._ready(source, False, level)
            told = CallbackList(listed, self, {"steps": steps or source.batches, "verbose": level})
            logs = self._measure(source, steps, told)
        if level:
            print(", ".join(f"{key}: {value:.4g}" for key, value in logs.items()))
        return numbers(logs, return_dict)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """Compute the model's output.

        Parameters
        ----------
        x, batch_size, callbacks : as in ``fit``
        verbose : ignored; predicting is silent
        steps : int, optional
            Batches to use.

        Returns
        -------
        float32 array, one row a sample, never squeezed
        """
        verbosity(verbose, 0)
        if steps is not None:
            check_integer("steps", steps, 1)
        listed = callbacks_module.check(callbacks)
        with self.model_context().lock, self.all_or_nothing():
            source = data.source(x, batch_size=batch_size)
            self._fitting(source, source.peek())
            self.allocate()
            told = CallbackList(listed, self, {"steps": steps or source.batches, "verbose": 0})
            told.call("on_predict_begin", {})
            parts = list(self._predictions(source, steps, told))
            told.call("on_predict_end", {})
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _predictions(
        self, source: data.Source, steps: int | None, told: CallbackList
    ) -> Iterator[Any]:
        for step, batch in enumerate(source.epoch(None, steps)):
            told.call("on_predict_batch_begin", step, {})
            y = self._predict_batch(batch)
            told.call("on_predict_batch_end", step, {"outputs": y})
            yield y

    def predict_on_batch(self, x: Any) -> Any:
        """The model's output for one batch.

        Parameters
        ----------
        x : array-like

        Returns
        -------
        float32 array
        """
        with self.model_context().lock, self.all_or_nothing():
            batch = data.source(x, batch_size=2**31 - 1).peek()
            self.output_shape_of(self._batch_shape(batch.x))
            self.allocate()
            return self._predict_batch(batch)

    # --- what Sequential adds ------------------------------------------------------

    def model_context(self) -> Context:
        """The context of the whole model."""
        raise TypeError("Expected a Sequential. Received: a bare Evaluation.")

    def output_shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The output's shape for a batch of this shape, building the model if need be."""
        raise TypeError("Expected a Sequential. Received: a bare Evaluation.")


def numbers(logs: dict[str, Any], return_dict: bool) -> Any:
    """Loss and metrics as Keras returns them: a dict, a list, or the loss alone."""
    if return_dict:
        return logs
    values = list(logs.values())
    return values[0] if len(values) == 1 else values


def verbosity(verbose: Any, automatic: int) -> int:
    """0, 1 or 2; what "auto" means differs from method to method."""
    if verbose == "auto":
        return automatic
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose: Expected 'auto', 0, 1 or 2. Received: {verbose!r}")
    return int(verbose)


def check_integer(name: str, value: Any, minimum: int) -> None:
    """Raise unless `value` is an integer of at least `minimum`."""
    if not is_integer(value, minimum):
        raise ValueError(f"{name}: Expected an integer of at least {minimum}. Received: {value!r}")
