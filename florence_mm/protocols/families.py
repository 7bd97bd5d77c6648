"""The families that one table compares: their tasks, and the embedded config of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from florence_mm.config.metafiles import model_entry

#: Name of a task -> title of its score.
TASKS = {'captions': 'captions, CIDEr-D', 'vqa': 'VQA, accuracy', 'matching': 'matching, R@1'}
_SCORES = {'captions': 'caption/CIDEr-D', 'vqa': 'vqa/accuracy', 'matching': 'reranked/i2t_R@1'}


class FamilyTask(NamedTuple):
    """What a family is trained and tested with for a task.

    Attributes:
        config: file of the config; its name is also that of the run's folder.
        score: key of the test's score.
    """

    config: str
    score: str


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        title: its name in the table.
        models: name of a task -> name of the embedded model that is tested by it. What a model begins with, its config
            says by the checkpoints that it names; one that trains nothing names by ``load_from`` what it tests.
    """

    title: str
    models: Mapping[str, str]

    def task(self, name: str) -> FamilyTask | None:
        """Return config and score of a task; None if the family has none for it."""
        model = self.models.get(name)
        return None if model is None else FamilyTask(str(model_entry(model).config), _SCORES[name])


#: Name on the command line -> family, in the order of the table.
FAMILIES = {
    'meter': Family(
        'METER',
        {
            'captions': 'meter_coswin-micro_caption_2xb16-4e_large-digits',
            'vqa': 'meter_coswin-micro_2xb64-6e_large-digit-vqa',
            'matching': 'meter_coswin-micro_rerank_2xb16-2e_large-digits',
        },
    ),
    'git': Family(
        'GIT',
        {
            'captions': 'git_coswin-micro_caption_2xb16-4e_large-digits',
            'vqa': 'git_coswin-micro_2xb64-6e_large-digit-vqa',
        },
    ),
    'simvlm': Family(
        'SimVLM',
        {
            'captions': 'simvlm_coswin-micro_1xb72-6e_large-digits',
            'vqa': 'simvlm_coswin-micro_1xb128-6e_large-digit-vqa',
        },
    ),
    'blip': Family(
        'BLIP',
        {
            'captions': 'blip_coswin-micro_2xb32-12e_large-digits',
            'vqa': 'blip_coswin-micro_2xb64-6e_large-digit-vqa',
            'matching': 'blip_coswin-micro_rerank_2xb32-2e_large-digits',
        },
    ),
    'blip2': Family(
        'BLIP-2',
        {
            'captions': 'blip2_coswin-micro_opt-micro_1xb64-4e_large-digits',
            'matching': 'blip2_coswin-micro_rerank_large-digits',
        },
    ),
    'flamingo': Family(
        'Flamingo',
        {
            'captions': 'flamingo_coswin-micro_1xb32-6e_large-digits',
            'vqa': 'flamingo_coswin-micro_2-shots_large-digit-vqa',
        },
    ),
    'vilt': Family(
        'ViLT',
        {
            'vqa': 'vilt_coswin-micro_2xb64-6e_large-digit-vqa',
            'matching': 'vilt_coswin-micro_rerank_large-digits',
        },
    ),
    'uniter': Family(
        'UNITER',
        {
            'vqa': 'uniter_micro_2xb64-6e_large-digit-vqa',
            'matching': 'uniter_micro_rerank_large-digits',
        },
    ),
    'florence2': Family('Florence-2', {'captions': 'florence2_coswin-micro_2xb16-5k_large-digit-tasks'}),
}
