"""A lane's frameworks, imported before its first conversion."""

from __future__ import annotations

import gc


def warm_up(lane: str) -> None:
    """Import a lane's frameworks in its worker process, and take them out of the garbage collector's rounds.

    onnx2tf and TensorFlow's converter collect several times per conversion; without the frozen imports that takes a
    tenth of the time.
    """
    if lane == "onnx2tf":
        from bridge.via_onnx2tf import import_onnx2tf

        import_onnx2tf()
    else:
        from keras_side.legacy import import_tfmot

        import_tfmot()
    gc.collect()
    gc.freeze()
