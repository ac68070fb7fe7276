"""What LiteRT says of a .tflite that it does not load, on each of its kernel sets."""

from __future__ import annotations

from bridge.verifying.litert import KERNELS


def refusals(tflite: bytes | None) -> str:
    """One line for each kernel set that refuses the file, the delegate's reason included; empty when all load it."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    said = ""
    for kernels in KERNELS:
        resolver = OpResolverType.AUTO if kernels == "xnnpack" else OpResolverType.BUILTIN_REF
        try:
            Interpreter(model_content=tflite, experimental_op_resolver_type=resolver, num_threads=1).allocate_tensors()
        except (RuntimeError, ValueError) as error:
            said += f"{kernels}: {' '.join(str(error).split())}\n"
    return said
