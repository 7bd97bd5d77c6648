#!/usr/bin/env bash
# daft 0.7.26 (Python 3.11): integers of a Python list of which one is above 2**63 become floats without a word, unless all
# of them are, and a column of uint64 plus 1 is a column of floats. Hashes of 64 bits that differ are then equal, and
# removing duplicates drops what is none. An Arrow array of uint64 keeps them; arithmetic on it does not.
# Expected: uint64 and three different values. Seen: Float64 and two; Float64 for the sum.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install -q --target "$folder" daft==0.7.26 pyarrow==25.0.1 >&2
cd "$folder"
DAFT_ANALYTICS_ENABLED=0 PYTHONPATH=$folder "${PYTHON:-python3}" -W ignore - <<'PYTHON'
import daft
import pyarrow as pa

hashes = [2**63 + 5, 2**63 + 6, 7]
for name, column in (('list', hashes), ('arrow', pa.array(hashes, pa.uint64()))):
    rows = daft.from_pydict({'hash': column})
    kind, different = str(rows.schema()['hash'].dtype), len(set(rows.to_pydict()['hash']))
    after = str(rows.select(daft.col('hash') + 1).schema()['hash'].dtype)
    print(f'{name}: {kind}, {different} different of 3; plus 1: {after}')
    assert (kind, different) == (('Float64', 2) if name == 'list' else ('UInt64', 3)), 'it is not so any more'
    assert after == 'Float64', 'it is not so any more'
PYTHON
