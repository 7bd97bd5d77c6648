"""Two-step test of retrieval: two towers find candidates, a fusion model re-ranks them.

Shape legend: ``N`` images, ``M`` captions, ``D`` channels, ``k`` candidates a query.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, collect_results, get_dist_info
from mmengine.evaluator import Evaluator
from mmengine.runner import TestLoop
from mmengine.runner.amp import autocast
from torch import Tensor
from torch.utils.data import DataLoader

from florence_mm.models.multimodal.protocol import Reranker
from florence_mm.models.protocol import unwrap_model
from florence_mm.registry import LOOPS
from florence_mm.utils.progress import ProgressLog

from .functional.ranks import retrieval_ranks
from .functional.reranking import best_candidates, reranked_ranks
from .functional.retrieval import DIRECTIONS, group_captions, summarize_ranks
from .metrics.retrieval import ImageTextRecall


@LOOPS.register_module()
class RerankTestLoop(TestLoop):
    """Test loop of retrieval with re-ranking: recall of the two-tower model, and recall after re-ranking.

    The model is a :class:`~florence_mm.models.multimodal.protocol.Reranker`.

    The first pass is mmengine's, with the scores of the evaluator's ``ImageTextRecall``. The second pass goes through
    the images batch by batch and scores each with its candidate texts and with the texts it is a candidate for, so that
    only the image tokens of one batch are in memory. Re-ranked candidates come before all other items. Adds the results
    ``reranked/i2t_R@1`` and so on, named as by ``ImageTextRecall``.

    Several processes share the images. A pair's score is then computed in another batch than with one process, which
    changes it by rounding only (the seventh digit in fp32), so results are equal except for ties.

    Args:
        runner, dataloader, evaluator, fp16: passed to :class:`mmengine.runner.TestLoop`.
        top_k (int): Candidates per query: texts per image, and images per text.
        similarity_weight (float): Weight of the two-tower model's logit, which is added to the log-odds of a match;
            0: re-rank by the match alone.
        pairs_at_once (int): Image-text pairs per forward pass of the fusion model.

    Raises:
        ValueError: an argument is out of range, ``ImageTextRecall`` is missing, or the model cannot re-rank.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
        top_k: int = 128,
        similarity_weight: float = 0.0,
        pairs_at_once: int = 64,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        if top_k < 1 or pairs_at_once < 1 or similarity_weight < 0:
            raise ValueError(
                f'top_k={top_k}, pairs_at_once={pairs_at_once} and similarity_weight={similarity_weight} of '
                'RerankTestLoop must be at least 1, 1 and 0'
            )
        self.top_k = top_k
        self.similarity_weight = similarity_weight
        self.pairs_at_once = pairs_at_once

    def run(self) -> dict[str, float]:
        """Run both passes and return all scores."""
        runner = self.runner
        recall = next((m for m in self.evaluator.metrics if isinstance(m, ImageTextRecall)), None)
        model = unwrap_model(runner.model)
        if recall is None or not isinstance(model, Reranker):
            raise ValueError(
                f'RerankTestLoop got the metrics {[type(m).__name__ for m in self.evaluator.metrics]} and the model '
                f'{type(model).__name__}; it needs ImageTextRecall and a model that re-ranks, such as RetrievalReranker'
            )
        runner.call_hook('before_test')
        runner.call_hook('before_test_epoch')
        runner.model.eval()
        for index, data_batch in enumerate(self.dataloader):
            self.run_iter(index, data_batch)
        features = list(recall.results)  # evaluating empties the metric
        size = len(self.dataloader.dataset)
        metrics = self.evaluator.evaluate(size)
        metrics.update(
            {f'reranked/{name}': value for name, value in self._rerank(model, recall, features, size).items()}
        )
        runner.call_hook('after_test_epoch', metrics=metrics)
        runner.call_hook('after_test')
        return metrics

    @torch.no_grad()
    def _rerank(self, model: Reranker, recall: ImageTextRecall, results: list, size: int) -> dict[str, float]:
        """The scores after re-ranking, on every process.

        Args:
            model: the re-ranker.
            recall: the metric, for its options.
            results: image feature, text features and texts of each image of this process.
            size: N, the number of images of all processes.
        """
        everything = [collect_results(results, size)]
        broadcast_object_list(everything)
        images, features, captions = zip(*everything[0], strict=True)
        texts = [text for row in captions for text in row]
        owners = [i for i, row in enumerate(captions) for _ in row]
        items = group_captions(owners, texts if recall.merge_equal_texts else None, size)
        image_feats, item_feats = torch.stack(images), torch.cat(features)[items.first]  # (N, D), (items, D)
        texts = [texts[caption] for caption in items.first]
        directions = ((image_feats, item_feats, items.items_of), (item_feats, image_feats, items.images_of))
        best = [
            best_candidates(queries, gallery, self.top_k, recall.max_elements) for queries, gallery, _ in directions
        ]
        matches = self._match(model, texts, best[0][0], best[1][0], captions)
        scores: list[dict[str, float]] = [{}]
        if matches is not None:
            weight = self.similarity_weight * model.similarity_scale()
            for name, (queries, gallery, positives), (candidates, similarity), match in zip(
                DIRECTIONS[recall.modality], directions, best, matches, strict=True
            ):
                ranks = retrieval_ranks(queries, gallery, positives, recall.max_elements)
                ranks = reranked_ranks(ranks, candidates, match + weight * similarity, positives)
                summary = summarize_ranks(ranks, len(gallery), recall.topk)
                scores[0].update({f'{name}_{key}': value for key, value in summary.items()})
        broadcast_object_list(scores)
        return scores[0]

    def _match(
        self,
        model: Reranker,
        texts: list[str],
        text_candidates: Tensor,
        image_candidates: Tensor,
        captions: Sequence[list[str]],
    ) -> tuple[Tensor, Tensor] | None:
        """Match scores of all candidates, ``(N, k)`` and ``(items, k)``, on the main process; None on the others.

        ``text_candidates (N, k)`` are the texts found for each image, ``image_candidates (items, k)`` the images for
        each text.
        """
        rank, world = get_dist_info()
        size, width = len(captions), image_candidates.shape[1]
        # positions in the flattened candidates of texts, sorted by the candidate image
        order = image_candidates.flatten().argsort(stable=True)
        starts = torch.searchsorted(image_candidates.flatten()[order], torch.arange(size + 1))
        results: list[tuple[Tensor, Tensor, Tensor]] = []
        progress = ProgressLog('re-ranking', len(range(rank, size, world)))
        for data in self.dataloader:
            pairs, backs, places = [], [], []
            for index, sample in enumerate(data['data_samples']):
                # images are dealt to the processes in turn, as in collect_results; the last round may be padded
                number = (rank + world * (len(results) + index)) % size
                if list(sample.texts) != captions[number]:
                    raise ValueError(
                        f'image {number} of the second pass is not that of the first; the order of the test data '
                        'must stay: use a sampler with shuffle=False'
                    )
                places.append(order[starts[number] : starts[number + 1]])
                # a pair may be a candidate in both directions
                items, back = torch.cat([text_candidates[number], places[-1] // width]).unique(return_inverse=True)
                pairs += [(index, item) for item in items.tolist()]
                backs.append(back + len(pairs) - len(items))
            with autocast(enabled=self.fp16):
                scores = model.match_pictures(data, texts, pairs, self.pairs_at_once)
            for place, back in zip(places, backs, strict=True):
                image_scores, text_scores = scores[back].split([text_candidates.shape[1], len(place)])
                results.append((image_scores, place, text_scores))
            progress.update(len(results))
        collected = collect_results(results, size)
        if collected is None:
            return None
        match_texts = torch.full((image_candidates.numel(),), torch.nan)
        for _, place, score in collected:
            match_texts[place] = score
        return torch.stack([score for score, _, _ in collected]), match_texts.view_as(image_candidates)
