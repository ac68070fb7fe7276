"""TF-MOT's quantization schemes by target: convolution weights with one scale for each channel, or with one in all."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from bridge.targets import weights_for
from keras_side.legacy import import_tfmot

if TYPE_CHECKING:
    import tf_keras


def for_target(target: str) -> Any:
    """The scheme whose weights run fast on `target`, for `quantize_whole` or TF-MOT's own `quantize_apply`.

    Why these weights, and by which source: `bridge.targets.WEIGHTS`. TF-MOT's default has one scale for each channel of
    a convolution, and one for a dense layer or a transposed convolution.

    A batch norm that follows a convolution has a factor for each channel, and the converter folds it into the trained
    weights: where one scale is wanted, convert with `bridge.via_tflite_converter.convert(..., per_channel=False)`, or
    set the converter's `_experimental_disable_per_channel` (TensorFlow 2.19). Raises `BridgeError` for an unknown target.
    """
    if weights_for(target).per_channel:
        return import_tfmot().quantization.keras.default_8bit.Default8BitQuantizeScheme()
    return per_tensor_scheme()()


@functools.cache
def per_tensor_scheme() -> Any:
    """The class of TF-MOT's scheme without per-channel weights.

    TF-MOT 0.8.1 has a switch for that, `disable_per_axis`, but a convolution that feeds a Concatenate is per channel
    all the same: default_8bit_transforms.py, `ConcatTransform.replacement`, asks a registry of its own for its config.
    """
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_layout_transform as transforms,
    )

    class PerTensorTransform(transforms.Default8BitQuantizeLayoutTransform):  # type: ignore[misc]  # imported on first use
        def apply(
            self, model: tf_keras.Model, layer_quantize_map: dict[str, Any]
        ) -> tuple[tf_keras.Model, dict[str, Any]]:
            own = {name for name, found in layer_quantize_map.items() if found.get("quantize_config") is not None}
            model, found = super().apply(model, layer_quantize_map)
            return model, {name: entry if name in own else _per_tensor(entry) for name, entry in found.items()}

    class PerTensorScheme(import_tfmot().quantization.keras.default_8bit.Default8BitQuantizeScheme):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(disable_per_axis=True)

        def get_layout_transformer(self) -> Any:
            return PerTensorTransform()

    return PerTensorScheme


def _per_tensor(entry: dict[str, Any]) -> dict[str, Any]:
    """What TF-MOT knows of a layer, its config replaced where that is the one of per-channel convolutions."""
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry as configs,
    )

    config = entry.get("quantize_config")
    if not isinstance(config, configs.Default8BitConvQuantizeConfig):
        return entry
    replaced = configs.Default8BitQuantizeConfig(config.weight_attrs, config.activation_attrs, config.quantize_output)
    if "get_output_quantizers" in vars(config):  # ConcatTransform takes the output's quantization away like this
        replaced.get_output_quantizers = config.get_output_quantizers
    return {**entry, "quantize_config": replaced}
