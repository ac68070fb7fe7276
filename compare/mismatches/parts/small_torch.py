"""The small eager PyTorch model that entries of the PyTorch side vary: one convolution with ReLU, ready for QAT."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLE = np.zeros((1, 2, 6, 6), np.float32)


def qat_model(qconfig: str, *, one_signed: bool = False) -> Any:
    """QuantStub, Conv2d(2, 4, 3) + ReLU, DeQuantStub, prepared with the named qconfig; observers have seen noise.

    `one_signed`: the weights of the second channel are all positive.
    """
    import torch
    from torch import nn
    from torch.ao import quantization as tq

    from torch_side.qconfigs import qconfig_named
    from torch_side.training import expected_warnings

    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), expected_warnings():
        torch.manual_seed(0)
        model = nn.Sequential(tq.QuantStub(), nn.Conv2d(2, 4, 3), nn.ReLU(), tq.DeQuantStub()).train()
        if one_signed:
            model[1].weight[1] = model[1].weight[1].abs() + 0.01  # type: ignore[index, operator]
        fused: Any = tq.fuse_modules_qat(model, [["1", "2"]])
        fused.qconfig = qconfig_named(qconfig).build()
        prepared: Any = tq.prepare_qat(fused)
        prepared(torch.rand(16, 2, 6, 6))
        prepared.apply(tq.disable_observer)
    return prepared.eval()


def exported(model: Any) -> bytes:
    """The ONNX file of a frozen or converted model."""
    from torch_side.export import export_onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, EXAMPLE, path)
        return path.read_bytes()
