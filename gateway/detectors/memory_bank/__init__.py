"""PatchCore: a coreset of OK tokens and the distance to the nearest of them."""
