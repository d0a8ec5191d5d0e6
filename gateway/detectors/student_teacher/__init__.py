"""The second detector: a student network that was trained to follow its teacher on OK images."""
