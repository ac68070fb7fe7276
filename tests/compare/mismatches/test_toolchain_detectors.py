"""What the entries on other versions of the tools see beside their reproductions: versions, messages, what is unsure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.errors import BridgeError
from compare.mismatches import m17_pairs_as_arithmetic as m17
from compare.mismatches import m21_pattern_as_function as m21
from compare.mismatches import m77_keras_3_variables as m77
from compare.mismatches import m78_scales_of_one_entry as m78
from compare.mismatches import m79_bias_on_dimension_3 as m79
from compare.subjects.case import Case

RESHAPE = """Traceback (most recent call last):
  File "/site-packages/onnx2tf/ops/DequantizeLinear.py", line 106, in make_node
    x_scale = tf.reshape(
  File "/site-packages/tensorflow/python/eager/execute.py", line 53, in quick_execute
    tensors = pywrap_tfe.TFE_Py_Execute(ctx._handle, device_name, op_name,
InvalidArgumentError: Input to reshape is a tensor with 1 values, but the requested shape has 12 [Op:Reshape]

ERROR: onnx_op_name: wa/conv/DequantizeLinear_2
"""
STRICT = (
    "StrictFullIntegerQuantizationError: Unsupported op for strict full integer quantization: index=2 op_type=ROUND"
)


@pytest.mark.parametrize(
    ("version", "sure"), [("1.9.1", [False]), ("1.20.0", [True]), ("1.26.6", [True]), ("1.26.7", []), ("2.6.9", [])]
)
def test_a_scale_of_one_entry_stops_onnx2tf_until_1_26_7(version, sure):
    case = Case(onnx=m78.reproduce().onnx, packages={"onnx2tf": version})

    assert [sighting.sure for sighting in m78.detect(case)] == sure


def test_a_scale_of_one_entry_is_also_seen_where_it_cannot_be_reshaped():
    (sighting,) = m78.detect(Case(log=RESHAPE))

    assert sighting.where == "onnx2tf at 'wa/conv/DequantizeLinear_2'"
    assert "requested shape has 12" in sighting.fact


def test_an_aborted_converter_may_have_had_another_reason_than_keras_3():
    (sighting,) = m77.detect(Case(log=f"{m77.ABORTED}\n"))

    assert not sighting.sure


def test_a_refused_file_is_about_pairs_for_sure_only_beside_a_model_with_pairs():
    onnx = m17.reproduce().onnx

    assert [sighting.sure for sighting in m17.detect(Case(log=STRICT))] == [False]
    assert [sighting.sure for sighting in m17.detect(Case(onnx=onnx, log=STRICT))] == [True]


def test_arithmetic_of_pairs_is_seen_without_the_onnx_model_but_not_undone():
    alone = replace(m17.reproduce(), onnx=None)

    assert list(m17.detect(alone))
    with pytest.raises(BridgeError, match="there is no ONNX model to convert again"):
        m17.repair(alone)


def test_a_function_in_torch_export_is_litert_torchs_only_through_torchaos_helper():
    assert [sighting.sure for sighting in m21.detect(Case(log=f"ValueError: {m21.MESSAGE}."))] == [False]
    assert [sighting.sure for sighting in m21.detect(m21.reproduce())] == [True]


def test_a_dimension_beyond_the_rank_is_seen_in_the_file_and_in_the_refusal():
    case = m79.reproduce()
    said = "StrictFullIntegerQuantizationError: validation failed: quantized_dimension must be in range [0, 1). Was 3.Tensor 7"

    assert [sighting.where for sighting in m79.detect(replace(case, log=""))] == ["tensor 'b'"]
    assert [sighting.where for sighting in m79.detect(Case(log=said))] == ["the runtime"]


def test_dimensions_within_the_rank_are_no_sighting_whatever_the_axis():
    assert list(m79.detect(m79.repair(m79.reproduce()))) == []
