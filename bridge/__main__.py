"""python -m bridge model.onnx -o model.tflite: arguments, one call, exit code."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from bridge.errors import BridgeError
from bridge.exit_codes import Program, ends_properly
from bridge.terminal import Terminal, write_json

app = Program(add_completion=False, pretty_exceptions_enable=False)


class IO(str, enum.Enum):
    int8 = "int8"
    uint8 = "uint8"
    float32 = "float32"


class Requantize(str, enum.Enum):
    add = "add"
    quantize = "quantize"


class Weights(str, enum.Enum):
    safe = "safe"
    keep = "keep"
    refuse = "refuse"


class Mean(str, enum.Enum):
    auto = "auto"
    conv = "conv"
    fine = "fine"
    inherit = "inherit"


class KernelSets(str, enum.Enum):
    both = "both"
    xnnpack = "xnnpack"
    reference = "reference"


class Dense(str, enum.Enum):
    fully_connected = "fully-connected"
    conv = "conv"


@app.command()
@ends_properly
def main(
    model: Annotated[Path, typer.Argument(help="ONNX file with QuantizeLinear and DequantizeLinear.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: beside the model.")] = None,
    io: Annotated[IO, typer.Option(help="Type of the model's inputs and outputs.")] = IO.int8,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            help="nhwc (default): inputs and outputs with 4 axes have their channels last, all others keep the axes of "
            "the model. nchw: all keep the axes of the model. NAME=nhwc or NAME=nchw: of one input or output, which may "
            "have 3 axes or more; several with commas, or the option again."
        ),
    ] = None,
    allow_float: Annotated[
        bool,
        typer.Option(
            "--allow-float",
            help="Leave in float what has no scale, neither trained nor following from one, instead of refusing.",
        ),
    ] = False,
    requantize: Annotated[
        Requantize, typer.Option(help="Operator between two trained scales; add is exact on XNNPACK.")
    ] = Requantize.add,
    per_channel_dense: Annotated[
        Dense, typer.Option(help="Operator of dense layers with a scale for each channel; conv for Vela before 4.0.")
    ] = Dense.fully_connected,
    weights: Annotated[
        Weights,
        typer.Option(
            help="Weight codes of -128 that kernels for ARM add wrongly: make them -127, keep them (right on x86 and "
            "Cortex-M), or stop."
        ),
    ] = Weights.safe,
    max_elements: Annotated[
        int | None, typer.Option(help="Elements of one tensor, and of all constants that are computed.", min=1)
    ] = None,
    max_nodes: Annotated[int | None, typer.Option(help="Operators of the model, functions written out.", min=1)] = None,
    mean: Annotated[
        Mean,
        typer.Option(
            help="Averages without a trained scale. conv: inside the dense layer or 1x1 convolution behind them, exactly, "
            "at the cost of larger weights. fine: rounded finer, in up to 8 slices of their range. inherit: rounded at the "
            "scale of their input. auto: conv where the file grows by a quarter of its weights at most, else as many slices "
            "as that allows."
        ),
    ] = Mean.auto,
    input_shape: Annotated[
        list[str] | None, typer.Option(help="NAME=1,3,224,224: fix what the model leaves open.")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(help="NPZ with float32 inputs by name: hold the result against ONNX Runtime.")
    ] = None,
    max_lsb: Annotated[
        int | None, typer.Option(help="With --verify: exit 1 when an output is further away, on any of --kernels.")
    ] = None,
    max_diff: Annotated[
        float | None, typer.Option(help="The same as a fraction of the output's range in the reference: 0.01 is 1 %.")
    ] = None,
    kernels: Annotated[
        KernelSets, typer.Option(help="With --verify: LiteRT's kernels that run the file; each must keep the limits.")
    ] = KernelSets.both,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON record instead.")] = False,
    notes: Annotated[bool, typer.Option("--notes", help="List everything that was done, tensor by tensor.")] = False,
) -> None:
    """Convert a quantization-aware trained ONNX model, or a .pt2 of torch.export, to int8 TFLite, every trained scale kept."""
    from bridge.exact.budget import MAX_ELEMENTS, MAX_NODES
    from bridge.exact.convert import Options

    order, orders = _layouts(layout or [])
    options = Options(
        io=io.value,
        layout=order,
        layouts=orders,
        allow_float=allow_float,
        requantize="ADD" if requantize is Requantize.add else "QUANTIZE",
        mean=mean.value,
        per_channel_dense="CONV_2D" if per_channel_dense is Dense.conv else "FULLY_CONNECTED",
        weights=weights.value,
        max_elements=max_elements or MAX_ELEMENTS,
        max_nodes=max_nodes or MAX_NODES,
    )
    limits = _limits(verify, max_lsb, max_diff, kernels)
    target = output or model.parent / f"{model.stem}.tflite"
    shapes = dict(map(_shape, input_shape or []))
    conversion, verification = _convert(model, target, options, shapes, verify, kernels)
    if as_json:
        _print_json(model, target, conversion, verification)
    else:
        _print(model, target, conversion, verification, notes)
    missed = verification.missed(limits) if verification else ()
    for sentence in missed:
        Terminal(stderr=True, soft_wrap=True).print_line(sentence, style="red")
    raise typer.Exit(1 if missed else 0)


def _convert(
    model: Path, target: Path, options: Any, shapes: dict[str, list[int]], inputs: Path | None, kernels: KernelSets
) -> Any:
    """Convert, verify where inputs were given, and only then write the file."""
    from bridge.exact.convert import convert, save
    from bridge.exact.reader import files_of
    from bridge.exact.saving import refuse_target

    refuse_target(target, (model, *([] if inputs is None else [inputs])))
    refuse_target(target, files_of(model) if target.exists() else ())
    if model.suffix == ".pt2":
        conversion = _convert_exported(model, options, shapes, inputs)
        save(conversion.tflite, target)
        return conversion, None
    arrays = None if inputs is None else _load(inputs)
    conversion = convert(model, options, shapes)
    verification = None
    if arrays is not None:
        from bridge.verifying.litert import KERNELS
        from bridge.verifying.verification import verify

        sets = KERNELS if kernels is KernelSets.both else (kernels.value,)
        verification = verify(model, conversion.graph, conversion.tflite, arrays, kernel_sets=sets)
    save(conversion.tflite, target)
    return conversion, verification


def _convert_exported(model: Path, options: Any, shapes: dict[str, list[int]], inputs: Path | None) -> Any:
    """A program of torch.export; what holds it against its own arithmetic is PyTorch's, not ONNX Runtime's."""
    if shapes or inputs is not None:
        option = "--input-shape" if shapes else "--verify"
        raise BridgeError(
            where=option,
            problem="is for ONNX files: a .pt2 file has fixed shapes, and PyTorch as its reference",
            remedy="Without it; to compare: bridge.verify(program, bridge.convert(program, example, path), inputs) in Python.",
        )
    from bridge import convert_pt2

    return convert_pt2(model, options)


def _print_json(model: Path, target: Path, conversion: Any, verification: Any) -> None:
    from bridge.exact.record import record

    said = {"model": str(model), "output": str(target)} | record(conversion)
    if verification is not None:
        from bridge.verifying.record import record as verified

        said["verification"] = verified(verification)
    write_json(said)


def _print(model: Path, target: Path, conversion: Any, verification: Any, notes: bool) -> None:
    from bridge.exact import record

    console = Terminal(soft_wrap=True)
    size, milliseconds = len(conversion.tflite) / 1024, conversion.seconds * 1000
    console.print_line(f"{model} -> {target}  {size:,.0f} KB in {milliseconds:,.0f} ms", style="bold")
    for line in record.lines(conversion):
        console.print_line(f"  {line}")
    for line in record.warnings(conversion):
        console.print_line(f"  note  {line}", style="yellow")
    for note in conversion.notes if notes else ():
        console.print_line(f"  {note.kind}: {note.where}: {note.what}", style="dim")
    if verification is not None:
        from bridge.verifying.record import lines

        for line in lines(verification):
            console.print_line(f"  {line}")


def _limits(inputs: Path | None, max_lsb: int | None, max_diff: float | None, kernels: KernelSets) -> Any:
    """The limits of the verification; a limit without a verification would never be missed."""
    option = "--max-lsb" if max_lsb is not None else "--max-diff" if max_diff is not None else None
    if option is None and kernels is not KernelSets.both:
        option = f"--kernels {kernels.value}"
    if inputs is None and option is None:
        return None
    if inputs is None:
        raise BridgeError(
            where=f"{option}",
            problem="limits what --verify measures, and --verify is not there",
            remedy="Add --verify inputs.npz, with one float32 array for each input of the model.",
        )
    from bridge.verifying.limits import Limits

    return Limits(max_lsb, max_diff)


_LAYOUT = re.compile(r"(?:(nhwc|nchw)|(.+?)=(nhwc|nchw))(?:,|$)", re.DOTALL)
"""`nhwc`, or `NAME=nhwc`, up to a comma or the end; so a name may have commas and equal signs of its own."""


def _layouts(texts: list[str]) -> tuple[Any, dict[str, Any]]:
    """What all `--layout` together say: of everything, and of single inputs and outputs."""
    everything: str | None = None
    named: dict[str, str] = {}
    for text in texts:
        end = 0
        while end < len(text) or not text:
            match = _LAYOUT.match(text, end)
            if match is None:
                raise BridgeError(
                    where=f"--layout {text}",
                    problem="is not nhwc, nchw, or NAME=nhwc or NAME=nchw, separated by commas",
                    remedy="For example: --layout nchw, or --layout input=nhwc,output=nchw",
                )
            end = match.end()
            order, name = match[1] or match[3], match[2]
            before = everything if name is None else named.get(name)
            if before not in (None, order):
                raise BridgeError(
                    where=f"--layout {text}",
                    problem=f"says {before} and {order} of {'everything' if name is None else name}",
                    remedy="Say one of them.",
                )
            if name is None:
                everything = order
            else:
                named[name] = order
    return everything or "nhwc", named


def _shape(text: str) -> tuple[str, list[int]]:
    name, _, sizes = text.rpartition("=")
    try:
        return name, [int(size) for size in sizes.split(",")]
    except ValueError as error:
        raise BridgeError(
            where=f"--input-shape {text}",
            problem="is not NAME=number,number,...",
            remedy="For example: --input-shape input=1,3,224,224",
        ) from error


def _load(path: Path) -> dict[str, Any]:
    from bridge.arrays import load_arrays

    return load_arrays(path, "Save it with numpy.savez(path, input=array); one float32 array for each input.")


if __name__ == "__main__":
    app()
