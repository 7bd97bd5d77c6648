#!/usr/bin/env bash
# pytest 9.2.0 and torch 2.13.0 (Python 3.11): under pytest, torch.export and torch.compile record their structured trace,
# which is meant for TORCH_TRACE alone. pytest gives its handlers to each logger that does not propagate; "torch.__trace" is
# one, and torch asks only whether it has handlers. The records are kept in memory, cost time, and are printed with a test
# that fails. Expected, as in a plain process: no handlers and no records once something was exported. Seen:
#   plain: handlers left False
#   pytest: handlers left True, records of the trace True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q pytest==9.2.0 torch==2.13.0 numpy==2.4.6 >&2
cd "$folder"
cat > test_trace.py <<'PYTHON'
import logging

import torch

TRACE = logging.getLogger('torch.__trace')


def export():
    torch.export.export(torch.nn.Linear(2, 2), (torch.randn(1, 2),))
    return bool(TRACE.handlers)


def test_trace(caplog):
    left = export()
    kept = any(record.name == TRACE.name for record in caplog.records)
    with open('seen.txt', 'w') as file:
        file.write(f'pytest: handlers left {left}, records of the trace {kept}')


if __name__ == '__main__':
    print('plain: handlers left', export())
PYTHON
plain=$(env -u TORCH_TRACE venv/bin/python -W ignore test_trace.py)
env -u TORCH_TRACE venv/bin/python -m pytest -q -p no:cacheprovider test_trace.py >&2
seen="$plain"$'\n'"$(cat seen.txt)"
echo "$seen"
[ "$seen" = $'plain: handlers left False\npytest: handlers left True, records of the trace True' ]
