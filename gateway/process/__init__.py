"""One gateway process: services, admission of work, startup and shutdown."""
