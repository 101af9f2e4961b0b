"""The IDX files that MNIST is published in, and where they lie."""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# In an installed package the files lie beside this one, in a checkout at the top.
PACKAGED = Path(__file__).parent / "files"
CHECKOUT = Path(__file__).parents[2] / "datasets"


def read(name: str) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    The header is two zero bytes, the type (8 for unsigned bytes), the number of axes, and the
    length of each axis as a big-endian integer of 32 bits.

    Parameters
    ----------
    name : str
        Path below the folder of data sets, e.g. ``"mnist/t10k-labels-idx1-ubyte.gz"``.

    Returns
    -------
    uint8 array

    Raises
    ------
    FileNotFoundError
        If the data sets were not installed.
    ValueError
        If the file is damaged.
    """
    folder = PACKAGED if PACKAGED.is_dir() else CHECKOUT
    content = bytearray(gzip.decompress((folder / name).read_bytes()))
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, 4).tolist()
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if content[:3] != b"\0\0\x08" or values.size != np.prod(shape):
        raise ValueError(f"{name}: Expected an IDX file of unsigned bytes. Received a damaged one.")
    return values.reshape(shape)
