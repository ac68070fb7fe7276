"""Judging the article's claims and noticing losses, on records made by hand."""

import dataclasses

import pytest

from compare.explaining import claims, findings
from compare.report.records.run import ControlRecord, OperatorRecord, ScaleRecord, TimingRecord
from tests.records import artifact, network

NATIVE = "keras-native"
CALIBRATED = f"{NATIVE}/baseline/integer-only/concrete"


def everything(**changes):
    """A run in which every claim can be judged; `changes` replaces artifacts by id."""
    made = [
        artifact(f"{NATIVE}/baseline/none/concrete", "keras/baseline", size=84_000),
        artifact(f"{NATIVE}/baseline/full-integer/concrete", "keras/baseline"),
        artifact(CALIBRATED, "keras/baseline", size=23_500),
        *(
            artifact(f"{CALIBRATED}/{kind}", "keras/baseline", 0.5, settings={"calibration": kind})
            for kind in ("unnormalised", "noise", "one-image")
        ),
        *(
            artifact(f"{NATIVE}/qat/{mode}/concrete", "keras/qat")
            for mode in ("dynamic-range", "full-integer", "integer-only")
        ),
        artifact(f"{NATIVE}/qat-dense/dynamic-range/concrete", "keras/qat-dense", latency=0.03),
        artifact("torch-int8-onnx2tf/qat-qnnpack", "torch/qat-qnnpack", 0.86, drop=0.11),
        artifact("torch-exact/qat-qnnpack", "torch/qat-qnnpack"),
    ]
    return [changes.get(record.id, record) for record in made]


NETWORKS = [network(i) for i in ("keras/baseline", "keras/qat", "keras/qat-dense", "torch/float", "torch/qat-qnnpack")]


def took(median, low=None, high=None):
    """Latency fields of a record, in milliseconds."""
    low, high = low or median, high or median
    return {"latency_median_ms": median, "latency_low_ms": low, "latency_high_ms": high}


def verdicts(artifacts, networks=NETWORKS, timings=()):
    return {claim.id: claim.verdict for claim in claims.judge(networks, artifacts, 2000, timings)}


def test_every_claim_is_judged_by_a_full_run():
    assert verdicts(everything()) == {
        "A1": "confirmed",
        "A2": "not confirmed",
        "A3": "confirmed",
        "A4": "confirmed",
        "A5": "not measurable here",
        "A6": "confirmed",
        "A7": "not confirmed",
        "W1": "confirmed",
        "W2": "not measurable here",
        "W3": "confirmed",
        "W4": "not confirmed",
    }


@pytest.mark.parametrize(
    ("claim", "identity", "changes", "verdict"),
    [
        ("A2", CALIBRATED, {"accuracy": 0.92}, "confirmed"),
        ("A3", CALIBRATED, {"size": 80_000}, "not confirmed"),
        ("A4", f"{NATIVE}/qat/dynamic-range/concrete", took(0.1), "not confirmed"),
        ("A4", f"{NATIVE}/qat/dynamic-range/concrete", took(0.01, 0.008, 0.03), "not measurable here"),
        ("A6", f"{NATIVE}/qat-dense/dynamic-range/concrete", took(0.01), "not confirmed"),
        ("A6", f"{NATIVE}/qat-dense/dynamic-range/concrete", took(0.03, 0.009, 0.04), "not measurable here"),
        ("A7", "torch-exact/qat-qnnpack", {"accuracy_drop": 0.3}, "confirmed"),
        ("W1", "torch-int8-onnx2tf/qat-qnnpack", {"accuracy_drop": 0.0}, "not confirmed"),
        ("W4", CALIBRATED, {"accuracy": 0.9}, "confirmed"),
    ],
)
def test_other_figures_turn_the_verdict(claim, identity, changes, verdict):
    known = {record.id: record for record in everything()}
    assert verdicts(everything(**{identity: dataclasses.replace(known[identity], **changes)}))[claim] == verdict


def larger(qat, dense, ptq=None, spread=0.02):
    """Timings of the larger network, milliseconds."""
    figures = {"qat/dynamic-range": qat, "qat/full-integer": qat, "baseline/full-integer": ptq or qat}
    return [
        TimingRecord(f"larger/{name}", 1000, taken, taken * (1 - spread), taken * (1 + spread))
        for name, taken in (figures | {"qat-dense/dynamic-range": dense}).items()
    ]


def test_speed_is_judged_on_the_larger_network_where_its_intervals_decide():
    """The article's own network says: dense-only is three times slower; QAT alone is as fast."""
    assert verdicts(everything(), timings=larger(1.0, 1.0))["A6"] == "not confirmed"
    assert verdicts(everything(), timings=larger(2.0, 2.0, ptq=1.0))["A4"] == "not confirmed"
    open_ = verdicts(everything(), timings=larger(1.0, 1.1, spread=0.1))
    assert (open_["A4"], open_["A6"]) == ("confirmed", "confirmed")


@pytest.mark.parametrize(("spread", "verdict"), [(0.02, "confirmed"), (0.5, "not measurable here")])
def test_the_same_medians_decide_only_where_the_intervals_are_apart(spread, verdict):
    noisy = {
        record.id: dataclasses.replace(
            record,
            latency_low_ms=record.latency_median_ms * (1 - spread),
            latency_high_ms=record.latency_median_ms * (1 + spread),
        )
        for record in everything()
        if record.latency_median_ms is not None
    }
    found = verdicts(everything(**noisy))
    assert (found["A4"], found["A6"]) == (verdict, verdict)


