"""HTTP in, HTTP out: routes, schemas, access control, limits. No arithmetic and no files."""
