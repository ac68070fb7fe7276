"""Whether a .tflite computes what its ONNX file says, told without anything of the bridge.

The reference is ONNX Runtime with all optimizations off, on the file as it is; onnx's own evaluator where ONNX Runtime
refuses it. The .tflite runs in LiteRT, on XNNPACK and on the reference kernels. What is assumed of the bridge is what
its documentation promises: inputs and outputs in the model's order, 4-D ones channels last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx.reference
from onnx import helper, numpy_helper

from bridge.verifying.litert import KERNELS, Kernels, as_users_make_it
from bridge.verifying.onnx_runtime import session

Arrays = dict[str, np.ndarray]

LIMIT = 2.0
"""LSB of the output up to which a difference needs no explanation: roundings of a few operators in a row."""


MOVING = frozenset(("derived", "weights", "inherited", "fixed", "symmetric", "twice", "rounded", "grid", "bias"))
"""Kinds of notes that say that a value can be off (docs/verifying.md)."""


@dataclass(frozen=True)
class Judgement:
    """What was found out about one file."""

    verdict: str
    """equal, rounding, noted, no reference, not finite; or a fault: wrong, not loadable, other outputs."""
    lsb: float = 0.0
    """The largest difference of an output, in steps of its scale."""
    why: str = ""


class NoReference(Exception):  # noqa: N818 - an outcome, not an error
    """Neither ONNX Runtime nor onnx's evaluator computes the model."""


class Reference:
    """An ONNX model ready to run; real inputs in, real outputs out."""

    def __init__(self, model: onnx.ModelProto) -> None:
        model = _without_node_names(model)
        self.names = [output.name for output in model.graph.output]
        try:
            self._session: Any = _onnx_runtime(model)
            self.names = [output.name for output in self._session.get_outputs()]
        except Exception:  # noqa: BLE001 - whatever its reason, the second evaluator is asked
            try:
                self._session = onnx.reference.ReferenceEvaluator(model)
            except Exception as error:
                raise NoReference(str(error)) from error

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        try:
            return [np.asarray(value) for value in self._session.run(self.names, dict(inputs))]
        except Exception as error:
            raise NoReference(str(error)) from error


_KNOWN_OPSET = 21
"""The newest whose QuantizeLinear and DequantizeLinear ONNX Runtime 1.23 computes."""


def _onnx_runtime(model: onnx.ModelProto) -> Any:
    """A session; of a newer opset's model that is a valid one of the older opset too, since between them (21 to 25) the
    operators got types and optional attributes, no other meaning. onnx's evaluator has faults of its own (1.19.1: a 1-D
    Conv with auto_pad VALID gives one element too many)."""
    try:
        return session(model.SerializeToString())
    except Exception:
        opsets = [each for each in model.opset_import if each.domain in ("", "ai.onnx")]
        if not opsets or opsets[0].version <= _KNOWN_OPSET:
            raise
        older = onnx.ModelProto()
        older.CopyFrom(model)
        for each in older.opset_import:
            each.version = _KNOWN_OPSET if each.domain in ("", "ai.onnx") else each.version
        onnx.checker.check_model(older)
        return session(older.SerializeToString())


def _without_node_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Names of nodes mean nothing, and ONNX Runtime refuses two alike."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for node in made.graph.node:
        node.name = ""
    return made


class NotLoadable(Exception):  # noqa: N818 - an outcome, not an error
    """LiteRT refuses the file, or fails while it runs it."""


class Runner:
    """A .tflite ready to run on one kernel set; arrays as the file stores them."""

    def __init__(self, content: bytes, kernels: Kernels) -> None:
        try:
            self._interpreter = as_users_make_it(content, kernels)
        except (RuntimeError, ValueError) as error:
            raise NotLoadable(f"{kernels}: {error}") from error
        self.inputs = self._interpreter.get_input_details()
        self.outputs = self._interpreter.get_output_details()

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        try:
            for detail, array in zip(self.inputs, arrays, strict=True):
                self._interpreter.set_tensor(detail["index"], array)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise NotLoadable(str(error)) from error
        return [self._interpreter.get_tensor(detail["index"]) for detail in self.outputs]


