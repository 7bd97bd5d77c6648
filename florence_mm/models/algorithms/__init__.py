"""Pretraining algorithms."""
