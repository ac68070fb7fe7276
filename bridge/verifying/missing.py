"""A package that verification needs and that is not installed."""

from __future__ import annotations

from bridge.errors import BridgeError


def missing(package: str, extra: str) -> BridgeError:
    return BridgeError(
        where="verification",
        problem=f"needs {package}, which is not installed",
        remedy=f"Install it with: pip install '.[{extra}]'",
    )
