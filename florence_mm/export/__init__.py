"""Export of models: torch.export, ONNX and OpenVINO files of towers, detectors and recognizers, and their check.

Not here: fast paths of models (``ops``), checkpoint formats (``models/checkpoints``).
"""

from .loading import ExportedModel, load_exported

__all__ = ['ExportedModel', 'load_exported']
