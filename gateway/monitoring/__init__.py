"""What people and Prometheus see of a gateway: metrics, drift, logs, traces, the report."""
