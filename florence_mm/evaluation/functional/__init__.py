"""Scores computed by functions on tensors and lists."""

from .reranking import best_candidates, reranked_ranks
from .retrieval import image_text_recall, retrieval_ranks, summarize_ranks
from .topk import check_topk
from .zero_shot import per_class_accuracy, target_ranks, topk_accuracy

__all__ = [
    'best_candidates',
    'check_topk',
    'image_text_recall',
    'per_class_accuracy',
    'reranked_ranks',
    'retrieval_ranks',
    'summarize_ranks',
    'target_ranks',
    'topk_accuracy',
]
