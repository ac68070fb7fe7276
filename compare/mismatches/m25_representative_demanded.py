"""M25: the integer operator set demands calibration data although QAT decided every range."""

from __future__ import annotations

from collections.abc import Iterator

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.small_keras import converted, layers_of, refusal, trained_network, trained_ranges
from compare.subjects.case import Case

MESSAGE = "a `representative_dataset` must be specified"
"""tensorflow/lite/python/lite.py, QuantizationMode, of TensorFlow 2.19."""


def detect(case: Case) -> Iterator[Sighting]:
    """The refusal in the log; or calibration data beside a model of which only some layers are annotated."""
    layers = layers_of(case.keras_model)
    annotated = any(layer.annotated for layer in layers)
    gaps = [layer.name for layer in layers if layer.weighted and not layer.annotated]
    if MESSAGE in case.log:
        yield Sighting(
            where="TFLiteConverter.convert",
            fact=f"'{MESSAGE}'; the model has {len(trained_ranges(case.keras_model))} trained activation ranges",
            remedy="Leave target_spec.supported_ops alone: Optimize.DEFAULT makes a QAT model integer without data.",
            sure=annotated and not gaps,
        )
    if case.calibration is not None and annotated and gaps:
        yield Sighting(
            where=f"layer '{gaps[0]}'",
            fact=f"{len(gaps)} layers with weights are not quantization-aware; their scales come from "
            f"{len(case.calibration)} calibration samples, not from training",
            remedy="Annotate the whole model, or check every scale of these layers against real data.",
            severity="risk",
        )


def reproduce() -> Case:
    """A wholly annotated model, asked for TFLITE_BUILTINS_INT8 without a representative dataset."""
    return Case(keras_model=trained_network(), log=refusal(_with_integer_operator_set))


def _with_integer_operator_set() -> bytes:
    from bridge.via_tflite_converter import _from_concrete_function, _tensorflow

    tf = _tensorflow()
    converter = _from_concrete_function(trained_network())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def repair(case: Case) -> Case:
    """The same model with Optimize.DEFAULT and the two inference types."""
    made: list[bytes] = []
    log = refusal(lambda: made.append(converted(case.keras_model)))
    return Case(keras_model=case.keras_model, tflite=made[0] if made else None, log=log)


def measure(broken: Case, repaired: Case) -> float:
    return float((MESSAGE in broken.log) - (repaired.tflite is None))


MISMATCH = Mismatch(
    id="M25",
    name="the integer operator set demands calibration data after QAT",
    side="TensorFlow converter",
    severity="fault",
    versions="TensorFlow 2.19.0 (reported since 2.4), TF-MOT 0.8.1",
    source="tensorflow#38285, #42082, model-optimization#974; reproduced",
    cause="supported_ops=[TFLITE_BUILTINS_INT8] demands a representative dataset. The converter means to except QAT models, but "
    "checks once more while it collects usage metrics, where it has no graph to look at (lite.py, "
    "_save_conversion_params_metric with graph_def None), and refuses there. With a wholly annotated model the data changes "
    "nothing once given. With a partly annotated one it decides the scales of every layer that was left out, unsaid.",
    way_out="For a wholly annotated model: optimizations=[DEFAULT], inference_input_type and inference_output_type, nothing "
    "else. Otherwise annotate the rest.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("conversions that fail", 1),
)