def to_onnx_order(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


def real(detail: Mapping[str, Any], codes: np.ndarray) -> np.ndarray:
    """The real numbers that codes mean; floats are what they are. float64."""
    scale, zero_point = detail["quantization"]
    return codes.astype(np.float64) if not scale else (codes.astype(np.float64) - zero_point) * np.float64(scale)


def drawn_inputs(
    runner: Runner,
    model: onnx.ModelProto,
    random: np.random.Generator,
    samples: int,
    fed: Mapping[str, tuple[int, int]],
) -> list[Arrays]:
    """Inputs that both sides can take exactly: codes of the file, and the float32 numbers that they mean.

    `fed`: the codes that the conversion's notes ask for, by input.
    Each sample: arrays of the file by "file:NAME", of the ONNX model by "onnx:NAME".
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    steps = _steps_of_inputs(model, constants)
    values = {value.name: value for value in model.graph.input if value.name not in constants}
    found = []
    for index in range(samples):
        sample: Arrays = {}
        for detail, name in zip(runner.inputs, _names(runner, list(values)), strict=True):
            shape, dtype = tuple(detail["shape"]), detail["dtype"]
            array = _drawn(shape, np.dtype(dtype), int(detail["quantization"][1]), index, random)
            if array.dtype.kind == "f":
                array = (_apart_from_ties(array * steps[name], steps[name] / 30) if name in steps else array).astype(
                    dtype
                )
            if name in fed:
                array = np.clip(array, *fed[name]).astype(dtype)
            sample[f"file:{detail['name']}"] = array
            given = to_onnx_order(real(detail, array)).astype(np.float32)
            elem = values[name].type.tensor_type.elem_type
            try:
                wanted = helper.tensor_dtype_to_np_dtype(elem)
            except KeyError as error:
                raise NoReference(f"input '{name}' is of type {elem}") from error
            if wanted != np.float32:
                given = to_onnx_order(array.astype(np.int64) + (128 if wanted == np.uint8 else 0)).astype(wanted)
            sample[f"onnx:{name}"] = np.ascontiguousarray(given)
        found.append(sample)
    return found


def _apart_from_ties(array: np.ndarray, step: float) -> np.ndarray:
    """Real inputs that nobody rounds the other way: the runtimes multiply or divide by the scale."""
    whole = np.rint(array / step)
    moved: np.ndarray = (whole + np.clip(array / step - whole, -0.45, 0.45)) * step
    return moved


def given_inputs(runner: Runner, given: Mapping[str, np.ndarray]) -> list[Arrays]:
    """The same for real inputs that somebody chose: quantized to the file's codes as QuantizeLinear does."""
    found: list[Arrays] = []
    names = _names(runner, list(given))
    for place, detail in enumerate(runner.inputs):
        array = given[names[place]].astype(np.float32)
        size = int(np.prod(detail["shape"]))
        if not size or array.size % size:
            raise NoReference(
                f"input '{names[place]}' has shape {array.shape}, the file takes {tuple(detail['shape'])}"
            )
        per_run = array.shape[0] * size // array.size
        for index, part in enumerate(array.reshape(-1, per_run, *array.shape[1:])):
            real_part = part.transpose(0, 2, 3, 1) if part.ndim == 4 else part
            if real_part.shape != tuple(detail["shape"]):
                raise NotLoadable(f"input '{names[place]}' is of shape {tuple(detail['shape'])}, not {real_part.shape}")
            if len(found) <= index:
                found.append({})
            scale, zero_point = detail["quantization"]
            codes = np.rint(real_part / np.float32(scale)) + zero_point if scale else real_part
            info = np.iinfo(detail["dtype"]) if np.dtype(detail["dtype"]).kind in "iu" else None
            found[index][f"file:{detail['name']}"] = (np.clip(codes, info.min, info.max) if info else codes).astype(
                detail["dtype"]
            )
            found[index][f"onnx:{names[place]}"] = part
    return found


def _input_names(model: onnx.ModelProto) -> list[str]:
    """Those without a default, dense or sparse."""
    given = {tensor.name for tensor in model.graph.initializer}
    given |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return [value.name for value in model.graph.input if value.name not in given]


def _names(runner: Runner, known: Sequence[str]) -> list[str]:
    """The model's name of each input of the file: its own, or by place where the file has names of its own for them."""
    names = [str(detail["name"]) for detail in runner.inputs]
    return names if set(names) <= set(known) else list(known)[: len(names)]


def _steps_of_inputs(model: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto]) -> dict[str, float]:
    """Thirty steps of the scale with which each real input is quantized, however many operators later: 2^31 of them end
    LiteRT's QUANTIZE."""
    makers = {name: node for node in model.graph.node for name in node.output}
    steps = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and len(node.input) > 1 and node.input[1] in constants:
            source = node.input[0]
            for _ in model.graph.node:
                if source not in makers or makers[source].op_type == "DequantizeLinear" or not makers[source].input:
                    break
                source = makers[source].input[0]
            steps.setdefault(source, 30 * float(np.max(numpy_helper.to_array(constants[node.input[1]]))))
    return steps


