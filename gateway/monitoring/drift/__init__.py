"""Drift: whether inspected images still look like the learned OK images."""
