"""What a difference comes from: repairs applied alone and together, rows that differ in one setting, and what is left."""

from dataclasses import replace

import numpy as np
import pytest

from bridge.exact.graph import Node
from compare.explaining import attribution, findings
from compare.explaining.attribution import examine, explain
from compare.mismatches import catalogue
from compare.mismatches.parts.files import activation, codes, run_codes, tflite_of
from compare.mismatches.parts.models import conv_relu, samples, through_exact
from compare.report.records.run import FiguresRecord, RepairRecord, SeenRecord
from compare.subjects.case import Case
from compare.tflite.edit import with_tensors
from compare.tflite.graph import open_tflite
from tests.records import artifact, network

ENTRIES = {entry.id: entry for entry in catalogue()}


def dense(*, bias_scale=0.005, weight=(1, -100, 90, 5)):
    """x (1, 4) int8, one dense layer with two outputs: input scale 0.5, weight scale 0.01."""
    weights = np.array([weight, weight[::-1]], np.int8)
    node = Node("FULLY_CONNECTED", "dense", ("x", "w", "b"), ("y",), {"fused_activation": "NONE"})
    tensors = [
        activation("x", (1, 4), 0.5),
        codes("w", weights, 0.01),
        codes("b", [400, -400], bias_scale, dtype=np.int32),
        activation("y", (1, 2), 1.0),
    ]
    return tflite_of([node], tensors, ["x"], ["y"])


def test_each_mismatch_is_undone_alone_and_then_all_of_them():
    examined = examine(Case(tflite=dense(bias_scale=0.02, weight=(1, -128, 90, 5))))

    assert [seen.mismatch for seen in examined.seen] == ["M04", "M55"]
    assert [repair.mismatches for repair in examined.repairs] == [("M04",), ("M55",), ("M04", "M55")]
    left = [{seen.mismatch for seen in examine(Case(tflite=repair.tflite)).seen} for repair in examined.repairs]
    assert left == [{"M55"}, {"M04"}, set()]


def test_a_clean_file_needs_no_repair():
    examined = examine(Case(tflite=dense()))

    assert (examined.seen, examined.repairs) == ((), ())


def test_a_repair_that_rounds_again_waits_until_the_damage_is_mended():
    """The one that requantizes has the lower id, and would make the other impossible to see."""
    order = []

    def entry(identity, **changes):
        def repair(case):
            order.append(identity)
            return replace(case, tflite=case.tflite + identity.encode())

        def detect(case):
            return iter([] if identity.encode() in case.tflite else [object()])

        return replace(ENTRIES["M55"], id=identity, detect=detect, repair=repair, automatic=True, **changes)

    rounding, mending = entry("M01", requantizes=True), entry("M02")
    attribution.repaired(Case(tflite=b"file"), (rounding, mending))

    assert order == ["M02", "M01"]


def test_what_the_catalogue_does_not_know_is_not_blamed_on_an_entry():
    """One kernel tap of a correct conversion is set to zero."""
    content = through_exact(conv_relu())
    graph = open_tflite(content).graph
    weight = graph.tensors[graph.nodes[0].inputs[1]]
    damaged = weight.values.copy()
    damaged.flat[7] = 0
    broken = with_tensors(content, {weight.name: replace(weight, data=damaged)})
    assert (run_codes(broken) != run_codes(content)).any()

    assert examine(Case(onnx=conv_relu(), tflite=broken, inputs={"x": samples()})).seen == ()


# ------------------------------------------------------------------------------------------------ explanations

SEEN = {
    "M13": SeenRecord("M13", "scales estimated again", True, "tensor 'y'", "0.1, not 0.2"),
    "M44": SeenRecord("M44", "biases in another order", True, "bias of 'conv'", "0, 2, 1"),
    "M52": SeenRecord("M52", "other magnitude", True, "calibration data", "255"),
}


def figures(drop, lsb):
    return FiguresRecord(0.97 - drop, drop, 0, lsb, 25_000, 0.01, 0)


def broken(repairs, seen=("M13", "M44"), drop=0.17):
    return artifact(
        "torch-int8-onnx2tf/qat-x",
        "torch/qat-x",
        0.97 - drop,
        drop=drop,
        max_difference_lsb=60.0,
        seen=tuple(SEEN[each] for each in seen),
        repairs=tuple(repairs),
    )


