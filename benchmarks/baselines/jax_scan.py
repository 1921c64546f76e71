"""Hand-written JAX: the steps of an epoch are one compiled ``lax.scan``, Adam written out."""

from __future__ import annotations

import itertools
import os

from baselines.session import LEARNING_RATE, SIZES, open_session

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def main() -> None:
    session = open_session()
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp
    from jax import lax

    images, labels = jnp.asarray(session.pixels("train")), jnp.asarray(session.labels("train"), jnp.int32)
    val_images, val_labels = jnp.asarray(session.pixels("val")), jnp.asarray(session.labels("val"), jnp.int32)
    full = len(labels) // session.batch_size * session.batch_size

    def initial(key):
        """Weights and biases uniform in ±1/sqrt(inputs), PyTorch's default."""
        layers = []
        for n, m in itertools.pairwise(SIZES):
            key, one, two = jax.random.split(key, 3)
            bound = n**-0.5
            layers.append(
                (
                    jax.random.uniform(one, (n, m), minval=-bound, maxval=bound),
                    jax.random.uniform(two, (m,), minval=-bound, maxval=bound),
                )
            )
        return layers

    def logits(layers, x):
        for weight, bias in layers[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        weight, bias = layers[-1]
        return x @ weight + bias

    def loss(layers, x, y):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits(layers, x)), y[:, None], 1).mean()

    def step(state, chosen):
        layers, m, v, t = state
        value, grads = jax.value_and_grad(loss)(layers, images[chosen], labels[chosen])
        t = t + 1
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
        rate, root = LEARNING_RATE / (1 - BETA1**t), jnp.sqrt(1 - BETA2**t)
        layers = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) / root + EPSILON), layers, m, v)
        return (layers, m, v, t), value

    def epoch(state, key):
        order = jax.random.permutation(key, len(labels))
        state, values = lax.scan(step, state, order[:full].reshape(-1, session.batch_size))
        if full < len(labels):  # the last, smaller batch has a shape of its own
            state, _ = step(state, order[full:])
        right = (logits(state[0], val_images).argmax(1) == val_labels).mean()
        return state, values.mean(), right

    run = jax.jit(epoch, donate_argnums=0)
    key, first = jax.random.split(jax.random.key(0))
    layers = initial(first)
    state = (layers, jax.tree.map(jnp.zeros_like, layers), jax.tree.map(jnp.zeros_like, layers), jnp.zeros(()))
    while True:
        key, order = jax.random.split(key)
        state, _, right = run(state, order)
        session.epoch_done(float(right))


if __name__ == "__main__":
    main()
