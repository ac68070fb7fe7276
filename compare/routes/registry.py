"""The registry: every way from a form of a model to a .tflite, for every command."""

from __future__ import annotations

from collections.abc import Sequence

from compare.routes import exact, fake_quant, keras, litert_torch, onnx2tf, onnxruntime
from compare.routes.model import Route, Variant
from compare.running.globs import chosen

ROUTES: tuple[Route, ...] = tuple(
    route for family in (exact, fake_quant, onnx2tf, onnxruntime, litert_torch, keras) for route in family.ROUTES
)
"""A family is one file beside this one; reports list routes in this order."""


def jobs(forms: Sequence[str]) -> tuple[Route, ...]:
    """The routes that some toolchain goes from any of these forms."""
    return tuple(route for route in ROUTES if route.job is not None and route.form in forms)


def matching(patterns: Sequence[str], forms: Sequence[str], option: str = "--routes") -> tuple[Route, ...]:
    """Of `jobs` those whose name matches any of the globs; all of them without globs.

    Raises `BridgeError`, in the words of the `option`, when a glob matches nothing.
    """
    return chosen({route.name: route for route in jobs(forms)}, patterns, option, "matches no route for this model")


def by_name(name: str) -> Route:
    """The route of this name, which is one."""
    return next(route for route in ROUTES if route.name == name)


def variants() -> tuple[tuple[Route, Variant], ...]:
    """Everything that is made here of MNIST's networks, in the order of a report."""
    return tuple((route, variant) for route in ROUTES for variant in route.variants)
