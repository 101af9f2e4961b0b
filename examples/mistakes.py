"""Draw the test digits that a CNN is most sure of and gets wrong: writes mistakes.png.

Needs matplotlib (``pip install matplotlib``). After 5 epochs on 10,000 MNIST digits about 2 % of
the 10,000 test digits are wrong; the picture shows the 20 with the highest wrong probability.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minicnnrnn import Sequential, layers
from minicnnrnn.datasets import mnist

(x_train, y_train), (x_test, y_test) = mnist.load_data()
model = Sequential(
    [
        layers.Reshape((28, 28, 1)),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ],
    seed=1,
)
model.fit(x_train / 255, y_train, epochs=5)
probabilities = model.predict(x_test / 255)
answers = probabilities.argmax(axis=1)
wrong = np.flatnonzero(answers != y_test)
worst = wrong[np.argsort(-probabilities.max(axis=1)[wrong])][:20]

figure, axes = plt.subplots(2, 10, figsize=(10, 2.6))
for axis, i in zip(axes.flat, worst, strict=True):
    axis.imshow(x_test[i], cmap="gray_r")
    axis.set_title(f"{answers[i]}, not {y_test[i]}", fontsize=9)
    axis.axis("off")
figure.tight_layout()
figure.savefig(Path(__file__).parent / "mistakes.png", dpi=110)
print(f"{len(wrong)} of {len(y_test)} digits are wrong")
