"""Estimate the memory of a config's training step on a GPU, with and without recomputed blocks; needs no GPU.

    python tools/analysis_tools/get_memory.py CONFIG [--batch-size 48] [--shape 224 224] [--gpu 80]
    python tools/analysis_tools/get_memory.py CONFIG --ranks 512 [--micro-batch 16]    # by component

The encoders run in training mode on the meta device, with texts of full length, and every tensor that they keep for the
backward pass is counted; see `florence_mm.engine.memory` for what is assumed. Of detectors the backbone, the neck and
the predictions of the head are counted, without the assignment of boxes.
"""

import argparse
from collections.abc import Iterator

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.config.arguments import positive_int
from florence_mm.config.check import check_parts
from florence_mm.config.load import load_config
from florence_mm.config.options import add_config_options
from florence_mm.config.pretrained import drop_pretrained
from florence_mm.engine.example_calls import clip_size
from florence_mm.engine.memory import BLOCKS, StepMemory, count_step
from florence_mm.engine.memory_budget import in_rows, kept_of_parts, loss_of_pairs, states_of_copy, states_of_part
from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.models.algorithms import UniCLClassifier
from florence_mm.models.heads.multimodal import FusionITMHead, FusionVQAHead
from florence_mm.models.multimodal import RetrievalReranker
from florence_mm.models.multimodal.protocol import Fuser
from florence_mm.models.protocol import TwoTowerModel

#: CUDA, NCCL, cuBLAS, the loss, and the allocator's loss to fragments: our guess, in GiB.
REST = 4.0
GIB = 2**30


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description="Memory of a config's training step on a GPU, estimated without one.")
    parser.add_argument('config', help='config file, or PACKAGE::FILE')
    parser.add_argument('--batch-size', type=positive_int, help="samples on the GPU (default: the config's)")
    parser.add_argument('--shape', type=positive_int, nargs='+', help="height and width (default: the config's)")
    parser.add_argument('--gpu', type=positive_int, default=80, help='memory of the GPU in GiB (default: 80)')
    parser.add_argument('--ranks', type=positive_int, help='print a table by component for one of so many processes')
    parser.add_argument('--micro-batch', type=positive_int, help='with --ranks: the micro_batch of the gradient cache')
    add_config_options(parser)
    return parser.parse_args()


def forward(model: nn.Module, images: Tensor) -> object:
    """Run the encoders, and the fusion or the dense head, on a batch of images or clips."""
    from mmaction.models.recognizers import Recognizer3D
    from mmdet.models.detectors import SingleStageDetector
    from mmpretrain.structures import DataSample

    if isinstance(model, RetrievalReranker):
        model = model.matcher  # the towers are frozen
    if isinstance(model, TwoTowerModel):
        text = 'a ' * (model.tokenizer.context_length - 2)
        return model.extract_image_feat(images), model.extract_text_feat([text] * len(images))
    if isinstance(model, Fuser):
        heads = model.heads.values()
        answers = [head.num_answers for head in heads if isinstance(head, FusionVQAHead)]
        sample = DataSample(text='a ' * (model.max_text_len - 2), gt_score=torch.zeros(*answers or [0]))
        batch = model.make_batch(images, [sample] * len(images), image_of=range(len(images)))
        # image-text matching fuses other pairs than the other heads, and needs different texts
        return [head.loss(batch) for head in heads if not isinstance(head, FusionITMHead)], batch.fused
    if isinstance(model, UniCLClassifier):
        return model.extract_image_feat(images)
    if isinstance(model, Recognizer3D):
        return model.cls_head(model.backbone(images))
    if isinstance(model, SingleStageDetector):
        return model.bbox_head(model.extract_feat(images))
    try:
        return model(images, mode='tensor')
    except (RuntimeError, TypeError) as error:  # values are asked for, or boxes
        raise _needs_values(type(model).__name__, error) from error


def _needs_values(name: str, error: Exception) -> UsageError:
    return UsageError(
        f'a {name} cannot be run on shapes alone ({str(error).splitlines()[0]}); give a config of a model of '
        'florence_mm, of a Swin classifier or of a one-stage detector'
    )


def _values(part: object, key: str) -> Iterator:
    """All values of a key within a config, outer ones first."""
    if isinstance(part, dict):
        if key in part:
            yield part[key]
        part = list(part.values())
    if isinstance(part, list | tuple):
        for item in part:
            yield from _values(item, key)


