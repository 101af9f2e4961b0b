"""The kernels, and the contract that all of them keep.

**One file, one operation.** Each file holds, in this order: the mathematics (the NumPy
reference), the CPU version (Numba ``@njit`` through ``jit.cpu``), the CUDA version (numba-cuda's
``@cuda.jit`` through ``gpu.gpu``). The arithmetic of one element is written once: what the CPU's
loops do with numbers, in functions marked ``inner`` or ``cpu``, the GPU's threads call, too.

**One name, one signature.** A public launcher is called::

    <operation>_<pass>_<device>(outputs..., inputs..., integers..., ws) -> None

with ``numpy``, ``cpu`` or ``cuda`` as the device; its parameters have the same names in the same
order on every device. Everything else in a file is private and starts with an underscore.
``device.py`` lists in which file each one is; files are imported when a kernel of theirs is asked
for. Integers that mean something to both layers and kernels have their names in ``codes.py``.

**What a launcher may assume, and what it must not do.**

* Arrays are float32 and C-contiguous, channels last; labels and ids are int32, masks uint8.
  The NumPy reference computes in whatever float type it is given, so that gradients can be
  checked in float64.
* Outputs are overwritten, whatever they held, NaN included. Inputs are never written.
  An input and an output are never the same memory, unless the docstring says so.
* An array that is absent (no bias, no mask) is one of size zero, never ``None``.
* Launchers validate nothing and know nothing of layers: layers validate, kernels trust. They
  allocate nothing either, but for the NumPy reference, which is free to.
* `ws`, where a launcher has one, is float32 scratch of at least
  ``<operation>_<pass>_workspace_<device>(integers...)`` elements, which belongs to the device
  version alone: packed panels, padded copies, partial sums. What it holds is lost between calls,
  except where a ``prepare`` pass filled it for the passes that follow.
* Numbers that change from step to step (learning rate, step, random counter) come in small
  arrays in device memory, so that a recorded step can be replayed.

**Layouts.** Activations are (N, D, H, W, C): operations of one and two spatial dimensions are the
same kernels with leading ones. Convolution weights are (KD, KH, KW, C / G, F). Gates are in Keras'
order: i, f, c, o for the LSTM and z, r, h for the GRU. Inputs and outputs of recurrent kernels are
batch-major (N, T, C); their states and gates are time-major (T, N, U).

**Backward** is split where its halves parallelise over different axes: ``backward_input`` gathers
`dx`, ``backward_weight`` gathers `dw` and `db`. Nothing scatters, no float is added atomically.

**The same bits on any number of threads.** An element of an output is one chain of multiply-adds
in a fixed order, whatever the tile. Reductions cut their range independently of the number of
threads, at most `PARTS` ways, and add the partial sums in order of their index.

Legend
------
====================  =====================================================================
``x y``               input and output of an operation
``w u b``             weights, recurrent weights, bias (Keras: kernel, recurrent_kernel, bias)
``h c``               hidden state and cell state of a recurrent layer
``d…``                the gradient of the loss with respect to …: ``dx dy dw db dh``
``N T``               samples in a batch, time steps
``D H W``             depth, height, width of an image; ``OD OH OW`` those of the output
``C F U``             channels in, filters (channels out), units
``KD KH KW``          extent of the kernel
``SD SH SW``          strides
``LD LH LW``          dilation
``PD PH PW``          padding before the first element (what lies behind the last follows from
                      the output's size)
``G``                 groups
``M K R``             rows, inner sum, outer sum of the building block in ``gemm.py``
``keep``              factors of dropout that all time steps share
``ws``                workspace
====================  =====================================================================
"""
