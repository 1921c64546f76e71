"""Slices of the loss around trained weights, and the curvature there."""
