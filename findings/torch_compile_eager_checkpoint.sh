#!/usr/bin/env bash
# torch 2.13.0 (Python 3.11, CPU): torch.compile(backend='eager') of a block under torch.utils.checkpoint (use_reentrant=False)
# that draws random numbers, such as dropout, gives gradients that are not those of its own forward pass: the block is
# computed again with other random numbers. Expected, as without compiling and with backend='aot_eager': checkpoint keeps
# the state of the generator (preserve_rng_state is True), so that both passes drop the same values. Of 16 values whose
# gradient must equal the output, those that differ:
#   not compiled 0
#   eager 13
#   aot_eager 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q torch==2.13.0 numpy==2.4.6 >&2
cat > "$folder/gradients.py" <<'PYTHON'
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def layer(x):
    return checkpoint(lambda x: x * F.dropout(torch.ones_like(x), 0.5), x, use_reentrant=False)


for backend in (None, 'eager', 'aot_eager'):
    function = layer if backend is None else torch.compile(layer, backend=backend)
    torch.manual_seed(0)
    x = torch.ones(16, requires_grad=True)
    y = function(x)
    y.sum().backward()
    print(backend or 'not compiled', int((y.detach() != x.grad).sum()))
PYTHON
seen=$("$folder/venv/bin/python" -W ignore "$folder/gradients.py")
echo "$seen"
[ "$seen" = $'not compiled 0\neager 13\naot_eager 0' ]
