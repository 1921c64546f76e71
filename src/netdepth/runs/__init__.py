"""Run folders: reading, writing, tables, comparison, removal; no torch."""
