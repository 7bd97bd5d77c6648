"""Settings of a whole run of curation, from a config file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from florence_mm.errors import UsageError, shown
from florence_mm.utils.nearest import near_or_all
from florence_mm.utils.numbers import is_whole

from .options import InputOptions, StageAOptions, StageBOptions, StageCOptions, as_options
from .pool import ENGINES

_STAGES = {'stage_a': StageAOptions, 'stage_b': StageBOptions, 'stage_c': StageCOptions}
#: Keys that any config may have, and that are no settings of a run.
_OF_CONFIGS = ('custom_imports', 'default_scope')


@dataclass(frozen=True)
class ModelOptions:
    """The model that scores and embeds pairs.

    Attributes:
        name: name of a two-tower model, or its config file.
        checkpoint: its weights; None: those published for the name.
        device: where it computes; None: the GPU if there is one.
    """

    name: str
    checkpoint: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise UsageError(f'model.name={shown(self.name)} must be the name of a model, or a config file')


@dataclass(frozen=True)
class Settings:
    """What a run reads, does and writes.

    Attributes:
        inputs: sources of raw pairs.
        work: folder of the state between the stages.
        out: folder of the curated shards.
        stage_a, stage_b, stage_c: options of the stages.
        model: scores and embeds pairs; None: no model.
        evaluation: sources of sets that models are evaluated on, whose near-duplicates are dropped.
        tokenizer: config of the tokenizer that counts tokens for the report, such as
            ``dict(type='florence_mm.CLIPTokenizer')``; None: words are counted alone.
        workers: processes, or Ray tasks at once.
        engine: ``'pool'`` or ``'ray'``, see :func:`florence_mm.curation.pool.run_tasks`.
    """

    inputs: tuple[InputOptions, ...]
    work: Path
    out: Path
    stage_a: StageAOptions = StageAOptions()
    stage_b: StageBOptions = StageBOptions()
    stage_c: StageCOptions = StageCOptions()
    model: ModelOptions | None = None
    evaluation: tuple[InputOptions, ...] = ()
    tokenizer: Mapping[str, Any] | None = None
    workers: int = 1
    engine: str = 'pool'

    def __post_init__(self) -> None:
        if not self.inputs:
            raise UsageError("inputs is empty; name a source, such as dict(kind='tars', path='raw')")
        if not is_whole(self.workers) or self.workers < 1:
            raise UsageError(f'workers={shown(self.workers)} must be a whole number from 1')
        if self.tokenizer is not None and not (isinstance(self.tokenizer, Mapping) and 'type' in self.tokenizer):
            raise UsageError(
                f"tokenizer={shown(self.tokenizer)} must be such as dict(type='florence_mm.CLIPTokenizer')"
            )
        if self.engine not in ENGINES:
            raise UsageError(f'engine={shown(self.engine)} is none of {", ".join(ENGINES)}')
        asked = {
            'stage_a.embeddings': self.stage_a.embeddings,
            'stage_b.min_score': self.stage_b.min_score is not None,
            'stage_b.near_cosine': self.stage_b.near_cosine is not None,
        }
        if self.model is None and any(asked.values()):
            name = next(name for name, value in asked.items() if value)
            raise UsageError(f"{name} needs a model; add model=dict(name='...') to the config")
        if self.stage_b.near_cosine is not None and not self.stage_a.embeddings:
            raise UsageError('stage_b.near_cosine compares embeddings; set stage_a.embeddings=True')
        for name, folder in (('work', self.work), ('out', self.out)):
            if folder.exists() and not folder.is_dir():
                raise UsageError(f'{name}={shown(str(folder))} is no folder; name another one, or remove the file')
        if self.work.resolve() == self.out.resolve():
            raise UsageError(f'work and out are both {self.out}; name two folders')


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Put what a config leaves out into it, so that command lines can change that too."""
    plain = {'model': None, 'evaluation': [], 'tokenizer': None, 'workers': 1, 'engine': 'pool'}
    stages = {key: {**asdict(kind()), **(config.get(key) or {})} for key, kind in _STAGES.items()}
    return {**plain, **config, **stages}


def make_settings(config: Mapping[str, Any]) -> Settings:
    """Check the settings of a config.

    Args:
        config: the config, or a dict, with the attributes of :class:`Settings` as keys.

    Raises:
        UsageError: a key is misspelt or missing, or a value is wrong.
    """
    known = set(Settings.__dataclass_fields__)
    given = {key: value for key, value in config.items() if key not in _OF_CONFIGS and not key.startswith('_')}
    for key in given:
        if key not in known:
            raise UsageError(f'the config has {key!r}, which is no setting of curation{near_or_all(key, known)}')
    for key in ('inputs', 'work', 'out'):
        if not given.get(key):
            raise UsageError(f'the config does not set {key!r}; see docs/scale.md')
    for key in ('work', 'out'):
        given[key] = Path(str(given[key])).expanduser()
    for key in ('inputs', 'evaluation'):
        given[key] = _sources(given.get(key) or (), key)
    for key, kind in _STAGES.items():
        given[key] = as_options(kind, given.get(key) or {}, key)
    if given.get('model') is not None:
        given['model'] = as_options(ModelOptions, given['model'], 'model')
    return Settings(**given)


def _sources(given: Any, key: str) -> tuple[InputOptions, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise UsageError(f"{key}={shown(given)} must be a list of sources, such as dict(kind='tars', path='raw')")
    return tuple(as_options(InputOptions, source, f'{key}[{number}]') for number, source in enumerate(given))
