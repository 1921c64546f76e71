"""What the features of a network are worth to a linear classifier."""
