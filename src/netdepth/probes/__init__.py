"""Looking inside a network, which stays as it is: gradients and activations per layer, what its features are worth."""

from netdepth.probes.layers import probe, probe_batch

__all__ = ["probe", "probe_batch"]
