"""The mathematics of `ContrastiveRecommender`: fusion, towers, losses, training, stopping, closed-form readout."""
