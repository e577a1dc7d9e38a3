"""The mathematics of `ContrastiveRecommender`: fusion, towers, losses, training, stopping, readout, residual."""
