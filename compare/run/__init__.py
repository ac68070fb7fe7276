"""python -m compare.run: every route of the MNIST networks in this environment, measured and explained."""
