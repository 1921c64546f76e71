"""What happens inside a network on one batch: gradients and activations per layer, without disturbing it."""

from netdepth.probes.layers import probe, probe_batch

__all__ = ["probe", "probe_batch"]
