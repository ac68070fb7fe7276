"""Writes docs/operators.md from the docstrings of the lowerings: `python docs/operators.py`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).with_suffix(".md")

_HEAD = """# What the exact bridge writes

<!-- Written by docs/operators.py from the docstrings in bridge/exact; a test fails when this page is stale. -->

`python -m bridge model.onnx` refuses every operator that is not on this page, naming the node. How to add one:
[adding-an-operator.md](adding-an-operator.md).

Everywhere: activations, weights and outputs keep the codes and scales that training gave them; activations are stored
channels last; a bias is int32 at input scale * weight scale. What is said below is what an operator adds to that."""


def page() -> str:
    """The whole page."""
    from bridge.exact import lowering, operators
    from bridge.exact.operators.record import Vanishes
    from bridge.exact.passes.fold import _FOLDERS
    from bridge.exact.passes.normalize import __doc__ as spellings

    families = [getattr(lowering, name) for name in lowering.__all__ if inspect.ismodule(getattr(lowering, name))]
    sections = [_HEAD, *(_family(family) for family in families)]
    sections.append(
        "## Spellings\n\nThese leave `bridge/exact/passes/normalize.py` in one form, and are lowered in that:\n\n"
        + _table(("ONNX operator", "becomes"), _spellings(spellings or ""))
    )
    sections.append(
        "## Where no operator is left\n\n"
        f"`QuantizeLinear` and `DequantizeLinear` become the scales of tensors; {_codes(sorted(operators.named(lambda each: each.vanishes is Vanishes.COPY)))} and a "
        "`Cast` to the same type vanish; batch normalization, `Mul`, `Div`, `Add` and `Sub` by a constant go into the "
        "weights before them; `Relu` and `Clip` into the operator before them. Of constants only, these are computed "
        f"while converting: {_codes(sorted(_FOLDERS))}."
    )
    sections.append("## Limits of the kernels\n\n" + _limits())
    return "\n\n".join(sections) + "\n"


def _family(family: ModuleType) -> str:
    rows = [_row(lowering) for lowering in _lowerings(family)]
    title = (family.__doc__ or "").strip().rstrip(".")
    return f"## {title}\n\n" + _table(("ONNX operator", "TFLite operator", "kept, changed, refused"), rows)


def _lowerings(family: ModuleType) -> Iterator[Callable[..., object]]:
    from bridge.exact.lowering import LOWERINGS

    return iter(dict.fromkeys(lower for lower in LOWERINGS.values() if lower.__module__ == family.__name__))


def _row(lowering: Callable[..., object]) -> tuple[str, str, str]:
    """A docstring `ONNX -> TFLITE: more. Still more.` as the cells of its row."""
    text = " ".join(inspect.cleandoc(lowering.__doc__ or "").split())
    onnx_side, _, rest = text.partition(" -> ")
    becomes, mark, more = re.match(r"(.*?)(: |; |\. |\.$|$)(.*)", rest).groups()  # type: ignore[union-attr]
    if mark == "; ":
        more = more[:1].upper() + more[1:]
    return _coded(onnx_side), _coded(becomes), _coded(more[:1].upper() + more[1:])


def _spellings(told: str) -> Iterator[tuple[str, str]]:
    for line in told.splitlines():
        before, arrow, after = line.partition(" -> ")
        if arrow:
            yield _coded(before.strip()), _coded(after.strip())


def _limits() -> str:
    from bridge.exact.limits import LIMITS

    rows = [(f"`{op}`", f"{limit.below:.0f}", limit.happens) for op, limit in sorted(LIMITS.items())]
    return (
        "Refused, because one step of the input would be so many steps of the output (for products: one step of the "
        "accumulator):\n\n" + _table(("TFLite operator", "from", "what would happen"), rows) + "\n\n" + _axes()
    )


def _axes() -> str:
    from bridge.exact.ranks import MOST, MOST_AXES

    rows = [(f"`{op}`", str(most)) for op, most in sorted(MOST_AXES.items())]
    return (
        "Neighbouring axes that are treated alike are merged by a `RESHAPE` where an operator has more axes than its "
        f"kernels count; what stays above is refused. All other operators: {MOST} axes.\n\n"
        + _table(("TFLite operator", "axes"), rows)
    )


def _coded(text: str) -> str:
    """The operators and files a sentence names, as code."""
    from bridge.exact.lowering import LOWERINGS
    from bridge.exact.passes.normalize import SPELLINGS
    from bridge.exact.schema import OPERATORS

    words = "|".join(sorted({*LOWERINGS, *SPELLINGS, *OPERATORS}, key=len, reverse=True))
    marked = re.sub(rf"(?<![\w/])({words}|[a-z]+/[a-z_0-9]+\.(?:py|h|cc))(?![\w/])", r"`\1`", text)
    return marked.replace("|", "\\|").replace("*", "\\*")


def _codes(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    sys.path.insert(0, str(PAGE.parents[1]))
    PAGE.write_text(page(), encoding="utf-8")
