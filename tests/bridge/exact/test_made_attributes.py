"""What passes write for later ones is declared in the record of the operator, and of the type said there."""

import pytest

from bridge.exact.operators.checking import check_attributes
from tests.builders import activation, single_node

X, Y = activation("x", (1, 4), 0.5), activation("y", (1, 2), 0.5)


def checked(op, **attrs):
    check_attributes(single_node(op, X, output=Y, **attrs), after="layout")


def test_attributes_of_onnx_and_those_that_passes_make_are_known():
    checked("Split", axis=1, sizes=[2, 2])
    checked("Pad", mode="constant", paddings=[(0, 0), (1, 1)], value=0.0)
    checked("Mean", axes=[1], keepdims=True)


@pytest.mark.parametrize(
    ("op", "name"), [("Slice", "size"), ("Mean", "mode"), ("ChannelAffine", "axis"), ("Add", "low")]
)
def test_an_attribute_that_nobody_declared_is_our_defect(op, name):
    with pytest.raises(
        AssertionError, match=f"layout: {op} 'node' has an attribute '{name}' that its record does not know"
    ):
        checked(op, **{name: 1})


def test_an_attribute_of_another_type_than_declared_is_our_defect():
    with pytest.raises(AssertionError, match="layout: Pad 'node' has value 1; its record says float"):
        checked("Pad", value=1)


def test_what_has_no_record_is_left_to_the_refusal():
    checked("Erf", anything=1)
