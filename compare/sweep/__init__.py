"""Many trainings and conversions: planned, run on all cores or a cluster, kept as they arrive, summarised over seeds."""
