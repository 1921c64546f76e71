"""Hand-written JAX: NHWC, float32, one compiled training step, SGD with momentum written out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from baselines.conv_limit import layers
from baselines.conv_session import DECAY, LEARNING_RATE, MOMENTUM, PAD, WARM_UP_STEPS, Work, compete

EPSILON = 1e-5


def prepare(work: Work) -> Callable[[], dict[str, Any]]:
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax

    images = jnp.asarray(work.images().transpose(0, 2, 3, 1))
    labels, order = jnp.asarray(work.labels(), jnp.int32), jnp.asarray(work.order())
    mean, std = work.statistics()
    *filters, weight, bias = work.weights()
    height, width, channels = images.shape[1:]
    strides = [layer[4] for layer in layers(channels, height, width, work.depth)]

    def start() -> dict[str, Any]:
        """Convolutions ``[h, w, in, out]``, scales and shifts of their batch norms, the last layer."""
        return {
            "filters": [jnp.asarray(array.transpose(2, 3, 1, 0)) for array in filters],
            "scales": [jnp.ones(len(array)) for array in filters],
            "shifts": [jnp.zeros(len(array)) for array in filters],
            "head": (jnp.asarray(weight.T), jnp.asarray(bias)),
        }

    def augment(x, key):
        """Pad, crop and flip each image of uint8 ``[B, H, W, C]`` at random."""
        first, second, third = jax.random.split(key, 3)
        padded = jnp.pad(x, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))
        tops = jax.random.randint(first, (len(x),), 0, 2 * PAD + 1)
        lefts = jax.random.randint(second, (len(x),), 0, 2 * PAD + 1)
        crop = jax.vmap(lambda image, top, left: lax.dynamic_slice(image, (top, left, 0), (height, width, channels)))
        cropped = crop(padded, tops, lefts)
        flips = jax.random.bernoulli(third, shape=(len(x), 1, 1, 1))
        return jnp.where(flips, cropped[:, :, ::-1], cropped)

    def normed(params, number, h):
        """Convolution ``number`` and its batch norm."""
        stride = strides[number]
        padding = ((1, 1), (1, 1))
        kernel = params["filters"][number]
        h = lax.conv_general_dilated(h, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        centre, variance = h.mean((0, 1, 2)), h.var((0, 1, 2))
        return (h - centre) * lax.rsqrt(variance + EPSILON) * params["scales"][number] + params["shifts"][number]

    def loss_of(params, x, y):
        h = jax.nn.relu(normed(params, 0, (x.astype(jnp.float32) / 255 - mean) / std))
        for number in range(1, len(strides), 2):
            branch = normed(params, number + 1, jax.nn.relu(normed(params, number, h)))
            stride = strides[number]
            skip = h[:, ::stride, ::stride]
            h = jax.nn.relu(branch + jnp.pad(skip, ((0, 0),) * 3 + ((0, branch.shape[3] - skip.shape[3]),)))
        head, offset = params["head"]
        logits = h.mean((1, 2)) @ head + offset
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()

    @jax.jit
    def step(params, velocity, key, chosen):
        x, y = augment(images[chosen], key), labels[chosen]
        loss, grads = jax.value_and_grad(loss_of)(params, x, y)
        velocity = jax.tree.map(lambda v, g, p: MOMENTUM * v + g + DECAY * p, velocity, grads, params)
        return jax.tree.map(lambda p, v: p - LEARNING_RATE * v, params, velocity), velocity, loss

    def epoch(chosen) -> dict[str, Any]:
        params = start()
        velocity = jax.tree.map(jnp.zeros_like, params)
        key, losses = jax.random.key(0), []
        started = time.perf_counter()
        for begin in range(0, len(chosen), work.batch_size):
            key, draw = jax.random.split(key)
            params, velocity, loss = step(params, velocity, draw, chosen[begin : begin + work.batch_size])
            losses.append(loss)
        train_loss = float(np.mean(jax.device_get(losses)))
        return {"seconds": time.perf_counter() - started, "images": len(chosen), "train_loss": train_loss}

    epoch(order[: WARM_UP_STEPS * work.batch_size])
    if rest := len(order) % work.batch_size:
        epoch(order[:rest])  # a shape of its own
    return lambda: epoch(order)


if __name__ == "__main__":
    compete(prepare)
