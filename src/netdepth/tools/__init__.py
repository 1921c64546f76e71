"""What is done with a finished network: each tool computes, draws and words in its own folder."""
