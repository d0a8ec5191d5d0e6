"""The second detector: a student network that was trained to imitate its teacher on OK images."""
