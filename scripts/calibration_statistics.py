#!/usr/bin/env python3
"""Records what `hwsim estimate --saliency wanda|obd|sparsegpt --calibration-data` reads, with onnxruntime.

hwsim runs such inputs by itself; this is for networks with operators or element types that its own runtime lacks.

    pip install numpy onnx onnxruntime
    python3 scripts/calibration_statistics.py model.onnx inputs.npz statistics.npz [--products 4096] [--rows 512]

inputs.npz has one array an input of the model, by its name. For every Conv, Gemm and MatMul with a stored weight the
script runs the network, takes the layer's input (im2col rows in the order of the weight for a convolution of one group) and
writes LAYER:norms and, for at most --products inputs a layer, LAYER:h = X^T X. LAYER is hwsim's name of the layer: the
node's name, or where it has none that of its first output.
"""
import argparse

import numpy as np
import onnx
import onnxruntime


def pads_of(node, attributes, x, kernel, strides, dilations):
    auto = attributes.get("auto_pad", b"NOTSET")
    spatial = len(kernel)
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        begin, end = [], []
        for d in range(spatial):
            out = -(-x.shape[2 + d] // strides[d])
            total = max((out - 1) * strides[d] + (kernel[d] - 1) * dilations[d] + 1 - x.shape[2 + d], 0)
            low = total // 2 if auto == b"SAME_UPPER" else total - total // 2
            begin.append(low)
            end.append(total - low)
        return begin + end
    return attributes.get("pads", [0] * (2 * spatial))


def rows_of(node, x, weight):
    """Rows [samples, k] of a layer's input, or None where the layer has no such form."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "MatMul":
        return x.reshape(-1, weight.shape[0])
    if node.op_type == "Gemm":
        return x.T if attributes.get("transA") else x
    if attributes.get("group", 1) != 1:
        return None
    kernel = weight.shape[2:]
    strides = attributes.get("strides", [1] * len(kernel))
    dilations = attributes.get("dilations", [1] * len(kernel))
    pads = pads_of(node, attributes, x, kernel, strides, dilations)
    x = np.pad(x, [(0, 0), (0, 0)] + [(pads[d], pads[d + len(kernel)]) for d in range(len(kernel))])
    span = [(kernel[d] - 1) * dilations[d] + 1 for d in range(len(kernel))]
    windows = np.lib.stride_tricks.sliding_window_view(x, span, axis=tuple(range(2, 2 + len(kernel))))
    index = [slice(None), slice(None)]
    index += [slice(None, None, s) for s in strides] + [slice(None, None, d) for d in dilations]
    windows = windows[tuple(index)]
    # [batch, channels, out..., kernel...] to rows of (channels, kernel...).
    order = [0] + list(range(2, 2 + len(kernel))) + [1] + list(range(2 + len(kernel), 2 + 2 * len(kernel)))
    return windows.transpose(order).reshape(-1, int(np.prod(weight.shape[1:])))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("inputs")
    parser.add_argument("statistics")
    parser.add_argument("--products", type=int, default=4096, help="largest k whose products are kept")
    parser.add_argument("--rows", type=int, default=0, help="keep this many rows as LAYER:x instead (0: none)")
    arguments = parser.parse_args()
    model = onnx.load(arguments.model)
    stored = {t.name: t for t in model.graph.initializer}
    layers = [
        n for n in model.graph.node
        if n.op_type in ("Conv", "Gemm", "MatMul") and len(n.input) > 1 and n.input[1] in stored and n.input[0] not in stored
    ]
    known = {o.name for o in model.graph.output}
    for name in dict.fromkeys(n.input[0] for n in layers):
        if name not in known:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with np.load(arguments.inputs) as inputs:
        feed = {i.name: inputs[i.name] for i in session.get_inputs()}
    values = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed)))
    found = {}
    for node in layers:
        weight = onnx.numpy_helper.to_array(stored[node.input[1]])
        rows = rows_of(node, np.asarray(values[node.input[0]], np.float32), weight)
        if rows is None:
            continue
        name = node.name or node.output[0]
        rows = np.ascontiguousarray(rows)
        found[f"{name}:norms"] = np.sqrt(np.sum(rows.astype(np.float64) ** 2, axis=0)).astype(np.float32)
        if rows.shape[1] <= arguments.products:
            found[f"{name}:h"] = (rows.T @ rows).astype(np.float32)
        if arguments.rows:
            found[f"{name}:x"] = rows[: arguments.rows]
    np.savez(arguments.statistics, **found)
    print(f"{len(layers)} layers, {len(found)} arrays")


if __name__ == "__main__":
    main()
