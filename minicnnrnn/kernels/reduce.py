"""Sums over the threads of a block, in a fixed order: a GPU's building block for reductions."""

import numpy as np

from minicnnrnn.kernels.gpu import THREADS, cuda, gpu


@gpu
def block_sum(value):
    """The sum of one float32 from every thread of a block of THREADS; all threads get it.

    Halves are added to halves: log2 THREADS steps, the same order at every call.
    """
    sums = cuda.shared.array(THREADS, np.float32)
    t = cuda.threadIdx.x
    cuda.syncthreads()  # somebody may still read the last sum
    sums[t] = value
    cuda.syncthreads()
    half = THREADS // 2
    while half > 0:
        if t < half:
            sums[t] += sums[t + half]
        cuda.syncthreads()
        half //= 2
    return sums[0]


@gpu
def block_sum_wide(value):
    """As ``block_sum``, for float64."""
    sums = cuda.shared.array(THREADS, np.float64)
    t = cuda.threadIdx.x
    cuda.syncthreads()
    sums[t] = value
    cuda.syncthreads()
    half = THREADS // 2
    while half > 0:
        if t < half:
            sums[t] += sums[t + half]
        cuda.syncthreads()
        half //= 2
    return sums[0]


@gpu
def block_max(value):
    """The largest of one float32 from every thread of a block; a NaN is larger than any."""
    largest = cuda.shared.array(THREADS, np.float32)
    t = cuda.threadIdx.x
    cuda.syncthreads()
    largest[t] = value
    cuda.syncthreads()
    half = THREADS // 2
    while half > 0:
        if t < half and not largest[t + half] <= largest[t] and largest[t] == largest[t]:
            largest[t] = largest[t + half]
        cuda.syncthreads()
        half //= 2
    return largest[0]
