"""Hand-written JAX: the steps of an epoch are one compiled ``lax.scan``, Adam written out.

``jax-scan`` trains one seed after another, ``jax-vmap`` all seeds of a depth at once, ``jax-processes``
one seed at a time in two processes, each pinned to a core.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from baselines.study_session import LEARNING_RATE, Outcome, Train, Work, compete

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def prepare(work: Work) -> Train:
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax

    images, labels = jnp.asarray(work.pixels("train")), jnp.asarray(work.labels("train"), jnp.int32)
    val_images, val_labels = jnp.asarray(work.pixels("val")), jnp.asarray(work.labels("val"), jnp.int32)
    full = len(labels) // work.batch_size * work.batch_size
    stacked = work.variant == "jax-vmap"

    def logits(parameters, x):
        *below, weight, bias = parameters
        for w, b in zip(below[::2], below[1::2], strict=True):
            x = jax.nn.relu(x @ w + b)
        return x @ weight + bias

    def loss(parameters, x, y):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits(parameters, x)), y[:, None], 1).mean()

    def epoch(state, order, images, labels, val_images, val_labels):
        def step(state, chosen):
            parameters, m, v, t = state
            value, grads = jax.value_and_grad(loss)(parameters, images[chosen], labels[chosen])
            t = t + 1
            m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
            v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
            rate, root = LEARNING_RATE / (1 - BETA1**t), jnp.sqrt(1 - BETA2**t)
            parameters = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) / root + EPSILON), parameters, m, v)
            return (parameters, m, v, t), value

        state, values = lax.scan(step, state, order[:full].reshape(-1, work.batch_size))
        if full < len(labels):  # the last, smaller batch has a shape of its own
            state, value = step(state, order[full:])
            values = jnp.append(values, value)
        right = (logits(state[0], val_images).argmax(1) == val_labels).mean()
        return state, values.mean(), right

    data = (images, labels, val_images, val_labels)
    mapped = jax.vmap(epoch, in_axes=(0, 0, None, None, None, None)) if stacked else epoch
    jitted = jax.jit(mapped, donate_argnums=0)

    def begin(depth: int, seeds: Sequence[int]):
        arrays = work.starts(depth, seeds) if stacked else work.start(depth, seeds[0])
        laid_out = [np.swapaxes(array, -1, -2) if i % 2 == 0 else array for i, array in enumerate(arrays)]
        parameters = [jnp.asarray(np.ascontiguousarray(array)) for array in laid_out]
        steps = jnp.zeros(len(seeds) if stacked else ())
        return parameters, jax.tree.map(jnp.zeros_like, parameters), jax.tree.map(jnp.zeros_like, parameters), steps

    def orders_of(seeds: Sequence[int]):
        orders = work.orders_of(seeds) if stacked else work.orders(seeds[0])
        return [jnp.asarray(order, jnp.int32) for order in orders]

    first = work.seeds if stacked else work.seeds[:1]
    run = {d: jitted.lower(begin(d, first), orders_of(first)[0], *data).compile() for d in work.depths}

    def train(depth: int, seeds: Sequence[int]) -> list[Outcome]:
        state = begin(depth, seeds)
        for order in orders_of(seeds):
            state, value, right = run[depth](state, order, *data)
        return list(zip(np.atleast_1d(value).tolist(), np.atleast_1d(right).tolist(), strict=True))

    return train


if __name__ == "__main__":
    two = sys.argv[1] == "jax-processes"
    compete(prepare, stacked=sys.argv[1] == "jax-vmap", processes=2 if two else 1, pinned=two)
