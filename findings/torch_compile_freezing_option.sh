#!/usr/bin/env bash
# torch 2.13.0 (Python 3.11, CPU): torch.compile(options={'freezing': True}) does not freeze: weights stay inputs of the graph,
# and no linear layer gets packed weights. Expected, as with torch._inductor.config.freezing = True: they are constants.
# Inductor gets the option, but dynamo, which decides what is an input, reads the global setting. Inputs of the graph of a
# linear layer in inference:
#   option 3
#   global setting 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q torch==2.13.0 numpy==2.4.6 >&2
cat > "$folder/freezing.py" <<'PYTHON'
import torch
from torch._inductor import compile_fx, config

seen = []
inner = compile_fx.compile_fx


def noted(graph, inputs, *args, **kwargs):
    seen.append(len(inputs))
    return inner(graph, inputs, *args, **kwargs)


compile_fx.compile_fx = noted
for name in ('option', 'global setting'):
    torch._dynamo.reset()
    config.freezing = name == 'global setting'
    options = {} if config.freezing else {'options': {'freezing': True}}
    with torch.no_grad():
        torch.compile(torch.nn.Linear(8, 8).eval(), **options)(torch.ones(2, 8))
    print(name, seen[-1])
PYTHON
found=$("$folder/venv/bin/python" -W ignore "$folder/freezing.py")
echo "$found"
[ "$found" = $'option 3\nglobal setting 1' ]
