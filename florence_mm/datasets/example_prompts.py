"""Prompts of examples with their answers before each test sample (Flamingo, arXiv 2204.14198, section 2.5)."""

import os
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from florence_mm.errors import DataError
from florence_mm.language.documents import CHUNK_END, DOCUMENT_MARK, IMAGE_MARK
from florence_mm.registry import DATASETS
from florence_mm.utils.numbers import is_whole

from .arguments import require

#: Where a question and its answer, or a caption, stand; those of open_flamingo.
TEMPLATES = {'caption': 'Output:{answer}', 'answer': 'Question:{question} Short answer:{answer}'}
#: Examples that are read without their pictures where no example is shown, as in the paper.
TEXT_EXAMPLES = 2


@DATASETS.register_module()
class FewShotDataset(Dataset):
    """A test set with examples before each sample, as one document.

    The document of a sample is ``<image>`` and the text of each example, ended by ``<|endofchunk|>``, and then
    ``<image>`` and the beginning of the text that the model goes on with. Examples are drawn from a training set,
    others for each sample, by a seed; they do not depend on the order or number of processes, and the first of 4
    examples are those of 2. An example is never of the tested picture (by ``img_path``), which would tell the answer.

    With ``shots=0`` the text of two examples stands there without their pictures, which the paper calls zero-shot: it
    says how an answer looks. ``text_examples=0`` leaves it out.

    Packed samples have the fields of the test set's, with ``document`` and ``num_pictures``, and ``asked`` (the
    question) for questions; ``inputs`` are ``(3, shots + 1, H, W)``.

    Args:
        dataset (dict): The test set, or its config, in test mode: :class:`ImageTextManifest` with ``PackImageText``
            for captions, :class:`VQADataset` with ``PackVQA`` for questions.
        support (dict): The data set that examples are from, of the same kind and in test mode too, or its config.
        shots (int): Number of examples; the paper has 0, 4, 8, 16 and 32.
        task (str): ``'caption'`` or ``'answer'``.
        template (str | None): Text of an example with ``{answer}``, at its end, and for questions ``{question}``;
            None: open_flamingo's, :data:`TEMPLATES`. ``'{answer}'`` is a caption as it is.
        text_examples (int): Examples without pictures where ``shots`` is 0.
        seed (int): Of the draws.

    Raises:
        DataError: an example has no answer, a text has a mark in it, pictures differ in size, or too few examples are
            of other pictures.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        dataset: Mapping | Dataset,
        support: Mapping | Dataset,
        shots: int = 4,
        task: Literal['caption', 'answer'] = 'caption',
        template: str | None = None,
        text_examples: int = TEXT_EXAMPLES,
        seed: int = 0,
    ) -> None:
        require('shots', shots, is_whole(shots) and shots >= 0, 'a number of examples from 0')
        right = is_whole(text_examples) and text_examples >= 0
        require('text_examples', text_examples, right, 'a number of examples from 0')
        require('task', task, task in TEMPLATES, f'one of {", ".join(TEMPLATES)}')
        template = TEMPLATES[task] if template is None else template
        right = isinstance(template, str) and template.count('{answer}') == 1 and template.endswith('{answer}')
        right = right and (task == 'caption') == ('{question}' not in template)
        require('template', template, right, 'a text that ends with {answer}, for questions with {question} before it')
        require('seed', seed, is_whole(seed) and seed >= 0, 'a whole number from 0')
        self.dataset, self.support = (
            DATASETS.build(one) if isinstance(one, Mapping) else one for one in (dataset, support)
        )
        for name, one in (('dataset', self.dataset), ('support', self.support)):
            # in training a caption is drawn by the global generator
            require(name, type(one).__name__, getattr(one, 'test_mode', False), 'a data set in test mode')
        self.shots, self.task, self.template, self.seed = shots, task, template, seed
        self.text_examples = text_examples

    def full_init(self) -> None:
        """Read both data sets."""
        for dataset in (self.dataset, self.support):
            if hasattr(dataset, 'full_init'):
                dataset.full_init()
        needed = max(self.shots, 0 if self.shots else self.text_examples)
        if len(self.support) < needed:
            raise ValueError(f'the data set of examples has {len(self.support)} rows and {needed} are shown; give more')

    @property
    def metainfo(self) -> dict:
        """That of the test set."""
        return self.dataset.metainfo

    def __len__(self) -> int:
        """Number of samples of the test set."""
        return len(self.dataset)

    def get_data_info(self, idx: int) -> dict:
        """The test sample that enters the pipeline, without its examples."""
        return self.dataset.get_data_info(idx)

    def chosen(self, idx: int) -> list[int]:
        """Rows of the examples of sample ``idx``."""
        count = self.shots or self.text_examples
        # a permutation of all rows, so that fewer examples are the first of more
        order = np.random.default_rng([self.seed, idx]).permutation(len(self.support))
        tested = self.dataset.get_data_info(idx).get('img_path')
        others = (row for row in order.tolist() if not _is_picture(self.support.get_data_info(row), tested))
        rows = list(islice(others, count))
        if len(rows) < count:
            raise DataError(
                f'the data set of examples has {len(rows)} rows of other pictures than {tested}, and {count} are '
                'shown; give more'
            )
        return rows

    def __getitem__(self, idx: int) -> Any:
        """Return the packed sample ``idx`` with its examples."""
        idx = int(idx) % len(self)
        packed = self.dataset[idx]
        shown = [self.support[row] for row in self.chosen(idx)]
        mark = IMAGE_MARK if self.shots else ''
        document = ''.join(f'{mark}{self._text(one["data_samples"])}{CHUNK_END}' for one in shown)
        sample = packed['data_samples']
        question = sample.text if self.task == 'answer' else ''
        sample.set_field(f'{document}{IMAGE_MARK}{self._filled(question, "")}', 'document')
        pictures = [*(one['inputs'] for one in shown if self.shots), packed['inputs']]
        if len({tuple(picture.shape) for picture in pictures}) > 1:
            raise DataError(
                f'{sample.get("source", "a sample")}: pictures of examples have other shapes than the tested one; end '
                'both pipelines with a step that gives one size'
            )
        sample.set_field(len(pictures), 'num_pictures')
        if self.task == 'answer':
            sample.set_field(question, 'asked')
        return {'inputs': torch.stack(pictures, 1), 'data_samples': sample}

    def _text(self, sample: Any) -> str:
        """The text of an example."""
        if self.task == 'caption':
            return self._filled('', sample.text)
        answers = sample.get('answers')
        if not answers:
            raise DataError(f'{sample.get("source", "an example")} has no answers to show; give `support` annotations')
        return self._filled(sample.text, max(answers, key=list(answers).count))

    def _filled(self, question: str, answer: str) -> str:
        for text in (question, answer):
            if found := DOCUMENT_MARK.search(text):
                raise DataError(f'the text {text!r} has {found[0]!r}, which stands for what is no text; take it out')
        # both at once, as a question may have '{answer}' in it
        return re.sub(r'\{(question|answer)\}', lambda m: question if m[1] == 'question' else answer, self.template)


def _is_picture(row: Mapping[str, Any], path: Any) -> bool:
    """Whether a row is about the picture of a path."""
    own = row.get('img_path')
    return path is not None and own is not None and (own == path or os.path.abspath(own) == os.path.abspath(path))  # noqa: PTH100
