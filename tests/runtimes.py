"""Which runtimes the tests run on: some of their faults are mended in newer ones."""

from importlib import metadata

from packaging.version import Version


def litert_before(version: str) -> bool:
    return Version(metadata.version("ai-edge-litert")) < Version(version)


def onnx_runtime_before(version: str) -> bool:
    return Version(metadata.version("onnxruntime")) < Version(version)
