"""Keras 3 on JAX: ``model.fit`` on arrays in memory."""

from __future__ import annotations

import os

from baselines.session import LEARNING_RATE, SIZES, open_session

FOREVER = 10_000
"""Epochs of the one long ``fit`` whose epochs are timed; the driver ends the process before."""


def main() -> None:
    session = open_session()
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import keras

    class Turn(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # after validation
            session.epoch_done(float((logs or {})["val_accuracy"]))

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((SIZES[0],)),
            keras.layers.Dense(SIZES[1], activation="relu"),
            keras.layers.Dense(SIZES[2], activation="relu"),
            keras.layers.Dense(SIZES[3]),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        session.pixels("train"),
        session.labels("train"),
        batch_size=session.batch_size,
        epochs=FOREVER,
        validation_data=(session.pixels("val"), session.labels("val")),
        validation_batch_size=1000,
        verbose=0,
        callbacks=[Turn()],
    )


if __name__ == "__main__":
    main()
