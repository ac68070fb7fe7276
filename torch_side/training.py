"""Float training, QAT fine-tuning, post-training calibration and evaluation in PyTorch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.ao import quantization as tq

from bridge.errors import BridgeError
from torch_side.network import FUSABLE
from torch_side.qconfigs import qconfig_named

OnEpoch = Callable[[int, int], None]


def _as_input(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, 28, 28) to float32 (N, 1, 28, 28) in 0..1, as the article scales its pixels."""
    return torch.from_numpy(images.astype(np.float32) / np.float32(255.0)).unsqueeze(1)


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Hold back what torch 2.13 says at every call about the future of eager quantization (catalogue entry M12)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.ao\.quantization is deprecated.*")
        warnings.filterwarnings("ignore", message=r".*quantized dtypes.*")
        warnings.filterwarnings("ignore", message=r".*reduce_range will be deprecated.*")
        warnings.filterwarnings("ignore", message=r".*(quint8|qint8|qint32).*")
        warnings.filterwarnings("ignore", message=r".*must run observer before calling calculate_qparams.*")
        yield


def fit(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    freeze_observers_at: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> None:
    """Train in place: Adam on the cross-entropy of the logits, images uint8 (N, 28, 28), labels (N,).

    The order of the images depends on `seed` alone. From epoch `freeze_observers_at` on (counted from 0), observers
    no longer move, so that the last epochs train against the very scales that will be exported (catalogue entry M03).

    Raises `BridgeError` when the loss is no longer finite.
    """
    x, y = _as_input(images), torch.from_numpy(labels.astype(np.int64))
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    model.train()
    for epoch in range(epochs):
        if epoch == freeze_observers_at:
            model.apply(tq.disable_observer)
        for batch in torch.randperm(len(x), generator=order).split(batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
        if not torch.isfinite(loss):
            raise BridgeError(
                where=f"PyTorch training, epoch {epoch + 1}",
                problem=f"the loss became {loss.item()}",
                remedy="Lower the learning rate.",
            )
        if on_epoch is not None:
            on_epoch(epoch + 1, epochs)
    model.apply(tq.disable_observer)
    model.eval()


def prepare_for_qat(float_model: nn.Module, qconfig: str) -> nn.Module:
    """A copy of the float network with Conv+ReLU fused and fake-quant inserted by the named qconfig."""
    with expected_warnings():
        model = copy.deepcopy(float_model).train()
        fused: nn.Module = tq.fuse_modules_qat(model, FUSABLE)
        fused.qconfig = qconfig_named(qconfig).build()  # type: ignore[assignment]
        prepared: nn.Module = tq.prepare_qat(fused)
    return prepared


def to_int8_engine(qat_model: nn.Module, qconfig: str) -> nn.Module:
    """The model that PyTorch's own int8 engine runs; the engine is selected for this process.

    Raises `BridgeError` when no engine of PyTorch runs this qconfig.
    """
    engine = qconfig_named(qconfig).engine
    if engine is None:
        raise BridgeError(
            where=f"qconfig '{qconfig}'",
            problem="PyTorch's int8 engines take uint8 activations only; this qconfig trains int8 ones",
            remedy="Use the fake-quant model, which every route through QDQ ONNX starts from.",
        )
    torch.backends.quantized.engine = engine
    with expected_warnings():
        converted: nn.Module = tq.convert(copy.deepcopy(qat_model).eval())
    return converted


def quantize_after_training(float_model: nn.Module, images: np.ndarray, engine: str) -> nn.Module:
    """Static post-training quantization: observers see `images` uint8 (N, 28, 28) once, then `convert`."""
    torch.backends.quantized.engine = engine
    with expected_warnings(), torch.no_grad():
        fused = tq.fuse_modules(copy.deepcopy(float_model).eval(), FUSABLE)
        fused.qconfig = tq.get_default_qconfig(engine)
        prepared = tq.prepare(fused)
        prepared(_as_input(images))
        converted: nn.Module = tq.convert(prepared)
    return converted


def predict(model: nn.Module, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """Logits, float32 (N, 10), of uint8 images (N, 28, 28); nothing in the model moves."""
    model.eval()
    with torch.no_grad():
        return np.concatenate([model(batch).numpy() for batch in _as_input(images).split(batch_size)])


def state(model: nn.Module) -> dict[str, np.ndarray]:
    """Every parameter and buffer as a plain array, fake-quant scales and switches included."""
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def restore(model: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Put the arrays of `state` back into a model built the same way, and leave it in evaluation mode.

    Raises `BridgeError` when names or shapes do not fit.
    """
    try:
        model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    except RuntimeError as error:
        raise BridgeError(
            where="stored PyTorch network",
            problem=str(error).splitlines()[-1].strip(),
            remedy="It was stored by another version of the network; train again.",
        ) from error
    model.eval()
