"""Exact tests and intervals: numbers in, numbers out; no torch, no folders."""
