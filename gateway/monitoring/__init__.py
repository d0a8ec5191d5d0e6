"""Monitoring of a gateway: metrics, drift, logs, traces, the report of an ROI."""
