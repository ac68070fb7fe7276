"""An example to copy: a layer TF-MOT does not know, and the QuantizeConfig that makes it integer in the .tflite.

The layer multiplies every channel by a trained gain ("layer scale"). TF-MOT needs three things from its config: which
weights to quantize, where to put them back once quantized, and how to quantize the result.

Not every layer can be rescued like this. PReLU accepts the same kind of config and trains, but the converter (2.19)
writes a float PRELU between DEQUANTIZE and QUANTIZE and says nothing, when the config quantizes its slope (with the
output alone it is int8; catalogue entry M62). So look at the operators of the converted file, as tests/keras_side/test_custom_layer.py does for both layers.
Source: the QuantizeConfig section of TF-MOT's comprehensive guide.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from keras_side.legacy import import_keras, import_tfmot

if TYPE_CHECKING:
    import tf_keras


@functools.cache  # one class per process: Keras compares classes when it clones a model
def channel_scale() -> Any:
    """The layer class `ChannelScale`: output = input * gain, gain (channels,) float32, one at the start."""

    class ChannelScale(import_keras().layers.Layer):  # type: ignore[misc]  # the framework is imported on first use
        def build(self, input_shape: tuple[int | None, ...]) -> None:
            self.gain = self.add_weight("gain", shape=(input_shape[-1],), initializer="ones")
            super().build(input_shape)

        def call(self, inputs: Any) -> Any:
            return inputs * self.gain

    return ChannelScale


@functools.cache
def channel_scale_config() -> Any:
    """The config class `ChannelScaleConfig`: gain int8 symmetric per tensor, output int8 with a moving range."""
    quantizers = import_tfmot().quantization.keras.quantizers

    class ChannelScaleConfig(import_tfmot().quantization.keras.QuantizeConfig):  # type: ignore[misc]  # as above
        def get_weights_and_quantizers(self, layer: tf_keras.layers.Layer) -> list[tuple[Any, Any]]:
            weight = quantizers.LastValueQuantizer(num_bits=8, per_axis=False, symmetric=True, narrow_range=True)
            return [(layer.gain, weight)]

        def set_quantize_weights(self, layer: tf_keras.layers.Layer, quantize_weights: list[Any]) -> None:
            (layer.gain,) = quantize_weights

        def get_activations_and_quantizers(self, layer: tf_keras.layers.Layer) -> list[tuple[Any, Any]]:  # noqa: ARG002
            return []

        def set_quantize_activations(self, layer: tf_keras.layers.Layer, quantize_activations: list[Any]) -> None:
            """Nothing to put back: the layer has no activation function of its own."""

        def get_output_quantizers(self, layer: tf_keras.layers.Layer) -> list[Any]:  # noqa: ARG002
            return [quantizers.MovingAverageQuantizer(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)]

        def get_config(self) -> dict[str, Any]:
            return {}

    return ChannelScaleConfig