def _drawn(
    shape: tuple[int, ...], dtype: np.dtype, zero_point: int, index: int, random: np.random.Generator
) -> np.ndarray:
    """Codes over the whole range, around its middle, near the zero point (where nothing saturates), at the ends."""
    if dtype.kind == "f":
        return (random.normal(size=shape) * (1.0, 10.0, 0.1, 3.0)[index % 4]).astype(dtype)
    info = np.iinfo(dtype) if dtype.itemsize == 1 else np.iinfo(np.int8)
    middle = (int(info.min) + int(info.max) + 1) // 2
    codes = (
        random.integers(info.min, info.max + 1, shape),
        np.rint(random.normal(size=shape) * 30) + middle,
        np.rint(random.normal(size=shape) * 3) + zero_point,
        random.choice([info.min, info.max, middle], shape),
    )[index % 4]
    return np.clip(codes, info.min, info.max).astype(dtype)


def judge(
    model: onnx.ModelProto,
    tflite: bytes,
    noted: Sequence[str],
    random: np.random.Generator,
    fed: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    samples: int = 8,
    given: Mapping[str, np.ndarray] | None = None,
    own_names: bool = False,
    phase: Callable[[str], None] = lambda _: None,
) -> Judgement:
    """The verdict on one conversion; `noted`, `fed`: what its notes say, kinds and codes that inputs take.

    `given`: real inputs by name, samples along the first axis in the model's order; without them, drawn ones.
    `own_names`: the file may call its inputs otherwise than the model does. `phase`: told before and after the
    reference computes, which ends the process of some broken models.
    """
    try:
        runners = {kernels: Runner(tflite, kernels) for kernels in KERNELS}
        first = runners["xnnpack"]
        inputs = drawn_inputs(first, model, random, samples, fed) if given is None else given_inputs(first, given)
        got = {
            kernels: [runner([sample[f"file:{detail['name']}"] for detail in runner.inputs]) for sample in inputs]
            for kernels, runner in runners.items()
        }
    except NotLoadable as error:
        return Judgement("not loadable", why=str(error)[:300])
    except NoReference as error:
        return Judgement("no reference", why=str(error)[:200])
    if not own_names and {detail["name"] for detail in first.inputs} != set(_input_names(model)):
        return Judgement("other outputs", why=f"inputs {[detail['name'] for detail in first.inputs]}")
    asked = [{key[5:]: value for key, value in sample.items() if key.startswith("onnx:")} for sample in inputs]
    phase("reference")
    if "pytorch" in noted:
        model = _padding_as_pytorch(model)
    try:
        reference = Reference(model)
        expected = [reference(sample) for sample in asked]
    except NoReference as error:
        return Judgement("no reference", why=str(error)[:200])
    phase("judge")
    details = runners["xnnpack"].outputs
    mismatch = _other_outputs(details, got["xnnpack"][0], model, expected[0])
    if mismatch and _as_inferred(model, details, got["xnnpack"][0]):
        return Judgement("no reference", why=f"ONNX Runtime gives another shape than onnx's own inference: {mismatch}")
    if mismatch:
        return Judgement("other outputs", why=mismatch)
    if not all(np.isfinite(value).all() for sample in expected for value in sample if value.dtype.kind == "f"):
        return Judgement("not finite")
    order = _order(details, reference.names)
    units = [
        _unit(
            detail,
            [sample[order[i]] for sample in expected],
            [outputs[i] for each in got.values() for outputs in each],
            _step_before(model, reference.names[order[i]]),
        )
        for i, detail in enumerate(details)
    ]
    worst = max(
        _apart(details[i], codes[i], sample[order[i]], units[i])
        for outputs in got.values()
        for codes, sample in zip(outputs, expected, strict=True)
        for i in range(len(details))
    )
    if worst <= LIMIT:
        return Judgement("equal", worst)
    return _explained(model, units, order, asked, expected, worst, noted, random)


