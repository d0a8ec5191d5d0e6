"""Train a detector: a student network learns from OK images to predict the maps of a frozen teacher."""
