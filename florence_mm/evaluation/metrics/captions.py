"""Metric of captions: BLEU, ROUGE-L and CIDEr-D."""

import json
import logging
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from florence_mm.evaluation.functional.captions import caption_words, cider_d, corpus_bleu, rouge_l
from florence_mm.language.task_list import find_task
from florence_mm.registry import METRICS
from florence_mm.utils.files import write_atomic


@METRICS.register_module()
class CaptionScores(BaseMetric):
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D against several references per image, without Java.

    Reads ``pred_caption`` and ``texts`` (the references) of each sample. Results: ``caption/CIDEr-D`` (from 0 to 10;
    papers often print it times 100), ``caption/BLEU-1`` to ``BLEU-4`` and ``caption/ROUGE-L`` (from 0 to 1);
    ``caption/num_skipped`` if the data set skipped images. Formulas are those of the COCO evaluation; words are
    split by :func:`florence_mm.evaluation.functional.captions.caption_words` and not by its Java program. METEOR and
    SPICE need Java and are not computed: write ``outfile`` and pass it to the official tools.

    Args:
        outfile (str | None): Write the captions to this file in the format of the COCO evaluation, ``[{"image_id": ...,
            "caption": ...}, ...]``; samples then need ``img_id``, or ``image_id`` in ``extra``, a manifest's column.
        tasks (Sequence[str] | None): Take the samples of these tasks alone, names or public marks, whose caption is the
            text of ``pred_target``; None: all samples, with ``pred_caption``.
        collect_device, prefix, collect_dir: see :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: a sample lacks a field.
    """

    default_prefix = 'caption'

    def __init__(
        self,
        outfile: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
        tasks: Sequence[str] | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if isinstance(tasks, str) or tasks is not None and not tasks:
            raise ValueError(f'tasks of CaptionScores is {tasks!r}; give a list of at least one task, or None')
        self.tasks = None if tasks is None else [find_task(task).name for task in tasks]
        if outfile is not None and not outfile.endswith('.json'):
            raise ValueError(f'outfile={outfile!r} of CaptionScores must end in .json')
        self.outfile = outfile

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the caption and the references of each sample."""
        for sample in data_samples:
            source = sample.get('source', 'a sample')
            if self.tasks is not None and find_task(sample.get('task', '')).name not in self.tasks:
                self.results.append(None)  # several processes gather lists of equal lengths
                continue
            for key, hint in (
                ('pred_caption' if self.tasks is None else 'pred_target', 'evaluate a model that writes captions'),
                ('texts', 'evaluate rows with captions, with the data set in test mode'),
            ):
                if key not in sample:
                    raise ValueError(f'{source} has no `{key}`, which CaptionScores needs; {hint}')
            image_id = sample.get('img_id', (sample.get('extra') or {}).get('image_id'))
            if self.outfile is not None and image_id is None:
                raise ValueError(
                    f'{source} has neither `img_id` nor `image_id` in `extra`, which the outfile of CaptionScores '
                    'needs; give the manifest a column image_id'
                )
            caption = sample['pred_caption'] if self.tasks is None else sample['pred_target'].text
            self.results.append((image_id, caption, list(sample['texts'])))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the scores over all samples."""
        results = [result for result in results if result is not None]
        if not results:
            print_log(
                f'CaptionScores got no sample of {", ".join(self.tasks or ())} and has no results',
                logger='current',
                level=logging.WARNING,
            )
            return {}
        if self.outfile is not None:
            captions = {image_id: caption for image_id, caption, _ in results}
            written = [{'image_id': image_id, 'caption': caption} for image_id, caption in captions.items()]
            write_atomic(self.outfile, json.dumps(written))
            print_log(f'wrote {len(written)} captions to {self.outfile}', logger='current', level=logging.INFO)
        candidates = [caption_words(caption) for _, caption, _ in results]
        references = [[caption_words(text) for text in texts] for _, _, texts in results]
        cider = cider_d(candidates, references)
        rouge = [rouge_l(words, wanted) for words, wanted in zip(candidates, references, strict=True)]
        scores = {'CIDEr-D': sum(cider) / len(cider)}
        scores.update({f'BLEU-{i}': score for i, score in enumerate(corpus_bleu(candidates, references), 1)})
        scores['ROUGE-L'] = sum(rouge) / len(rouge)
        if (self.dataset_meta or {}).get('num_skipped'):
            scores['num_skipped'] = self.dataset_meta['num_skipped']
        return scores
