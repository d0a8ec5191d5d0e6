"""The page to teach, calibrate, try and review: static files, a client of the public API and nothing else."""
