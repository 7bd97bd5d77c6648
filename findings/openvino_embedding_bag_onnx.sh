#!/usr/bin/env bash
# openvino 2026.4.1 with torch 2.13.0, onnxscript 0.7.2 (Python 3.11, CPU): an ONNX file that torch.onnx.export writes of
# embedding_bag, with sums and weights of samples, is not converted: "Conversion failed for Slice, ReduceSum". torch writes a Loop
# over the bags. Expected: the sums, as onnxruntime 1.32.0 gives them from the same file, within rounding of torch's.
#   onnxruntime equal True
#   openvino OpConversionFailure
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 \
    onnxruntime==1.32.0 openvino==2026.4.1 >&2
cat > "$folder/bags.py" <<'PYTHON'
import sys

import numpy as np
import onnxruntime
import openvino
import torch


class Bags(torch.nn.Module):
    def forward(self, table, ids, weights):
        return torch.nn.functional.embedding_bag(ids, table, mode='sum', per_sample_weights=weights)


torch.manual_seed(0)
inputs = torch.randn(7, 4), torch.randint(0, 7, (3, 5)), torch.rand(3, 5)
path = sys.argv[1]
torch.onnx.export(Bags(), inputs, path, dynamo=True, verbose=False)
arrays = [tensor.numpy() for tensor in inputs]
session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
(sums,) = session.run(None, dict(zip([one.name for one in session.get_inputs()], arrays)))
lines = [f'onnxruntime equal {np.allclose(sums, Bags()(*inputs).numpy(), atol=1e-6)}']
try:
    sums = openvino.compile_model(openvino.convert_model(path), 'CPU')(arrays)[0]
    lines.append(f'openvino equal {np.allclose(sums, Bags()(*inputs).numpy(), atol=1e-6)}')
except Exception as error:
    lines.append(f'openvino {type(error).__name__}')
with open(sys.argv[2], 'w') as file:  # runtimes write to the standard output, too
    file.write('\n'.join(lines))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/bags.py" "$folder/bags.onnx" "$folder/found.txt" > /dev/null
cat "$folder/found.txt"
[ "$(cat "$folder/found.txt")" = $'onnxruntime equal True\nopenvino OpConversionFailure' ]
