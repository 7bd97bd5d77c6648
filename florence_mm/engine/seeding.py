"""Seeds as pure functions of (run seed, what, number): the same under any number of workers or processes."""

import hashlib
import random
import struct
from typing import Any

import numpy as np
import torch

_MASK = (1 << 64) - 1

#: First word of every derived seed, so that no two uses share a stream.
ORDER, SAMPLE, STEP, INIT = range(4)


def combine_seeds(*words: int) -> int:
    """Hash integers into one 63-bit seed; every word counts, and their order does.

    Args:
        words (int): Any integers; the low 64 bits of each count.
    """
    packed = struct.pack(f'<{len(words)}Q', *(int(word) & _MASK for word in words))
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), 'little') >> 1


def base_seed(runner: Any) -> int:
    """The run's one seed, equal on every rank also where ``randomness.diff_rank_seed`` shifts ``runner.seed``."""
    shifted = runner._randomness_cfg.get('diff_rank_seed', False)
    return runner.seed - runner.rank if shifted else runner.seed


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed all global generators for one training iteration (drop path, dropout, sampled negatives).

    What data loading or validation drew before has no influence on the step.

    Args:
        seed (int): Seed of the run.
        iteration (int): Number of the iteration, from 0.
        rank (int): Rank of the process; ranks get unrelated streams.
    """
    derived = combine_seeds(seed, STEP, iteration, rank)
    random.seed(derived)
    np.random.seed(derived & 0xFFFF_FFFF)
    # also seeds every CUDA device, lazily where CUDA is not initialised
    torch.manual_seed(derived)