_SQUARE_PADDING = 18
"""Up to this opset ONNX Runtime 1.23 counts the padding of an average as PyTorch does."""


def _padding_as_pytorch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model for a reference that counts padding as the note says ("pytorch"): the same operators, an older opset."""
    older = onnx.ModelProto()
    older.CopyFrom(model)
    for item in older.opset_import:
        if item.domain in ("", "ai.onnx"):
            item.version = min(item.version, _SQUARE_PADDING)
    try:
        Reference(older)
    except NoReference:
        return model
    return older


def _order(details: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[int]:
    """Where each output of the file stands among the model's."""
    return [list(names).index(detail["name"]) if detail["name"] in names else i for i, detail in enumerate(details)]


def _other_outputs(
    details: Sequence[Mapping[str, Any]], got: Sequence[np.ndarray], model: onnx.ModelProto, expected: Sequence[Any]
) -> str:
    names = [output.name for output in model.graph.output]
    if len(details) != len(names):
        return f"{len(details)} outputs instead of {len(names)}"
    for detail, array, place in zip(details, got, _order(details, names), strict=True):
        shape = to_onnx_order(array).shape
        if shape != expected[place].shape:
            return f"output '{detail['name']}' has shape {shape}, the model's has {expected[place].shape}"
    return ""


def _as_inferred(model: onnx.ModelProto, details: Sequence[Mapping[str, Any]], got: Sequence[np.ndarray]) -> bool:
    """Whether the file's outputs have the shapes that ONNX's specification gives them, whatever ONNX Runtime does."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        return False
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in inferred.graph.output
    }
    return all(shapes.get(d["name"]) == to_onnx_order(array).shape for d, array in zip(details, got, strict=True))


_MOVING_ONLY = {
    "Clip",
    "Relu",
    "Reshape",
    "Transpose",
    "MaxPool",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Identity",
}


def _step_before(model: onnx.ModelProto, name: str) -> float:
    """The scale that the model gives an output that is only limited or moved behind a DequantizeLinear, else 0."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    while (node := producers.get(name)) is not None and node.op_type in _MOVING_ONLY:
        name = node.input[0]
    if node is None or node.op_type != "DequantizeLinear" or node.input[1] not in constants:
        return 0.0
    scale = numpy_helper.to_array(constants[node.input[1]])
    return float(scale.reshape(-1)[0]) if scale.size == 1 else 0.0


def _unit(detail: Mapping[str, Any], expected: Sequence[np.ndarray], got: Sequence[np.ndarray], step: float) -> float:
    """What one LSB of an output is: its scale; of floats, the model's own `step`, or 1/255 of what the output reaches."""
    scale = float(detail["quantization"][0])
    if scale:
        return scale
    for values in (expected, got):
        flat = np.concatenate([np.ravel(each).astype(np.float64) for each in values])
        size = max(float(np.ptp(flat)), float(np.abs(flat).max())) if flat.size else 0.0
        if size:
            return max(size / 255, step)
    return step or 1.0


