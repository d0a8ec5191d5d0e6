"""Answer bodies, made from the results of the services."""
