"""Pure functions from patch distances to answers: anomaly map, masks, regions, heatmap. NumPy and OpenCV only."""
