"""Training: fit - the loop around forward, backward and update."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minicnnrnn import callbacks as callbacks_module
from minicnnrnn import changes, data
from minicnnrnn.ahead import compile_beside
from minicnnrnn.callbacks import Callback, CallbackList, EpochLines, History, ProgressBar
from minicnnrnn.evaluation import Evaluation, check_integer, numbers, verbosity
from minicnnrnn.optimizers import Optimizer
from minicnnrnn.recorded import RecordedSteps, count_up
from minicnnrnn.resident import ResidentBatch


class Training(Evaluation):
    """What makes a model that can be fitted."""

    history: History | None = None
    stop_training = False

    # --- one step ------------------------------------------------------------------

    def _train_step(self, batch: Any) -> None:
        """Load a batch, and take one step: eagerly, or by replaying a step that was recorded.

        A GPU is busy with the kernels of a step for longer than replaying costs the host: the
        host is ahead of it after a few steps and stays so. To record several steps at once would
        save nothing that is waited for.
        """
        resident = isinstance(batch, ResidentBatch)
        loaded = None if resident else self._load(batch)
        kind: Any = batch.kind if resident else self._kind(loaded)
        steps = self._recordings(training=True)
        recording = False if steps is None else steps.find(kind)
        if steps is not None and recording is not False and recording is not ...:
            self._replay(recording, steps, kind, batch, loaded)
        else:
            self._copy_lent()
            step = functools.partial(self._compute, batch, loaded, self.update)
            compile_beside(self.device, step)
            step() if steps is None or recording is False else steps.run_first(kind, step)
        self._samples += kind[1]

    def _replay(
        self, recording: Any, steps: RecordedSteps, kind: Any, batch: Any, loaded: Any
    ) -> None:
        """Replay a step; record it before, if that has not been done."""
        assert self.context is not None
        assert self.optimizer is not None
        self.optimizer.begin(self.context.parameters)
        if recording is not None:
            recording.replay(*(self._take_lent() if self._lent else ()))
            self.context.updates += 1
            self.optimizer.count(self.context.parameters)
            return
        self._copy_lent()
        recording = self._record(steps, kind, lambda: self._compute(batch, loaded, self._step))
        if recording is False:
            self._compute(batch, loaded, self.update)
        else:
            recording.replay()

    def _compute(self, batch: Any, loaded: Any, update: Callable[..., None]) -> None:
        """Gather a batch of resident data, go forward and back, update the weights."""
        assert self.loss is not None
        x, w = self._gather(batch) if loaded is None else loaded
        y, t, weights = self._forward_and_measure(x, w, True)
        activation = self.last_activation()
        fused = (
            activation is not None
            and activation.layer.activity_regularizer is None
            and self.loss.fuses(activation.name)
        )
        dy = self.buffer("dy", *y.shape)
        rows = (-1, y.shape[-1]) if self.loss.by_row else y.shape
        self.loss.gradient(self.kernels, dy.reshape(rows), y.reshape(rows), t, weights, fused)
        if activation is not None:
            activation.fused = fused
        try:
            self.backward(dy)
        finally:
            if activation is not None:
                activation.fused = False
        update()

    def _recordings(self, training: bool) -> RecordedSteps | None:
        own = type(self).update, getattr(type(self.optimizer), "update", None)
        if training and own != (Training.update, Optimizer.update):
            return None  # nobody knows what another one does
        return super()._recordings(training)

    def _record(self, steps: RecordedSteps, kind: Any, work: Callable[[], None]) -> Any:
        """Record a step. Host and GPU are as if it had not run, if that fails; else replay it."""
        context, optimizer = self.context, self.optimizer
        assert context is not None
        assert optimizer is not None
        context.parameters.changed()  # whatever was packed before: each step packs its weights
        before, recording = (optimizer.iterations, context.updates), False
        try:
            recording = steps.record(kind, work, self._parts(), lambda: optimizer.written)
        finally:
            if recording is False:
                optimizer._iterations, context.updates = before
                context.parameters.changed()  # what layers took for packed is not
        return recording

    def update(self) -> None:
        """Let the optimizer take one step along the gradients of the last ``backward``.

        The gradients of the weights' penalties are added before, constraints hold after it.
        """
        if self.optimizer is None:
            raise ValueError("Expected a compiled model. Received: update() before compile().")
        self.optimizer.claim(self)
        self._step(self.optimizer.update)

    def _step(self, step: Any = None) -> None:
        """Do what ``update`` does, after ``begin`` of the optimizer unless told otherwise."""
        assert self.context is not None
        assert self.optimizer is not None
        parameters, weights = self.context.parameters, self.weights
        parameters.regularize(weights)
        (step or self.optimizer.step)(parameters, weights)
        parameters.constrain(weights)
        count_up(self.context.random_state, 1)
        self.context.updates += 1

    def restore_weights(self, weights: Sequence[Any]) -> None:
        """Bring back what ``get_weights`` gave, whatever its values."""
        context = self.model_context()
        with context.lock:
            for weight, array in zip(self.weights, weights, strict=True):
                weight.value[...] = array
            context.parameters.changed()

    # --- fit -----------------------------------------------------------------------

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
    ) -> History:
        """Train the model.

        A model that was never compiled gets Adam and the loss that its last activation and the
        targets imply: softmax and integer labels, sparse categorical cross-entropy; softmax and
        one-hot, categorical; sigmoid and {0, 1}, binary; linear and floats, mean squared error.

        Parameters
        ----------
        x : array-like, generator or iterable
            Samples; or batches ``(x, y[, sample_weight])``, as many times as needed.
        y : array-like, optional
            Targets; whole floats are labels, and (N,) equals (N, 1).
        batch_size : int, optional
            32 if left out.
        epochs : int
            Passes over the data, counting from `initial_epoch`.
        verbose : {"auto", 0, 1, 2}
            Silent, a progress bar ("auto"), or a line an epoch.
        callbacks : list of Callback, optional
        validation_split : float
            Share of the samples, from the end, that is set apart.
        validation_data : tuple (x, y[, sample_weight]) or iterable of batches, optional
        shuffle : bool
            Whether samples come in a new order in every epoch.
        class_weight : dict, optional
            Factors on the samples of a label.
        sample_weight : array-like, optional
            (N,), or (N, T) for outputs with time steps.
        initial_epoch : int
        steps_per_epoch, validation_steps : int, optional
            Batches an epoch; needed for endless generators.
        validation_batch_size : int, optional
        validation_freq : int
            Validate after every so many epochs.

        Returns
        -------
        History

        Raises
        ------
        ValueError, TypeError
            Before anything has changed, or for streamed data before that batch's step.
        """
        level = verbosity(verbose, 1)
        for name, count in (("epochs", epochs), ("initial_epoch", initial_epoch)):
            check_integer(name, count, 0)
        optional = {
            "steps_per_epoch": steps_per_epoch,
            "validation_steps": validation_steps,
            "validation_batch_size": validation_batch_size,
        }
        for name, given in optional.items():
            if given is not None:
                check_integer(name, given, 1)
        check_integer("validation_freq", validation_freq, 1)
        listed = callbacks_module.check(callbacks)
        with self.model_context().lock, self.all_or_nothing():
            source = data.source(x, y, sample_weight, batch_size, class_weight)
            validation: data.Source | None = None
            if validation_data is not None:
                held = _unpack(validation_data)
                validation = data.source(*held, validation_batch_size or batch_size)
            elif validation_split:
                source, validation = data.split(source, validation_split, validation_batch_size)
            self._ready(source, True, level)
            if validation is not None:
                self._ready(validation, False, 0)
                self._load(validation.peek())
                self._take_lent()  # a look was all: none of it is kept
            steps = steps_per_epoch or source.batches
            source, validation = self.resident(source), validation and self.resident(validation)
            history = History()
            params = {"epochs": epochs, "steps": steps, "verbose": level}
            shown: list[list[Callback]] = [[], [ProgressBar()], [EpochLines()]]
            told = CallbackList([*listed, *shown[level], history], self, params)
            self.history, self.stop_training = history, False
            logs: dict[str, float] = {}
            try:
                told.call("on_train_begin", {})
                for epoch in range(initial_epoch, epochs):
                    told.call("on_epoch_begin", epoch, {})
                    logs = self._epoch(source, shuffle, steps_per_epoch, told)
                    if validation is not None and (epoch + 1) % validation_freq == 0:
                        measured = self._measure(validation, validation_steps, told)
                        logs |= {f"val_{key}": value for key, value in measured.items()}
                    told.call("on_epoch_end", epoch, logs)
                    if self.stop_training:
                        break
                told.call("on_train_end", logs)
            finally:
                told.close()
                for steps in self._recorded or ():
                    steps.forget(source)
        return history

    def _epoch(
        self, source: data.Source, shuffle: bool, steps: int | None, told: CallbackList
    ) -> dict[str, Any]:
        assert self.context is not None
        begins, ends = (told.listens(f"on_train_batch_{when}") for when in ("begin", "end"))
        self._reset_totals()
        for step, batch in enumerate(
            source.epoch(self.context.shuffle_rng if shuffle else None, steps)
        ):
            if begins:
                told.call("on_train_batch_begin", step, {})
            self._train_step(batch)
            told.call("on_train_batch_end", step, self.read_logs() if ends else {})
            if self.stop_training:
                break
        return self.read_logs()

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One train step on one batch.

        Parameters
        ----------
        x, y, sample_weight, class_weight : as in ``fit``
        return_dict : bool
            Return a dict instead of numbers.

        Returns
        -------
        float, list of float, or dict
            Loss and metrics of this batch, before the update.
        """
        return self._on_batch(x, y, sample_weight, class_weight, True, return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Loss and metrics of one batch; parameters as in ``train_on_batch``."""
        return self._on_batch(x, y, sample_weight, None, False, return_dict)

    def _on_batch(
        self, x: Any, y: Any, w: Any, class_weight: Any, training: bool, return_dict: bool
    ) -> Any:
        with self.model_context().lock, self.all_or_nothing():
            source = data.source(x, y, w, 2**31 - 1, class_weight)
            batch = source.peek()
            kind = training, batch.x.shape, None if batch.y is None else batch.y.shape
            if self._settled != (changes.latest(), kind):
                self._ready(source, training, 0)
                self._settled = changes.latest(), kind
            self._reset_totals()
            (self._train_step if training else self._test_step)(batch)
            return numbers(self.read_logs(), return_dict)


def _unpack(validation_data: Any) -> tuple[Any, Any, Any]:
    """x, y and sample weights; a stream has the last two in its batches."""
    if isinstance(validation_data, tuple):
        if not 2 <= len(validation_data) <= 3:
            raise ValueError(
                "validation_data: Expected (x, y) or (x, y, sample_weight). "
                f"Received: {len(validation_data)} parts"
            )
        x, y, *w = validation_data
        return x, y, w[0] if w else None
    return validation_data, None, None
