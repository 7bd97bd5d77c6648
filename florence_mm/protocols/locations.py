"""Paths in configs of protocols: data below another root than ``data``, outputs in the protocol's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Folder under which configs look for data.
DEFAULT_ROOT = 'data'


def below(value: Any, data_root: str | Path) -> Any:
    """Copy a part of a config with its paths ``data/...`` below another root; other values stay.

    >>> below({'ann_file': 'data/coco/test.jsonl', 'classes': 'digits'}, '/sets')
    {'ann_file': '/sets/coco/test.jsonl', 'classes': 'digits'}
    """
    if isinstance(value, str):
        inside = value == DEFAULT_ROOT or value.startswith(f'{DEFAULT_ROOT}/')
        return str(Path(data_root) / value[len(DEFAULT_ROOT) + 1 :]) if inside else value
    if isinstance(value, Mapping):
        return {key: below(item, data_root) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(below(item, data_root) for item in value)
    return value


def outputs_in(evaluator: Any, folder: str | Path) -> Any:
    """Copy a config of metrics so that their ``outfile`` lies in a folder."""
    if isinstance(evaluator, (list, tuple)):
        return [outputs_in(metric, folder) for metric in evaluator]
    if isinstance(evaluator, Mapping) and evaluator.get('outfile'):
        return {**evaluator, 'outfile': str(Path(folder) / Path(evaluator['outfile']).name)}
    return evaluator
