"""The report of an ROI as an HTML page."""
