"""Adapters from public checkpoint layouts to ours."""
