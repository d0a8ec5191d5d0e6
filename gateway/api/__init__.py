"""HTTP in, HTTP out: routes, schemas, access, limits. No arithmetic and no files."""
