"""The data engine: raw image-text pairs into curated shards, in three stages that can be stopped and continued.

Stage A looks at each pair by itself, stage B at the columns of all pairs, stage C writes the pairs that are kept.
Models are known by one callable alone, which a command makes and which embeds pictures and texts.

Not here: the format of shards (``formats``), reading them for training (``datasets``), towers (``models``).
"""
