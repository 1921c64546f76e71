"""Fault drills: what must hold when machines, disks, files and people misbehave, counted and published."""