def build(cfg: ConfigDict) -> nn.Module:
    """Build the model of a config on the meta device, in training mode, without recomputed blocks."""
    drop_pretrained(cfg.model, 'model')
    try:
        with torch.device('meta'):
            model = MODELS.build(cfg.model)
    except RuntimeError as error:  # a constructor computes with values
        raise _needs_values(cfg.model.type, error) from error
    model.train()
    for module in model.modules():
        if 'with_cp' in vars(module):
            module.with_cp = False
    return model


def measure(
    cfg: ConfigDict, model: nn.Module, batch_size: int | None, shape: list[int] | None
) -> tuple[StepMemory, int, tuple[int, int]]:
    """Count one step of the model of a config; also return the batch size and the shape."""
    if shape is None:
        size = cfg.get('image_size') or next(_values(cfg.model, 'img_size'), 224)
        shape = [size] if isinstance(size, int) else list(size)[-2:]
    batch_size = batch_size or (cfg.get('train_dataloader') or {}).get('batch_size') or 1
    clip = clip_size(cfg)
    frames = () if clip is None else (clip[0],)
    images = torch.empty(batch_size, 3, *frames, shape[0], shape[-1], device='meta')
    return count_step(model, lambda: forward(model, images)), batch_size, (shape[0], shape[-1])


def print_budget(cfg: ConfigDict, step: StepMemory, batch_size: int, args: argparse.Namespace) -> None:
    """Print the table by component, for the ways that a config may train."""
    model = build(cfg)
    kinds = [kind for kind in BLOCKS if any(kind == block[0] for block in step.blocks)]
    loss, width = {}, 0
    if isinstance(model, TwoTowerModel):
        width = int(cfg.model.get('embed_dims', 512))
        loss = loss_of_pairs(batch_size, args.ranks, width)
    elif args.micro_batch:
        raise UsageError(f'--micro-batch is for two-tower models, and {cfg.model.type} is none; leave it out')
    parts = states_of_part(step, model, args.ranks)
    # gathered weights are in bf16 and are freed, so that no copies of them are kept
    split = measure(cfg, build(cfg).bfloat16(), batch_size, args.shape)[0]
    columns = {
        'a copy each': {**states_of_copy(step), 'activations': step.activations(), **loss},
        f'split over {args.ranks}': {**parts, 'activations': split.activations(), **loss},
        '+ recomputed': {**parts, 'activations': split.activations(kinds), **loss},
    }
    if args.micro_batch:
        part = measure(cfg, build(cfg).bfloat16(), min(args.micro_batch, batch_size), args.shape)[0]
        columns[f'+ parts of {args.micro_batch}'] = {**parts, **kept_of_parts(part, batch_size, width, kinds), **loss}
    print('\n'.join(in_rows(columns, int(REST * GIB))))


def main() -> None:
    """Count and print."""
    args = parse_args()
    with one_sentence_errors():
        if args.shape and len(args.shape) not in (1, 2):
            raise UsageError(f'--shape {args.shape} must be height and width, or one number for both')
        cfg = load_config(args.config, args.cfg_options)
        if cfg.get('model') is None:
            raise UsageError(f'config {args.config} has no model to count; give one that has')
        check_parts(cfg, 'model', 'data_preprocessor', default_scope='florence_mm')
        init_default_scope(cfg.get('default_scope', 'florence_mm'))
        if args.micro_batch and not args.ranks:
            raise UsageError('--micro-batch is a column of the table by component; give --ranks too')
        step, batch_size, shape = measure(cfg, build(cfg), args.batch_size, args.shape)
        kinds = [kind for kind in BLOCKS if any(kind == block[0] for block in step.blocks)]
        print(f'{step.parameters / 1e6:.0f} M trained parameters, batch {batch_size}, {shape[0]} x {shape[1]} pixels')
        if args.ranks:
            print_budget(cfg, step, batch_size, args)
            return
        print(f'{"recomputed":<28}{"states":>8}{"kept":>8}{"total":>8}  of {args.gpu} GiB')
        choices = [[], *([kind] for kind in kinds), *([kinds] if len(kinds) > 1 else [])]
        for recomputed in choices:
            states, kept = step.states / GIB, step.activations(recomputed) / GIB
            total = states + kept + REST
            name = ' and '.join(recomputed) or 'nothing'
            # a tenth is left, as an estimate is not exact
            verdict = 'fits' if total <= 0.9 * args.gpu else 'may not fit' if total <= args.gpu else 'does not fit'
            print(f'{name:<28}{states:>8.1f}{kept:>8.1f}{total:>8.1f}  {verdict}')


if __name__ == '__main__':
    main()
