"""A .tflite as records: read, opened as a graph, edited, matched by structure. Nothing here runs one."""
