"""Files of the bridge on emulated ARM processors: python -m benchmarks.arm."""
