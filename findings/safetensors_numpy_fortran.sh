#!/usr/bin/env bash
# safetensors 0.8.0 (written with numpy 2.4.6, Python 3.11): safetensors.numpy.save and save_file write the memory of a
# Fortran-ordered array, as scikit-learn's PCA and a transpose give it, and the shape in C order: the file holds other
# values, and nothing says so. 0.7.0 wrote the right ones; safetensors.torch refuses such tensors. Reported:
# https://github.com/safetensors/safetensors/issues/825
# Expected: [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] from both. Seen:
#   0.7.0 [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
#   0.8.0 [[0.0, 3.0, 1.0], [4.0, 2.0, 5.0]]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 0.7.0 0.8.0; do
    "${PYTHON:-python3}" -m pip install -q --target "$folder/$version" "safetensors==$version" numpy==2.4.6 >&2
done
cd "$folder"
seen=$(for version in 0.7.0 0.8.0; do
    PYTHONPATH=$folder/$version "${PYTHON:-python3}" - <<'PYTHON'
import numpy as np
import safetensors
from safetensors.numpy import load, save

array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
print(safetensors.__version__, load(save({'a': array}))['a'].tolist())
PYTHON
done)
echo "$seen"
[ "$seen" = $'0.7.0 [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]\n0.8.0 [[0.0, 3.0, 1.0], [4.0, 2.0, 5.0]]' ]
