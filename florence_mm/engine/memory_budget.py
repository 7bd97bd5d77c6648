"""Memory of a training step by component, for one of W processes that hold whole copies, or parts of one (FSDP2)."""

from collections.abc import Sequence

from torch import nn

from florence_mm.ops.contrastive import CHUNK_BYTES_ACCELERATOR, KEEP_BYTES

from .memory import BLOCKS, StepMemory

_FLOAT32, _BFLOAT16 = 4, 2
_REST = 'CUDA, NCCL, fragments'


def states_of_copy(step: StepMemory) -> dict[str, int]:
    """Bytes of the states in a process that holds a whole copy, all in fp32.

    Args:
        step: what was counted of a step.
    """
    trained, frozen = step.parameters, step.frozen
    return {
        'weights': _FLOAT32 * (trained + frozen),
        'gradients': _FLOAT32 * trained,
        'moments of AdamW': 2 * _FLOAT32 * trained,
        'buckets, or gathered blocks': _FLOAT32 * trained,
    }


def states_of_part(step: StepMemory, model: nn.Module, ranks: int) -> dict[str, int]:
    """Bytes of the states in a process that holds its part, all in fp32, and of what is gathered in bf16.

    Gathered are what is in no block, with its gradients, and two blocks, of which one comes while the other computes;
    of one there are gradients in bf16 and, while they are summed over the processes, in fp32.

    Args:
        step: what was counted of a step.
        model: the model.
        ranks: the number of processes.
    """
    blocks = [module for module in model.modules() if type(module).__name__ in BLOCKS]
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in blocks]
    beside = step.parameters + step.frozen - sum(sizes)
    gathered = 2 * _BFLOAT16 * beside + (3 * _BFLOAT16 + _FLOAT32) * max(sizes, default=0)
    whole = states_of_copy(step)
    return {key: -(-size // ranks) for key, size in whole.items()} | {'buckets, or gathered blocks': gathered}


def loss_of_pairs(batch: int, ranks: int, width: int) -> dict[str, int]:
    """Bytes of the unified contrastive loss on a GPU (:func:`florence_mm.ops.contrastive.unified_contrastive_loss`).

    Args:
        batch: pairs of a process.
        ranks: the number of processes.
        width: size of the features.
    """
    pairs = batch * ranks
    rows = min(batch, max(16, CHUNK_BYTES_ACCELERATOR // (_FLOAT32 * pairs)))
    chunk = _FLOAT32 * rows * pairs
    kept = min(KEEP_BYTES // chunk, -(-batch // rows)) * chunk
    # the texts of all, their gradients, and the sums and means of the classes; logits and both their softmaxes
    return {'features of the loss': 4 * _FLOAT32 * pairs * width, 'logits of the loss': 3 * chunk + kept}


def kept_of_parts(part: StepMemory, batch: int, width: int, recomputed: Sequence[str]) -> dict[str, int]:
    """Bytes that the gradient cache keeps: the activations of one part of the batch, and the features of all.

    Args:
        part: what was counted of a step of ``micro_batch`` pairs.
        batch: pairs of a process.
        width: size of the features.
        recomputed: classes of blocks that keep their input alone.
    """
    # of both towers, and their gradients
    return {'activations': part.activations(recomputed), 'gradient cache': 2 * 2 * _FLOAT32 * batch * width}


def in_rows(columns: dict[str, dict[str, int]], rest: int) -> list[str]:
    """Lines of a table in GiB: a row for each component, a column for each way to train.

    Args:
        columns: bytes by component, by the name of the way.
        rest: what else a process takes.
    """
    gib = 2**30
    names = [*dict.fromkeys(name for column in columns.values() for name in column), _REST]
    every = [{**column, _REST: rest} for column in columns.values()]
    lines = [f'{"GiB of one process":<30}' + ''.join(f'{name:>16}' for name in columns)]
    lines += [f'{name:<30}' + ''.join(f'{column.get(name, 0) / gib:>16.3f}' for column in every) for name in names]
    return [*lines, f'{"total":<30}' + ''.join(f'{sum(column.values()) / gib:>16.3f}' for column in every)]
