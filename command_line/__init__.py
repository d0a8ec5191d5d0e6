"""The command line `patchcore`: a client of a gateway, by its address or in this process."""
