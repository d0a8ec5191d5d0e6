"""From OK images to a version: intake, tokens, coreset, leave-one-out maps, suspects."""