TRAINED = replace(network("torch/qat-x"), output_scale=0.1)


def test_every_cause_has_its_own_figures_and_all_of_them_together_decide_what_is_left():
    repairs = [
        RepairRecord(("M13",), figures(0.168, 59.0)),
        RepairRecord(("M44",), figures(0.004, 30.0)),
        RepairRecord(("M13", "M44"), figures(0.0, 1.0)),
    ]
    (explanation,) = explain([broken(repairs)], [TRAINED])

    assert [(cause.mismatch, cause.without.accuracy_drop) for cause in explanation.causes] == [
        ("M13", 0.168),
        ("M44", 0.004),
    ]
    assert (explanation.explained, explanation.points_left, explanation.lsb_left) == (True, 0.0, 1.0)


def test_what_no_repair_gives_back_is_unexplained_in_figures():
    (explanation,) = explain([broken([RepairRecord(("M44",), figures(0.02, 44.0))], seen=["M44"])], [TRAINED])

    assert not explanation.explained
    assert (explanation.points_left, explanation.lsb_left) == (0.02, 44.0)


def test_a_loss_without_any_known_cause_is_unexplained_and_the_finding_says_so():
    lost = broken([], seen=())
    explanations = explain([lost], [TRAINED])
    loss, unexplained = findings.findings([lost], [TRAINED], explanations)

    assert (explanations[0].causes, explanations[0].explained) == ((), False)
    assert loss.cause is None
    assert unexplained.title == "a difference that no entry of the catalogue explains"
    assert "17.00 points and 60.0 LSB" in unexplained.fact


def test_a_loss_names_each_cause_with_what_its_repair_gives_back():
    repairs = [
        RepairRecord(("M13",), figures(0.169, 59.0)),
        RepairRecord(("M44",), figures(0.02, 30.0)),
        RepairRecord(("M13", "M44"), figures(0.0, 1.0)),
    ]
    lost = broken(repairs)
    loss, *_ = findings.findings([lost], [TRAINED], explain([lost], [TRAINED]))

    assert loss.cause == (
        "M44 biases in another order: repaired alone +15.00 points; M13 scales estimated again: less than 0.2 points "
        "alone; all together +17.00 points; nothing left unexplained"
    )
    assert ENTRIES["M44"].way_out in loss.remedy


def test_a_repaired_file_that_does_not_run_is_said_and_not_counted():
    (explanation,) = explain([broken([RepairRecord(("M44",), None)], seen=["M44"])], [TRAINED])

    assert explanation.causes[0].without is None
    assert not explanation.explained


def calibrated(mode, drop, lsb, calibration=None, **changes):
    settings = {"mode": mode, "entry": "concrete"} | ({"calibration": calibration} if calibration else {})
    name = "/".join(["keras-native", "baseline", *settings.values()])
    return artifact(
        name, "keras/baseline", 0.97 - drop, drop=drop, max_difference_lsb=lsb, settings=settings, **changes
    )


def test_the_row_that_differs_in_one_setting_is_the_experiment():
    poor = calibrated("integer-only", 0.25, 180.0, "unnormalised", seen=(SEEN["M52"],))
    good, unquantized = calibrated("integer-only", 0.0, 27.0), calibrated("none", 0.0, 0.0, operators=())
    explanation, _ = explain([poor, good, unquantized], [network("keras/baseline")])

    assert [(cause.mismatch, cause.row) for cause in explanation.causes] == [("M52", good.id), (None, unquantized.id)]
    assert (explanation.explained, explanation.lsb_left) == (True, 0.0)


def test_a_row_that_was_not_made_explains_nothing():
    poor = calibrated("integer-only", 0.25, 180.0, "unnormalised", seen=(SEEN["M52"],))
    (explanation,) = explain([poor], [network("keras/baseline")])

    assert (explanation.causes, explanation.explained) == ((), False)


def test_an_artifact_that_equals_its_network_needs_no_explanation():
    assert explain([artifact("torch-exact/qat-x", "torch/qat-x", max_difference_lsb=1.0)], [TRAINED]) == ()


@pytest.mark.parametrize("left", [0.0021, 0.5])
def test_more_than_a_fifth_of_a_point_does_not_stay_unsaid(left):
    (explanation,) = explain([broken([RepairRecord(("M44",), figures(left, 1.0))], seen=["M44"])], [TRAINED])
    assert not explanation.explained