def _apart(detail: Mapping[str, Any], codes: np.ndarray, expected: np.ndarray, unit: float) -> float:
    """The largest difference in LSB."""
    got = to_onnx_order(real(detail, codes))
    if expected.dtype.kind in "iu":
        shift = 128 if expected.dtype == np.uint8 and codes.dtype == np.int8 else 0
        return float(np.abs(to_onnx_order(codes).astype(np.int64) + shift - expected.astype(np.int64)).max(initial=0))
    wanted = expected.astype(np.float64)
    if detail["quantization"][0]:
        info = np.iinfo(codes.dtype)
        zero_point = detail["quantization"][1]
        wanted = np.clip(wanted, (info.min - zero_point) * unit, (info.max - zero_point) * unit)
    return float((np.abs(got - wanted) / unit).max(initial=0))


def _explained(
    model: onnx.ModelProto,
    units: Sequence[float],
    order: Sequence[int],
    given: Sequence[Arrays],
    expected: Sequence[Sequence[np.ndarray]],
    worst: float,
    noted: Sequence[str],
    random: np.random.Generator,
) -> Judgement:
    """Whether the reference moves as far itself when each of its roundings falls one step to the side, or what was noted happens."""
    for verdict, constants in (("rounding", False), ("noted", True)):
        if constants and not MOVING & set(noted):
            break
        reach = 0.0
        for _ in range(24):
            try:
                shaken = Reference(with_roundings_moved(model, random, constants))
                moved = [shaken(sample) for sample in given]
            except NoReference:
                continue
            for was, now in zip(expected, moved, strict=True):
                for i, unit in enumerate(units):
                    if was[order[i]].dtype.kind == "f":
                        change = np.abs(now[order[i]].astype(np.float64) - was[order[i]].astype(np.float64))
                        reach = max(reach, float(change.max(initial=0)) / unit)
            if worst <= 1.5 * reach + LIMIT:
                return Judgement(verdict, worst, f"the reference itself moves by {reach:.1f} LSB")
    return Judgement("wrong", worst, f"the reference itself moves by {reach:.1f} LSB only; notes: {sorted(set(noted))}")


_ROUNDS_IN_THE_FILE = {"AveragePool", "GlobalAveragePool", "ReduceMean", "Resize", "Softmax", "Sigmoid", "Tanh"}
"""Operators after which the file rounds even where the ONNX model has no QuantizeLinear."""


def with_roundings_moved(model: onnx.ModelProto, random: np.random.Generator, constants: bool) -> onnx.ModelProto:
    """The model with up to one step added, at random places, before every rounding of an activation.

    Inputs are left alone: both sides are given the same codes.

    `constants`: constants move by half a step of 8 bits too, and weight codes of -128 become -127, those of computed
    operands of MatMul as well.
    """
    made = _constants_listed(model)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    given = {value.name for value in made.graph.input}
    scales: dict[str, float] = {}
    nodes: list[onnx.NodeProto] = []
    for index, node in enumerate(made.graph.node):
        quantizes = node.op_type == "QuantizeLinear" and node.input[0] not in arrays and node.input[1] in arrays
        step = float(np.max(arrays[node.input[1]])) if quantizes else scales.get(node.input[0] if node.input else "")
        if node.op_type == "DequantizeLinear" and node.input[1] in arrays:
            scales[node.output[0]] = float(np.max(arrays[node.input[1]]))
        elif step is not None:
            scales.update(dict.fromkeys(node.output, step))
        if quantizes and step and node.input[0] not in given:
            inner = f"{node.input[0]}__moved_{index}"
            nodes += [*_moved(node.input[0], inner, step, random), node]
            node.input[0] = inner
        elif node.op_type in _ROUNDS_IN_THE_FILE and step:
            outer, inner = node.output[0], f"{node.output[0]}__exact"
            node.output[0] = inner
            finest = 1 / 128 if node.op_type in ("Softmax", "Sigmoid", "Tanh") else step
            nodes += [node, *_moved(inner, outer, finest, random)]
        else:
            nodes.append(node)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    if constants:
        _raise_operands(made, random)
        _move_constants(made, random)
        _move_offsets(made, scales, random)
        _move_limits(made, scales, random)
    return made


