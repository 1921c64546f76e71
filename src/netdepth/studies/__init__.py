"""Studies: from a question to its plan, its runs, its table and its verdict."""
