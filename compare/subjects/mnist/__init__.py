"""The MNIST network as a subject: digits, settings, the networks of both frameworks and their shared start."""
