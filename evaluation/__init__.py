"""Evaluate how well the gateway tells good parts from bad: run a data set through its own code and draw figures."""
