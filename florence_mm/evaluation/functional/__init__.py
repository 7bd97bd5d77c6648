"""Scores computed by functions on tensors and lists."""

from .multi_label import eleven_point_ap, mean_average_precision
from .ranks import retrieval_ranks, two_way_ranks
from .reranking import best_candidates, reranked_ranks
from .retrieval import image_text_recall, summarize_ranks
from .topk import check_topk
from .zero_shot import per_class_accuracy, target_ranks, topk_accuracy

__all__ = [
    'best_candidates',
    'check_topk',
    'eleven_point_ap',
    'image_text_recall',
    'mean_average_precision',
    'per_class_accuracy',
    'reranked_ranks',
    'retrieval_ranks',
    'summarize_ranks',
    'target_ranks',
    'topk_accuracy',
    'two_way_ranks',
]
