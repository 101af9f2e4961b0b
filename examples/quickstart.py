"""Handwritten digits, learnt as images, as sequences and as plain numbers.

The same 10,000 MNIST digits are learnt by a CNN that sees images, an LSTM that reads them row by
row, and an MLP to which they are 784 numbers; then all are asked about 10,000 new ones.
"""

import time

from minicnnrnn import Sequential, layers
from minicnnrnn.datasets import mnist

(x_train, y_train), (x_test, y_test) = mnist.load_data()
x_train, x_test = x_train / 255, x_test / 255  # 28 x 28 numbers from 0 to 1

models = {
    "CNN": Sequential(
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
    ),
    "LSTM": Sequential([layers.LSTM(128), layers.Dense(10, activation="softmax")], seed=1),
    "MLP": Sequential(
        [
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ],
        seed=1,
    ),
}
epochs = {"CNN": 6, "LSTM": 8, "MLP": 4}

rows = []
for name, model in models.items():
    print(name)
    start = time.perf_counter()
    # Never compiled: softmax and whole-numbered labels imply the loss, and Adam is the optimizer.
    model.fit(x_train, y_train, epochs=epochs[name])
    model.optimizer.learning_rate = 2e-4  # two more epochs with smaller steps
    model.fit(x_train, y_train, epochs=epochs[name] + 2, initial_epoch=epochs[name])
    seconds = (time.perf_counter() - start) / (epochs[name] + 2)
    _, accuracy = model.evaluate(x_test, y_test)
    rows.append(f"{name:<6}{model.count_params():>12,}{seconds:>16.1f}{accuracy:>15.2%}")

print("\nmodel   parameters   seconds/epoch  test accuracy")
print("\n".join(rows))
