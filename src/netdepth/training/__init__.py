"""One run: from a config to its finished folder."""
