"""The embedded sample of MNIST and the reader of the IDX format it comes in elsewhere."""
