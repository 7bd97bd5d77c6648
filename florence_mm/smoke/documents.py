"""Generated documents of pictures and texts."""

import json
from pathlib import Path

from .pictures import write_pictures
from .stand_ins import register_smoke_data


@register_smoke_data('DocumentDataset')
def documents(dataset: dict, folder: Path, count: int) -> dict:
    """Generate a jsonl file of documents with two pictures each, of which each is followed by a text."""
    names = write_pictures(folder / 'images', count)
    rows = [
        {'document': [{'image': names[i]}, {'text': f'number {i}'}, {'image': names[i - 1]}, {'text': 'a square'}]}
        for i in range(count)
    ]
    (folder / 'documents.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return {**dataset, 'ann_file': 'documents.jsonl', 'data_root': str(folder), 'data_prefix': 'images'}
