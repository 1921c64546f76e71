"""Files: written so that they are whole or not there, read with suspicion; a user's own code."""
