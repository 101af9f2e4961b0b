"""Three architectures on Fashion-MNIST: a ResNet-20, a small VGG and a small Inception.

    python examples/fashion.py              # all three
    python examples/fashion.py resnet20     # one of them

They learn from 10,000 images, each turned around left to right half of the time (and shifted a
little for the deepest), and are asked about 10,000 others. All of them: Adam with a learning rate
that warms up and then falls along a cosine. On 2 cores (AVX2), seed 1:

    resnet20           90.87 %   339 s
    small_vgg          89.78 %   about 255 s
    small_inception    89.70 %   about 385 s

The last two times are those of a train step, times their number: the runs behind the accuracies
shared the machine with others.
"""

import sys
import time

from minicnnrnn import Sequential, datasets, layers
from minicnnrnn.applications import inception, resnet, vgg
from minicnnrnn.optimizers import Adam
from minicnnrnn.optimizers.schedules import CosineDecay

SHAPE, CLASSES, BATCH = (28, 28, 1), 10, 64


def small_vgg():
    return vgg(11, 0.5, SHAPE, CLASSES, batch_normalization=True, name="small_vgg")


def small_inception():
    return inception(SHAPE, CLASSES, 0.25, batch_normalization=True, name="small_inception")


# name: (model, epochs, highest learning rate, shifts as a share of the image)
MODELS = {
    "resnet20": (lambda: resnet(20, SHAPE, CLASSES), 16, 0.004, 0.07),
    "small_vgg": (small_vgg, 15, 0.002, 0.0),
    "small_inception": (small_inception, 20, 0.003, 0.0),
}


def train(name, verbose=1):
    """Train one of the models; its accuracy on the test images, and the seconds it took."""
    make, epochs, rate, shift = MODELS[name]
    (x, y), (x_test, y_test) = datasets.fashion_mnist.load_data()
    x, x_test = (images[..., None] / 255.0 for images in (x, x_test))
    steps = -(-len(x) // BATCH)
    schedule = CosineDecay(0.0, epochs * steps, warmup_target=rate, warmup_steps=steps)
    augmentation = [layers.RandomFlip("horizontal")]
    if shift:
        augmentation.append(layers.RandomTranslation(shift, shift, fill_mode="constant"))
    model = Sequential([*augmentation, make()], seed=1)
    model.compile(Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    start = time.perf_counter()
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=verbose)
    seconds = time.perf_counter() - start
    return model.evaluate(x_test, y_test, batch_size=500)[1], seconds


if __name__ == "__main__":
    for chosen in sys.argv[1:] or MODELS:
        accuracy, seconds = train(chosen)
        print(f"{chosen}: {accuracy:.2%} of the test images in {seconds:.0f} s", flush=True)
