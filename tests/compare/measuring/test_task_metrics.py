"""Metrics of tasks, by cases one can do by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.errors import BridgeError
from compare.measuring.task_metrics import mean_ap, miou, top1, top5

SCORES = np.array([[5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4]], np.float32)


def test_top1_is_the_share_of_largest_scores_and_top5_of_the_best_five() -> None:
    labels = np.array([0, 0, 5])
    assert top1([SCORES], labels) == pytest.approx(1 / 3)
    assert top5([SCORES], labels) == pytest.approx(1 / 3)
    assert top5([SCORES], np.array([4, 1, 4])) == 1.0


@pytest.mark.parametrize(
    "labels", [np.array([0, 1, 6]), np.array([0, -1, 2]), np.array([0.5, 1, 2]), np.zeros((3, 1), int)]
)
def test_labels_that_are_no_classes_of_the_model_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(BridgeError, match="labels: are"):
        top1([SCORES], labels)


def test_outputs_that_a_metric_does_not_take_are_refused() -> None:
    with pytest.raises(
        BridgeError, match=r"takes one output of one score for each class; for one sample the model gives"
    ):
        top1([SCORES, SCORES], np.zeros(3, int))
    with pytest.raises(BridgeError, match=r"takes boxes \(boxes, 4\) and scores"):
        mean_ap([SCORES], np.zeros((3, 1, 5)))


def test_miou_is_the_mean_over_classes_and_leaves_ignored_pixels_out() -> None:
    found = np.array([[[0, 0], [1, 1]]])
    scores = np.moveaxis(np.eye(3, dtype=np.float32)[found], -1, 1)
    assert miou([scores], np.array([[[0, 1], [1, 1]]])) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert miou([scores], np.array([[[0, 255], [1, -1]]])) == 1.0
    with pytest.raises(BridgeError, match="at least one pixel"):
        miou([scores], np.full((1, 2, 2), 255))
    with pytest.raises(BridgeError, match="one class for each pixel"):
        miou([scores], np.zeros((1, 4), int))


BOX = [0, 0, 10, 10]


def one_image(boxes: list[list[float]], scores: list[list[float]], objects: list[list[float]]) -> float:
    return mean_ap([np.array([boxes], np.float32), np.array([scores], np.float32)], np.array([objects], np.float64))


def test_a_box_that_fits_is_worth_one_and_its_double_costs_nothing_behind_it() -> None:
    assert one_image([BOX], [[0.9, 0.1]], [[0, *BOX]]) == pytest.approx(1.0)
    assert one_image([BOX, BOX], [[0.9, 0.1], [0.8, 0.1]], [[0, *BOX], [-1, 0, 0, 0, 0]]) == pytest.approx(1.0)


def test_a_false_box_with_a_better_score_halves_the_precision() -> None:
    assert one_image([[50, 50, 60, 60], BOX], [[0.9, 0.0], [0.8, 0.0]], [[0, *BOX]]) == pytest.approx(0.5)


def test_half_of_the_objects_found_is_half_of_the_recall() -> None:
    found = one_image([BOX], [[0.9, 0.0]], [[0, *BOX], [0, 50, 50, 60, 60]])
    assert found == pytest.approx(51 / 101)  # recalls 0.00 to 0.50


def test_a_box_counts_up_to_its_overlap_and_a_wrong_class_for_nothing() -> None:
    assert one_image([[0, 0, 10, 7.2]], [[0.9, 0.0]], [[0, *BOX]]) == pytest.approx(0.5)  # IoU 0.72: 0.50 to 0.70
    assert one_image([BOX], [[0.1, 0.9]], [[0, *BOX]]) == 0.0
    assert one_image([BOX], [[0.9, 0.1]], [[0, *BOX], [1, *BOX]]) == pytest.approx(0.5)


def test_a_model_that_finds_nothing_is_worth_nothing() -> None:
    assert one_image([[0, 0, 0, 0]], [[0.0, 0.0]], [[0, *BOX]]) == 0.0
