"""Random numbers: one seed decides initial weights, shuffling and every random kernel.

Both kinds of numbers are counter-based (Philox, Salmon et al. 2011, "Parallel Random Numbers: As
Easy as 1, 2, 3"). What the host decides is drawn from NumPy's Philox, through ``generator``;
what a kernel draws comes from Philox4x32-10 in ``kernels/dropout.py``, the same numbers on every
device and for any number of threads.
"""

import itertools
import random
from typing import Any

import numpy as np

_seed: int | None = None  # what set_random_seed was given
_calls = itertools.count()  # streams drawn from it so far


def set_random_seed(seed: int) -> None:
    """Make everything that follows reproducible.

    Seeds Python's ``random``, NumPy's global generator and the models made from now on: those
    without a `seed` of their own differ from each other, but are the same in every run.

    Parameters
    ----------
    seed : int
        From 0 to 2**32 - 1, the range of NumPy's global generator.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> from minicnnrnn.random import generator, set_random_seed
    >>> set_random_seed(0)
    >>> first = generator(None, "weights").random(3)
    >>> set_random_seed(0)
    >>> bool((generator(None, "weights").random(3) == first).all())
    True
    """
    global _seed, _calls
    seed = _check(seed, 2**32 - 1)
    random.seed(seed)
    np.random.seed(seed)
    _seed, _calls = seed, itertools.count()


def generator(seed: int | None, stream: str) -> np.random.Generator:
    """A generator for decisions on the host.

    Parameters
    ----------
    seed : int or None
        A non-negative integer. ``None`` takes the next numbers that follow from
        ``set_random_seed``, or fresh entropy where that was never called.
    stream : str
        What the numbers are for; different streams of one seed are independent.

    Returns
    -------
    numpy.random.Generator

    Examples
    --------
    >>> int(generator(0, "shuffle").integers(100)) == int(generator(0, "shuffle").integers(100))
    True
    """
    key = tuple(stream.encode())
    if seed is not None:
        sequence = np.random.SeedSequence(_check(seed), spawn_key=(0, *key))
    elif _seed is not None:
        sequence = np.random.SeedSequence(_seed, spawn_key=(1, next(_calls), *key))
    else:
        sequence = np.random.SeedSequence()
    return np.random.Generator(np.random.Philox(sequence))


def _check(seed: Any, highest: int | None = None) -> int:
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not whole or seed < 0 or (highest is not None and seed > highest):
        bounds = "a non-negative integer" if highest is None else f"an integer from 0 to {highest}"
        raise ValueError(f"seed: Expected {bounds}. Received: {seed!r}")
    return int(seed)
