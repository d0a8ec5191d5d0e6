"""Routes and their schemas: HTTP in, HTTP out, no arithmetic."""
