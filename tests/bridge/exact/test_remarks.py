"""What an export says in the file: read where it is well formed, never trusted."""

from __future__ import annotations

import json

import onnx
import pytest

from bridge.exact.convert import Conversion, convert
from bridge.exact.remarks import ONE_SIGNED
from tests.builders import Pair, qdq_model, weight


def told(text: str) -> Conversion:
    model = qdq_model(
        ("Conv", "x w", "c"), ("Relu", "c", "y"),
        inputs={"x": (1, 1, 2, 2)}, pairs={"x": Pair(0.5, -128), "y": Pair(0.25)}, outputs="y",
        constants=[weight("w", [[[[100]]]], [0.5])],
    )  # fmt: skip
    onnx.helper.set_model_props(model, {ONE_SIGNED: text})
    return convert(model)


def test_weights_made_symmetric_are_a_note_with_a_bound_at_the_output_of_their_layer():
    (note,) = [note for note in told(json.dumps({"w_codes": [3, 8, 0.01]})).notes if note.kind == "symmetric"]
    assert note.what.startswith("3 of 8 channels made symmetric")
    assert note.lsb == pytest.approx(0.01 * 255 * 0.5 / 0.25)  # the largest input, in steps of the output
    assert note.of == "y"


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", '"w_codes"', '{"w_codes": 3}', '{"w_codes": [1, 2]}', '{"w_codes": [1, 2, "3"]}',
        '{"w_codes": [1, 2, NaN]}', '{"w_codes": [1, 2, Infinity]}', '{"w_codes": [-1, 2, 3]}',
        '{"w_codes": [1, 2, true]}', '{"other": [1, 2, 3]}', '{"w_codes": [1, 2, 1%s]}' % ("0" * 400), "[" * 100_000,
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_a_remark_in_any_other_form_says_nothing(text):
    assert [note for note in told(text).notes if note.kind == "symmetric"] == []
