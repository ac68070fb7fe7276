"""What a task calls good: top-1, top-5, mean IoU and mean AP of a model's outputs beside the samples' labels, 0 to 1.

A metric takes the outputs, float32 (N, ...) each in real units, as the model gives them, and the labels (N, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bridge.errors import BridgeError

Outputs = Sequence[np.ndarray]
IGNORED = 255
"""Pixels of this label, and of negative ones, count for nothing (the convention of PASCAL VOC and Cityscapes)."""
IOUS = np.arange(0.5, 1.0, 0.05)
"""COCO's AP is the mean over these overlaps (cocodataset.org/#detection-eval)."""
RECALLS = np.linspace(0, 1, 101)
"""At which COCO reads the precision."""


def top1(outputs: Outputs, labels: np.ndarray) -> float:
    """Share of samples whose largest score is the label's; one output (N, classes), labels int (N,)."""
    return _within(outputs, labels, 1)


def top5(outputs: Outputs, labels: np.ndarray) -> float:
    """Share of samples whose label has one of the five largest scores; one output (N, classes), labels int (N,)."""
    return _within(outputs, labels, 5)


def _within(outputs: Outputs, labels: np.ndarray, count: int) -> float:
    (scores,) = _shaped("one output of one score for each class", outputs, (2,))
    _classes(labels, scores.shape[1], "the class of each sample", (len(scores),))
    if count == 1:
        return float((scores.argmax(axis=1) == labels).mean())
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return float((best == labels[:, None]).any(axis=1).mean())


def miou(outputs: Outputs, labels: np.ndarray) -> float:
    """Mean over the classes that occur of intersection by union; one output (N, classes, H, W), labels int (N, H, W)."""
    (scores,) = _shaped("one output (classes, height, width) of scores", outputs, (4,))
    counted = (labels >= 0) & (labels != IGNORED)
    _classes(labels[counted], scores.shape[1], "the class of each pixel", None)
    if labels.shape != (len(scores), *scores.shape[2:]):
        raise _labels(labels, f"one class for each pixel, shape {(len(scores), *scores.shape[2:])}")
    found, wanted = scores.argmax(axis=1)[counted], labels[counted]
    count = scores.shape[1]
    confusion = np.bincount(wanted.astype(np.int64) * count + found, minlength=count**2).reshape(count, count)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - np.diag(confusion)
    if not union.any():
        raise _labels(labels, f"at least one pixel that is not ignored (negative or {IGNORED})")
    return float((np.diag(confusion)[union > 0] / union[union > 0]).mean())


def mean_ap(outputs: Outputs, labels: np.ndarray) -> float:
    """COCO's mean average precision over classes and overlaps 0.50 to 0.95.

    Two outputs: boxes (N, boxes, 4) as x1, y1, x2, y2, and scores (N, boxes, classes), after whatever suppression the
    model has; a box counts for the class of its largest score. Labels float (N, objects, 5): class, x1, y1, x2, y2; rows of
    class -1 fill up.
    """
    boxes, scores = _shaped("boxes (boxes, 4) and scores (boxes, classes)", outputs, (3, 3))
    if labels.ndim != 3 or labels.shape[2] != 5 or len(labels) != len(boxes):
        raise _labels(labels, "class, x1, y1, x2, y2 of each object: shape (samples, objects, 5)")
    _classes(labels[..., 0][labels[..., 0] >= 0], scores.shape[2], "the class of each object", None)
    present = np.unique(labels[..., 0][labels[..., 0] >= 0]).astype(int)
    if not len(present):
        raise _labels(labels, "at least one object")
    classes = scores.argmax(axis=2)
    return float(np.mean([_class_ap(boxes, scores.max(axis=2), classes == each, labels, each) for each in present]))


def _class_ap(boxes: np.ndarray, scores: np.ndarray, kept: np.ndarray, labels: np.ndarray, which: int) -> float:
    image, index = np.nonzero(kept)
    order = np.argsort(-scores[image, index], kind="stable")
    image, index = image[order], index[order]
    objects = [each[each[:, 0] == which, 1:] for each in labels]
    overlaps = [_iou(boxes[at, place], objects[at]) for at, place in zip(image, index, strict=True)]
    total = sum(len(each) for each in objects)
    return float(np.mean([_ap(image, overlaps, objects, total, least) for least in IOUS]))


def _ap(
    image: np.ndarray, overlaps: Sequence[np.ndarray], objects: Sequence[np.ndarray], total: int, least: float
) -> float:
    free = [np.ones(len(each), bool) for each in objects]
    right = np.zeros(len(image), bool)
    for rank, (at, found) in enumerate(zip(image, overlaps, strict=True)):
        open_ones = np.where(free[at], found, -1.0)
        if len(open_ones) and open_ones.max() >= least:
            right[rank] = True
            free[at][open_ones.argmax()] = False
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(hits / total, RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(reached, len(precision))].mean())


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(np.clip(others[:, 2:] - others[:, :2], 0, None), axis=1)
    union = np.prod(np.clip(box[2:] - box[:2], 0, None)) + areas - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


METRICS: Mapping[str, Callable[[Outputs, np.ndarray], float]] = {
    "top1": top1, "top5": top5, "miou": miou, "map": mean_ap,
}  # fmt: skip


def _shaped(wanted: str, outputs: Outputs, ranks: tuple[int, ...]) -> Outputs:
    if tuple(each.ndim for each in outputs) != ranks:
        shapes = ", ".join(str(each.shape[1:]) for each in outputs)
        raise BridgeError(
            where="--metric",
            problem=f"takes {wanted}; for one sample the model gives {shapes}",
            remedy="Give a metric that fits, or your own: --metric module:function(outputs, labels).",
        )
    return outputs


def _classes(labels: np.ndarray, count: int, what: str, shape: tuple[int, ...] | None) -> None:
    whole = labels.dtype.kind in "iu" or (labels == np.floor(labels)).all()
    if not whole or (shape is not None and labels.shape != shape):
        raise _labels(labels, f"{what} as an integer")
    if len(labels) and not 0 <= labels.min() <= labels.max() < count:
        raise _labels(
            labels,
            f"classes 0 to {count - 1}, as many as the model has (they go from {labels.min():g} to {labels.max():g})",
        )


def _labels(labels: np.ndarray, wanted: str) -> BridgeError:
    return BridgeError(
        where="labels", problem=f"are {labels.dtype} of shape {labels.shape}", remedy=f"The metric wants {wanted}."
    )
