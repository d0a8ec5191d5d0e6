"""PatchCore (Roth et al., 2022): a memory bank of OK tokens, thinned to a coreset, searched for nearest neighbours."""
