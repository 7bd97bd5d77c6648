"""Export of models: torch.export, ONNX and OpenVINO files of towers, classifiers, detectors, recognizers and
vision-language models, and their check.

Not here: fast paths of models (``ops``), checkpoint formats (``models/checkpoints``).
"""

from .loading import ExportedModel, load_exported

__all__ = ['ExportedModel', 'load_exported']
