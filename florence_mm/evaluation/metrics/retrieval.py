"""Metric of retrieval between texts and images or videos."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from florence_mm.evaluation.functional import check_topk, image_text_recall
from florence_mm.evaluation.functional.retrieval import DIRECTIONS
from florence_mm.registry import METRICS


@METRICS.register_module()
class ImageTextRecall(BaseMetric):
    """R@k, median and mean rank of image-to-text and text-to-image retrieval, with several captions per image.

    Reads ``image_feat`` ``(D,)`` or ``(V, D)``, ``text_feat`` ``(n_texts, D)`` and ``texts`` of each sample. Results:
    ``retrieval/i2t_R@1`` and so on, from 0 to 1; ``retrieval/i2t_MdR`` and ``retrieval/i2t_MnR``, median and mean
    rank of the best correct item among the wrong ones, from 1; the same for ``t2i``; and ``retrieval/num_skipped`` if
    the data set skipped images. Wrong items with the score of the correct one come before it. Features of captions
    stay in memory in fp32: 2 KB each for 512 channels.

    Args:
        topk (Sequence[int]): The k of recall.
        merge_equal_texts (bool): Captions that are equal after normalisation are one item, correct for every image that
            has it, and one query. False is the published COCO and Flickr30K protocol, where a caption is correct only
            for its own image.
        max_elements (int): Most similarities held at once.
        modality (str): 'image', or 'video' for the names ``v2t`` and ``t2v``.
        collect_device, prefix, collect_dir: see :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'retrieval'

    def __init__(
        self,
        topk: Sequence[int] = (1, 5, 10),
        merge_equal_texts: bool = True,
        max_elements: int = 1 << 24,
        modality: str = 'image',
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.topk = check_topk(topk, 'ImageTextRecall')
        self.merge_equal_texts = merge_equal_texts
        self.max_elements = max_elements
        if modality not in DIRECTIONS:
            raise ValueError(f'modality={modality!r} of ImageTextRecall must be one of {", ".join(DIRECTIONS)}')
        self.modality = modality

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the features and captions of each sample."""
        for sample in data_samples:
            for key in ('image_feat', 'text_feat', 'texts'):
                if key not in sample:
                    raise ValueError(
                        f'{sample.get("source", "a sample")} has no `{key}`, which ImageTextRecall needs; evaluate a '
                        'two-tower model on rows with captions, with the data set in test mode'
                    )
            texts, features = list(sample['texts']), sample['text_feat']
            if len(texts) != len(features):
                raise ValueError(
                    f'{sample.get("source", "a sample")} has {len(texts)} captions and {len(features)} features'
                )
            self.results.append((sample['image_feat'].float().cpu(), features.float().cpu(), texts))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the scores over all samples."""
        images, features, texts = zip(*results, strict=True)
        metrics = image_text_recall(
            torch.stack(images),  # (N, D) or (N, V, D)
            torch.cat(features),  # (M, D)
            owners=[i for i, captions in enumerate(texts) for _ in captions],
            texts=[text for captions in texts for text in captions] if self.merge_equal_texts else None,
            topk=self.topk,
            max_elements=self.max_elements,
            modality=self.modality,
        )
        if (self.dataset_meta or {}).get('num_skipped'):
            metrics['num_skipped'] = self.dataset_meta['num_skipped']
        return metrics
