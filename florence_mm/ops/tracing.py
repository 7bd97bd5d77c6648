"""Whether a model is being exported, where no size may depend on values and only plain operators may be used."""

import torch


def is_traced() -> bool:
    """Whether a model is being exported by ``torch.export`` or traced by ``torch.jit.trace``."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()
