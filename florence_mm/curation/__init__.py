"""The data engine: raw image-text pairs into curated shards, in three stages that can be stopped and continued.

Stage A looks at each pair by itself, stage B at the columns of all pairs, stage C writes the pairs that are kept.
CapFilt captions pictures and filters captions, before or instead. Models are known by callables alone, which a command
makes: one embeds pictures and texts, one writes captions, one matches both.

Not here: the format of shards (``formats``), reading them for training (``datasets``), towers (``models``).
"""
