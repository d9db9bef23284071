"""Pictures of runs and of networks. matplotlib is imported inside the functions that draw."""
