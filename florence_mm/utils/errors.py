"""The error of unusable data."""


class DataError(ValueError):
    """A row or an image that cannot be used; the message is one sentence naming file and line."""
