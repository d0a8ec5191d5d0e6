"""The report of an ROI as a page."""
