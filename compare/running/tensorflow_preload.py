"""What the fork server of the TensorFlow lanes imports, once, before any worker is forked from it.

Importing TensorFlow, TF-MOT and onnx2tf takes about six seconds of one core, and three workers need it. Forking is safe
here: with one thread per numeric library they start no thread when imported (checked below), and TensorFlow's runtime
starts with its first operation, in the worker. Unlike every other module of this project, importing this one acts.
"""

import contextlib
import gc
import os
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

with contextlib.ExitStack() as _silent:
    _nowhere = _silent.enter_context(Path(os.devnull).open("w"))
    for _descriptor in (1, 2):  # workers catch what they print themselves
        os.dup2(_nowhere.fileno(), _descriptor)
    with contextlib.suppress(Exception):  # a missing or broken package is the job's to report, in its own words
        from keras_side.legacy import import_tfmot

        import_tfmot()
    with contextlib.suppress(Exception):
        from bridge.via_onnx2tf import import_onnx2tf

        import_onnx2tf()

gc.collect()
gc.freeze()