def _constants_listed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which Constant nodes are initializers."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    kept = []
    for node in made.graph.node:
        value = next((each.t for each in node.attribute if each.name == "value"), None)
        if node.op_type == "Constant" and value is not None and node.domain in ("", "ai.onnx"):
            made.graph.initializer.append(value)
            made.graph.initializer[-1].name = node.output[0]
        else:
            kept.append(node)
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made


def _raise_operands(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """The second operand of a MatMul never at its lowest code, as the note on weights of -128 says of computed ones."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in [node for node in model.graph.node if node.op_type == "MatMul"]:
        maker = makers.get(node.input[1])
        while maker is not None and maker.op_type in ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"):
            maker = makers.get(maker.input[0])
        if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] in arrays or random.random() < 0.3:
            continue
        scale = float(np.max(arrays[maker.input[1]]))
        zero_point = arrays.get(maker.input[2]) if len(maker.input) > 2 else None
        lowest, zero = (0, 0) if zero_point is None else (int(np.iinfo(zero_point.dtype).min), int(zero_point.max()))
        bound, raised = f"{node.input[1]}__lowest", f"{node.input[1]}__raised_{len(model.graph.node)}"
        if not any(tensor.name == bound for tensor in model.graph.initializer):
            least = np.array((lowest + 1 - zero) * scale, np.float32)
            model.graph.initializer.append(numpy_helper.from_array(least, bound))
        place = list(model.graph.node).index(node)
        model.graph.node.insert(place, helper.make_node("Max", [node.input[1], bound], [raised]))
        model.graph.node[place + 1].input[1] = raised


def _move_offsets(model: onnx.ModelProto, scales: Mapping[str, float], random: np.random.Generator) -> None:
    """An offset among the attributes becomes a bias, in steps of input scale times weight scale (8 bits: slope / 127)."""
    for node in model.graph.node:
        step = scales.get(node.input[0]) if node.op_type == "HardSigmoid" else None
        if step is None:
            continue
        given = {each.name: each.f for each in node.attribute}
        slope, offset = given.get("alpha", 0.2), given.get("beta", 0.5)
        kept = [each for each in node.attribute if each.name != "beta"]
        moved = offset + float(random.choice([-0.5, 0.0, 0.5])) * abs(slope) * step / 127
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("beta", float(moved))])


def _move_limits(model: onnx.ModelProto, scales: Mapping[str, float], random: np.random.Generator) -> None:
    """Limits lie on the grid of what they limit, up to half a step of it away ("rounded")."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for index, node in enumerate(model.graph.node):
        step = scales.get(node.input[0]) if node.op_type == "Clip" and node.input else None
        for place in range(1, len(node.input)) if step else ():
            if node.input[place] in constants:
                limit = numpy_helper.to_array(constants[node.input[place]])
                moved = (limit + random.uniform(-0.5, 0.5) * step).astype(limit.dtype)
                name = f"{node.input[place]}__limit_{index}_{place}"
                model.graph.initializer.append(numpy_helper.from_array(moved, name))
                node.input[place] = name


def _moved(source: str, target: str, step: float, random: np.random.Generator) -> list[onnx.NodeProto]:
    """target = source + noise: uniform in one step around it, or all of one sign, which reaches further in sums."""
    low, high = ((-step, step), (0.0, step), (-step, 0.0), (0.0, 0.0))[random.integers(4)]
    noise = f"{target}__noise"
    seed = float(random.integers(1 << 20))
    return [
        helper.make_node("RandomUniformLike", [source], [noise], low=float(low), high=float(high), seed=seed),
        helper.make_node("Add", [source, noise], [target]),
    ]


def _move_constants(model: onnx.ModelProto, random: np.random.Generator) -> None:
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype in (np.int8, np.uint8) and array.size > 1 and random.random() < 0.5:
            least = array.dtype.type(np.iinfo(array.dtype).min + 1)
            tensor.CopyFrom(numpy_helper.from_array(np.maximum(array, least), tensor.name))
        elif array.dtype == np.float32 and array.ndim and array.size > 1:
            step = np.abs(array).max(initial=0) / 127
            shift = random.choice([-0.5, 0.0, 0.5]) * step
            moved = array + np.float32(shift) * random.choice([-1, 1], array.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), tensor.name))
