"""The estimators, one a file; import them from `recsys`."""
