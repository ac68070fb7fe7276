"""A team's own PyTorch model: train it with the qconfig made for TFLite, convert it in one call."""

import torch
from torch import nn
from torch.ao import quantization as tq

import bridge
from torch_side.qconfigs import qconfig_named


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.dense = nn.Linear(8 * 16 * 16, 5)

    def forward(self, x):
        x = self.relu(self.bn(self.conv(self.quant(x))))
        return self.dequant(self.dense(x.flatten(1)))


model = tq.fuse_modules_qat(Net().train(), [["conv", "bn", "relu"]])
model.qconfig = qconfig_named("tflite").build()  # for one NPU: qconfigs.for_target("imx8mp").build()
tq.prepare_qat(model, inplace=True)
for _ in range(10):  # your training loop
    model(torch.randn(8, 3, 16, 16))
model.eval()

conversion = bridge.convert(model, torch.zeros(1, 3, 16, 16), "model.tflite")
print(dict(conversion.operators_out), len(conversion.tflite), "bytes")
