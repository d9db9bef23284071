"""What to run on a machine with a GPU, in steps that each write their JSON as they end: ``make gpu-report``."""
