"""Calls of a model of any kind with one input of zeros, for counting its multiply-adds."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from florence_mm.config.pick import find_step
from florence_mm.errors import UsageError
from florence_mm.models.multimodal.protocol import Fuser
from florence_mm.models.protocol import TwoTowerModel, class_head

Calls = Iterator[tuple[str, Callable[[], Any]]]


def clip_size(cfg: ConfigDict) -> tuple[int, int] | None:
    """Read the size of one view of a video from the test pipeline: frames per clip, and clips; None without video."""
    for phase, name in product(('test', 'val', 'train'), ('SampleFrames', 'UniformSample')):
        try:
            step = find_step(cfg.get(f'{phase}_dataloader') or {}, name)
        except UsageError:
            continue
        return step.get('clip_len', 1), step.get('num_clips', 1)
    return None


def example_calls(model: nn.Module, shape: tuple[int, int], clip: tuple[int, int] | None = None) -> Calls:
    """Yield what is called and the call: one image or one clip, and one text if the model has a text encoder.

    Args:
        model: a model, or a part of one that takes images or clips.
        shape: height and width.
        clip: frames per clip, and clips, of a model for videos; a recognizer of single frames gets all of them.
    """
    image = torch.zeros(1, 3, *shape)
    if clip is None:
        what = 'one image'
    elif _takes_frames(model):
        image = torch.zeros(clip[0] * clip[1], 3, *shape)
        what = f'one view of {len(image)} frames'
    else:
        image = torch.zeros(1, 3, clip[0], *shape)
        what = f'one clip of {clip[0]} frames' if clip[0] > 1 else 'one clip of 1 frame'
    if isinstance(model, TwoTowerModel):
        yield what, lambda: model.extract_image_feat(image)
        # one token per word, and the start and end tokens
        text = 'a ' * (model.tokenizer.context_length - 2)
        yield 'one text of full length', lambda: model.extract_text_feat([text])
    elif isinstance(model, BaseModel):
        yield what, _call_of(model, image)
        if isinstance(model, Fuser):
            from mmpretrain.structures import DataSample

            pair = DataSample(text='a ' * (model.max_text_len - 2))
            yield 'one image with a text of full length', lambda: model(image, [pair], mode='tensor')
    else:
        yield what, lambda: model(image)


def _takes_frames(model: nn.Module) -> bool:
    """Whether a model takes the frames of a clip as images, as mmaction2's 2-D recognizers do."""
    return any(kind.__name__ == 'Recognizer2D' for kind in type(model).__mro__)


def _call_of(model: BaseModel, image: Tensor) -> Callable[[], Any]:
    head = class_head(model)
    if head is not None and head.owner == 'recognizer':
        # (views of one video, ...)
        return lambda: model(image[None], mode='tensor', stage='head')
    if not any(kind.__module__.startswith('mmdet.') for kind in type(model).__mro__):
        return lambda: model(image, mode='tensor')
    from mmdet.models.dense_heads import EmbeddingRPNHead
    from mmdet.models.detectors import TwoStageDetector
    from mmdet.structures import DetDataSample

    size = tuple(image.shape[-2:])
    meta = {'img_shape': size, 'ori_shape': size, 'batch_input_shape': size, 'scale_factor': (1.0, 1.0)}
    # some heads read the boxes of training although they do not use them
    nothing = InstanceData(bboxes=image.new_zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    sample = DetDataSample(metainfo=meta, gt_instances=nothing)
    for head in (module for module in model.modules() if isinstance(module, EmbeddingRPNHead)):
        # learnt proposals begin as the whole image; before that they are random numbers, and no boxes
        head.init_proposal_bboxes.weight.data.copy_(image.new_tensor([0.5, 0.5, 1.0, 1.0]))
    if isinstance(model, TwoStageDetector) and model.with_rpn and model.with_roi_head:
        _fix_number_of_proposals(model)
    return lambda: model(image, [sample], mode='tensor')


def _fix_number_of_proposals(model: nn.Module) -> None:
    """Give the second stage as many proposals as the test keeps at most; suppression would leave a random number."""
    proposals = model.rpn_head
    wanted = (getattr(proposals, 'test_cfg', None) or {}).get('max_per_img')
    if not wanted:
        return
    predict = model.rpn_head.predict

    def padded(features: Any, samples: Any, rescale: bool = False) -> list[InstanceData]:
        found = predict(features, samples, rescale=rescale)
        side = float(min(samples[0].img_shape))
        whole = found[0].bboxes.new_tensor([[0.0, 0.0, side, side]])
        return [
            InstanceData(
                bboxes=torch.cat([one.bboxes, whole.expand(wanted - len(one), 4)])[:wanted],
                scores=torch.cat([one.scores, one.scores.new_zeros(wanted - len(one))])[:wanted],
                labels=torch.zeros(wanted, dtype=torch.long, device=whole.device),
            )
            for one in found
        ]

    model.rpn_head.predict = padded
