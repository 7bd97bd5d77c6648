"""Initialisation of weights."""

from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary


def trunc_normal_(tensor: Tensor, std: float) -> Tensor:
    """Fill a tensor from a normal distribution cut at -2 and 2, by one call that a ``TorchFunctionMode`` sees.

    Of torch's function a mode sees a dozen steps over all values, which it cannot leave out.
    """
    if has_torch_function_unary(tensor):
        return handle_torch_function(trunc_normal_, (tensor,), tensor, std=std)
    return nn.init.trunc_normal_(tensor, std=std)


def init_bert_weights(module: nn.Module, std: float = 0.02) -> None:
    """Initialise linear layers and embeddings with normal weights and zero biases, as in BERT."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
