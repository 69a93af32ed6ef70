"""The article's classifier in Keras, trained as it says: Adam, 5 epochs, batches of 32."""

import time
from typing import Any

from benchmarks.peers.program import Images, Outcome, run_program


def train_article(images: Images, num_epochs: int, seed: int) -> Outcome:
    """Train with one call of `fit`."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    train_images, test_images = (
        pixels[..., None].astype("float32") / 255
        for pixels in (images.train_images, images.test_images)
    )
    model = _network(keras, train_images.shape[1:])
    test = _TestAccuracy(model, test_images, images.test_labels)
    on_epoch_end = keras.callbacks.LambdaCallback(on_epoch_end=test.measure)

    start = time.perf_counter()
    model.fit(
        train_images,
        images.train_labels,
        batch_size=32,
        epochs=num_epochs,
        verbose=0,
        callbacks=[on_epoch_end],
    )
    seconds = time.perf_counter() - start - test.seconds
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    return Outcome(seconds, test.accuracies, model.count_params(), versions)


def _network(keras: Any, image_shape: tuple[int, ...]) -> Any:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=0.001),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


class _TestAccuracy:
    """Looks at the test set after every epoch, and knows how long that took."""

    def __init__(self, model: Any, images: Any, labels: Any) -> None:
        self._model = model
        self._images = images
        self._labels = labels
        self.accuracies: list[float] = []
        self.seconds = 0.0

    def measure(self, epoch: int, logs: object) -> None:
        del epoch, logs
        start = time.perf_counter()
        _, accuracy = self._model.evaluate(self._images, self._labels, batch_size=1000, verbose=0)
        self.accuracies.append(float(accuracy))
        self.seconds += time.perf_counter() - start


if __name__ == "__main__":
    run_program(train_article)
