"""One gateway process: its services, its admission of work, its start and its end."""
