"""Bad inputs: folders of models as from the hub, whose configs somebody else may have written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from florence_mm import from_pretrained, get_model

from .case import BadInput

AREA = 'folders of models'
_CONFIG, _STEPS = 'config.json', 'preprocessor_config.json'


def _folder(file: str, change: Callable[[dict], Any]) -> Callable[[Path], Any]:
    """Save a model, change one of its files of JSON, and load it; returns whether a command in it was run."""

    def run(folder: Path) -> Any:
        get_model('unicl_coswin-micro_1xb64-36e_digits', False, 'cpu').save_pretrained('model')
        path = Path('model', file)
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        try:
            return from_pretrained('model', 'cpu').name
        finally:
            if Path('ran').exists():
                raise AssertionError('a command of the folder was run')

    return run


def _step(**step: Any) -> Callable[[Path], Any]:
    return _folder(_STEPS, lambda content: content['pipeline'].append(step))


def cases() -> list[BadInput]:
    """The inputs."""
    tower = lambda content: content['model']['image_encoder'].update(type='torch.hub.load')  # noqa: E731
    numbers = lambda content: content['model'].update(embed_dims={'__tuple__': 5})  # noqa: E731
    text, number = (lambda content, value=value: content.update(pipeline=value) for value in ('x', [5]))
    unregistered = 'which is no registered class'
    return [
        BadInput('a command as a step', _step(type='os.system', command='touch ran'), says=unregistered),
        BadInput('a pickle as a step', _step(type='mmengine.load', file='a.pkl'), says=unregistered),
        BadInput('a function as a part', _folder(_CONFIG, tower), says="type='torch.hub.load', which is no registered"),
        BadInput('a tuple of a number', _folder(_CONFIG, numbers), says='model.embed_dims'),
        BadInput('a pipeline that is a text', _folder(_STEPS, text), says='no list of transforms'),
        BadInput('a pipeline of a number', _folder(_STEPS, number), says='no list of transforms'),
        BadInput('no folder', lambda folder: from_pretrained(None), says='None is given as a folder'),
    ]
