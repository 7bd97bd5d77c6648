"""Inference and model listing."""
