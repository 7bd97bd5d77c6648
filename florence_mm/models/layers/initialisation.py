"""Initialisation of weights."""

from torch import nn


def init_bert_weights(module: nn.Module, std: float = 0.02) -> None:
    """Initialise linear layers and embeddings with normal weights and zero biases, as in BERT."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
