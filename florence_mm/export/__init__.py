"""Export of models: torch.export, ONNX and OpenVINO files of towers, detectors and recognizers, and their check.

Not here: fast paths of models (``ops``), checkpoint formats (``models/checkpoints``).
"""
