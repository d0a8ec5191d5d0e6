"""Version to calibration: thresholds from OK maps and scores, and what to expect of them."""
