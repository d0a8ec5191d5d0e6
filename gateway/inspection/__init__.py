"""Image to answer: load the version in use, compute the anomaly map, judge it, draw it."""
