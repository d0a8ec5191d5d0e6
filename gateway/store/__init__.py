"""What is on disk, and nothing else: versions, calibrations, OK images, the audit trail."""