def test_both_networks_are_in_the_evidence_with_their_intervals():
    (found,) = [each for each in claims.judge(NETWORKS, everything(), 2000, larger(1.0, 3.0)) if each.id == "A6"]
    assert found.evidence[0] == (
        "Dense-only against ordinary QAT, on the article's network: 30 us (29 to 31) against 10 us (10 to 10) (x3.00)"
    )
    assert found.evidence[1] == (
        "Dense-only against ordinary QAT, on a larger one: 3,000 us (2,940 to 3,060) against 1,000 us (980 to 1,020) (x3.00)"
    )


def test_poor_calibration_that_costs_nothing_does_not_confirm_the_warning():
    harmless = {
        record.id: dataclasses.replace(record, accuracy=0.97)
        for record in everything()
        if "calibration" in record.settings
    }
    assert verdicts(everything(**harmless))["W3"] == "not confirmed"


def test_a_qat_network_far_below_float_refutes_the_first_claim():
    worse = [network("torch/qat-qnnpack", 0.95) if n.id == "torch/qat-qnnpack" else n for n in NETWORKS]
    assert verdicts(everything(), worse)["A1"] == "not confirmed"


def test_what_a_run_did_not_make_is_not_measurable_and_never_an_error():
    for left_out in [record.id for record in everything()]:
        verdicts([record for record in everything() if record.id != left_out])
    assert set(verdicts([], []).values()) == {"not measurable here"}


def test_a_failed_artifact_counts_as_not_made():
    failed = artifact(CALIBRATED, "keras/baseline", status="failed", accuracy=None)
    assert verdicts(everything(**{CALIBRATED: failed}))["A3"] == "not measurable here"


def noticed(*records):
    return findings.findings(records, NETWORKS)


def test_losses_come_first_and_the_largest_on_top():
    found = noticed(
        artifact("a/small", "keras/qat", 0.95, drop=0.02),
        artifact("a/shapes", "keras/qat", operators=(OperatorRecord("SHAPE", True),)),
        artifact("a/large", "keras/qat", 0.86, drop=0.11, disagreements=220),
    )
    assert [(f.severity, f.artifact) for f in found] == [
        ("loss", "a/large"),
        ("loss", "a/small"),
        ("notice", "a/shapes"),
    ]
    assert found[0].title == "11.0 points lost"
    assert "220 images changed class" in found[0].fact


def test_a_cause_that_was_not_established_is_not_named():
    (found,) = noticed(artifact("a/large", "keras/qat", 0.86, drop=0.11))
    assert found.cause is None


def test_scales_that_were_estimated_again_are_shown_with_both_figures():
    scales = (
        ScaleRecord("input", 0.5, -128, 0.25, -128, kept=False),
        ScaleRecord("conv", 0.5, -128, 0.5, -128, kept=True),
    )
    (found,) = noticed(artifact("torch-onnx2tf/x", "keras/qat", scales=scales))
    assert found.title == "1 of 2 trained activation scales estimated again"
    assert found.fact == "input: trained 0.5 (zero point -128), file 0.25 (zero point -128)"


def test_float_operators_of_a_quantized_network_are_noticed_and_those_at_the_border_are_not():
    scales = (ScaleRecord("input", 0.5, -128, 0.5, -128, kept=True),)
    border = (OperatorRecord("QUANTIZE", False), OperatorRecord("CONV_2D", True))
    assert noticed(artifact("a/border", "keras/qat", operators=border, scales=scales)) == ()
    inside = (OperatorRecord("CONV_2D", False), OperatorRecord("RESHAPE", True))
    (found,) = noticed(artifact("a/float", "keras/qat", operators=inside, scales=scales))
    assert found.title == "1 of 2 computing operators are float"


def test_a_clean_artifact_and_one_that_failed_raise_nothing():
    failed = artifact("a/failed", "keras/qat", status="failed", accuracy=None, accuracy_drop=None)
    assert noticed(artifact("a/clean", "keras/qat"), failed) == ()


def controlled(equal, *, log=""):
    exact = artifact("torch-exact/qat-qnnpack", "torch/qat-qnnpack", equal_outputs=0.998)
    control = artifact(
        "torch-fake-quant/qat-qnnpack",
        "torch/qat-qnnpack",
        equal_outputs=0.976,
        log=log,
        control=ControlRecord(exact.id, equal, 1.0),
    )
    return findings.findings([exact, control], [network("torch/qat-qnnpack")])


def test_two_bridges_that_agree_say_so():
    (finding,) = controlled(1.0)
    assert finding.title == "two bridges agree"
    assert finding.cause is finding.remedy is None


def test_where_two_bridges_differ_the_control_says_why_and_the_nearer_one_is_named():
    (finding,) = controlled(0.977, log="other line\nnote: 2 weight codes of -128 became -127\n")
    assert finding.cause == "2 weight codes of -128 became -127"
    assert finding.remedy == "Trust torch-exact/qat-qnnpack: it is nearer to the network."


def test_an_engine_that_leaves_the_trained_clamp_out_is_noticed_for_seven_bit_networks_only():
    engine = artifact("torch-int8-exact/qat-fbgemm", "torch/qat-fbgemm")
    trained = dataclasses.replace(network("torch/qat-fbgemm"), int8_engine_max_lsb=14.0)
    (finding,) = findings.findings([engine], [trained])
    assert "up to 14 LSB" in finding.fact
    eight_bit = dataclasses.replace(trained, id="torch/qat-qnnpack")
    other = artifact("torch-int8-exact/qat-qnnpack", eight_bit.id)
    assert findings.findings([other], [eight_bit]) == ()
