"""Layer statistics of a run: as a table, as a picture, in words."""
