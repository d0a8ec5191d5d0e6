"""From a version to its calibration: thresholds from OK maps and scores, and the false alarms to expect."""
