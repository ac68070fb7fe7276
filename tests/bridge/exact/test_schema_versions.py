"""The versions in the table of operators against those that TensorFlow's own converter writes for int8."""

from __future__ import annotations

import numpy as np
import pytest
import tflite

from bridge.exact.schema import OPERATORS

NAMES = {number: name for name, number in vars(tflite.BuiltinOperator).items() if isinstance(number, int)}


def converted_by_tensorflow() -> bytes:
    """One int8 file with most operators of the table, as TensorFlow's converter quantizes it after training."""
    tf = pytest.importorskip("tensorflow")
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    kernel, depthwise, dense = normal(3, 3, 4, 4), normal(3, 3, 4, 1), normal(4, 4)
    slopes, shift = normal(1, 1, 4), normal(1, 8, 8, 4)

    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 4))])
    def model(x):
        both = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), dense[0]) + x
        both = tf.nn.depthwise_conv2d(both, depthwise, [1, 1, 1, 1], "SAME") * x - tf.nn.tanh(x)
        both = tf.maximum(tf.minimum(both, x), shift) + tf.nn.leaky_relu(x, 0.1) + tf.nn.sigmoid(x)
        both = both + tf.nn.relu(x + both) + tf.nn.relu6(x) + tf.nn.relu(x) - slopes * tf.nn.relu(-x)
        pooled = tf.concat([tf.nn.max_pool2d(both, 2, 2, "VALID"), tf.nn.avg_pool2d(both, 2, 2, "VALID")], 3)
        padded = tf.pad(pooled, [[0, 0], [1, 1], [1, 1], [0, 0]])
        padded = padded + tf.pad(pooled, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
        padded = padded + tf.pad(pooled, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.5)
        wide = tf.compat.v1.image.resize_bilinear(padded, (8, 8), half_pixel_centers=True)
        wide = wide + tf.compat.v1.image.resize_nearest_neighbor(padded, (8, 8), half_pixel_centers=True)
        left, right = tf.split(wide, 2, 3)
        one, three = tf.split(tf.transpose(left * right, [0, 2, 1, 3]), [1, 3], 3)
        cut = tf.strided_slice(three, [0, 0, 0, 0], [1, 8, 8, 3], [1, 2, 2, 1])
        cut = tf.concat([tf.slice(cut, [0, 0, 0, 0], [1, 4, 4, 2]), tf.gather(one[:, ::2, ::2], [0, 0], axis=3)], 3)
        up = tf.nn.conv2d_transpose(cut, kernel, (1, 8, 8, 4), 2) + both
        vector = tf.nn.bias_add(tf.matmul(tf.reduce_mean(up, [1, 2]), dense), dense[1])
        products = tf.matmul(tf.reshape(up, (1, 64, 4)), tf.reshape(both, (1, 4, 64)))
        return tf.nn.softmax(vector), tf.reduce_mean(products, [1, 2])

    converter = tf.lite.TFLiteConverter.from_concrete_functions([model.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([normal(1, 8, 8, 4)] for _ in range(4))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs were expected")  # what a converter says of its own
def test_no_version_is_below_the_one_that_tensorflow_writes():
    model = tflite.Model.GetRootAsModel(converted_by_tensorflow(), 0)
    codes = [model.OperatorCodes(place) for place in range(model.OperatorCodesLength())]
    theirs = {NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]: code.Version() for code in codes}
    shared = sorted(set(theirs) & set(OPERATORS))
    too_low = {op: (OPERATORS[op].version, theirs[op]) for op in shared if OPERATORS[op].version < theirs[op]}
    assert len(shared) > 20, shared
    assert not too_low, f"bridge/exact/schema.py: (ours, TensorFlow's) {too_low}"
