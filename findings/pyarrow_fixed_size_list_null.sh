#!/usr/bin/env bash
# pyarrow 25.0.1 (Python 3.11): a Parquet file with a column of lists of a fixed size, one of which is null, is written
# without a word, and cannot be read again: ArrowInvalid "Expected all lists to be of size=2 but index 2 had size=0". The
# whole column is lost to pyarrow, whatever the rows; it matters to whoever keeps embeddings and has none for some rows.
# Expected: the rows that were written. Seen: one null among them, and none of them can be read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install -q --target "$folder" pyarrow==25.0.1 >&2
cd "$folder"
PYTHONPATH=$folder "${PYTHON:-python3}" -W ignore - <<'PYTHON'
import pyarrow as pa
import pyarrow.parquet as parquet

for rows in ([[1.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], None, [0.0, 2.0]]):
    for name, kind in (('lists of any size', pa.list_(pa.float32())), ('of a fixed size', pa.list_(pa.float32(), 2))):
        parquet.write_table(pa.table({'embedding': pa.array(rows, kind)}), 'file.parquet')
        try:
            found = parquet.read_table('file.parquet')['embedding'].to_pylist()
        except pa.ArrowInvalid as error:
            found = str(error)
        print(name, rows, '->', found)
        lost = None in rows and name == 'of a fixed size'
        assert (found == rows) != lost, 'it is not so any more'
PYTHON
