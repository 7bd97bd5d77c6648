"""Sidecars of a few rows, written as stage A writes them."""

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from florence_mm.curation.columns import make_id, sidecar_schema

# at least 20 bits between any two of them
FAR = [int(value) for value in np.random.default_rng(5).integers(0, 2**64, 64, np.uint64)]


def write_sidecar(path, rows, shard=0, width=None):
    """Write rows, each a dict of what differs from a pair that is kept: picture, text and sampling of its own."""
    full = []
    for position, row in enumerate(rows):
        plain = {
            'id': make_id(shard, position),
            'shard': shard,
            'key': f'{shard}-{position}',
            'image_offset': -1,
            'image_size': -1,
            'path': None,
            'width': 100,
            'height': 80,
            'phash': FAR[position % len(FAR)],
            'text': f'text {shard} {position}',
            'label': shard * 1000 + position,
            'query': None,
            'words': 3,
            'sampling': (7 * position + 13 * shard) % 101,
            'score': None,
            'augmented': False,
            'pairs': 1,
            'drop': None,
        }
        schema = sidecar_schema(width)
        full.append({name: {**plain, **row}.get(name) for name in schema.names} | {'normalized': 'text'})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(full, schema=schema), path)
    return path


def read_selected(folder):
    """What stage B wrote: kept ids, and dropped ones by reason; all of shard 0 by their place there."""
    kept = parquet.read_table(folder / 'kept.parquet').to_pydict()
    drops = parquet.read_table(folder / 'drops.parquet').to_pydict()
    return kept['id'], dict(zip(drops['id'], drops['drop'], strict=True)), kept
