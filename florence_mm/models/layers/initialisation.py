"""First weights of layers."""

from torch import nn


def init_bert_weights(module: nn.Module, std: float = 0.02) -> None:
    """Normal weights and zero biases in all linear layers and embeddings, as in BERT."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
