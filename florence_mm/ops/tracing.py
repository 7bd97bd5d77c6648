"""Whether operators are being recorded, to be exported, traced or compiled, instead of being computed now."""

import torch


def is_traced() -> bool:
    """Whether a model is being exported or traced, where only plain operators may be used."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def is_compiling() -> bool:
    """Whether a model is being compiled (``torch.compile``), and not exported."""
    return torch.compiler.is_compiling() and not torch.compiler.is_exporting()


def is_recorded() -> bool:
    """Whether a model is being exported, traced or compiled: no size may depend on values."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
