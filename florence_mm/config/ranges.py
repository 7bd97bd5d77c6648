"""Ranges of numeric arguments, by their names: what annotations do not say.

They hold for classes of florence_mm, mmengine and torch, in which one name has one meaning, and for every number in a
list.
"""

import math
import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``.

    Attributes:
        low (float): Lowest number, not itself accepted if ``above``.
        high (float): Highest number, not itself accepted if ``below``.
        above, below (bool): Whether the bounds are left out.
        infinite (bool): Whether infinity is accepted.
        off (float, optional): A number outside that is accepted and turns something off.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    infinite: bool = False
    off: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a number is in the range; NaN is in none."""
        if value == self.off:
            return True
        low = value > self.low if self.above else value >= self.low
        high = value < self.high if self.below else value <= self.high
        return low and high and (self.infinite or abs(value) < math.inf)

    def __str__(self) -> str:
        words = []
        if self.low > -math.inf:
            words.append(f'{"above" if self.above else "of at least"} {self.low:g}')
        if self.high < math.inf:
            words.append(f'{"below" if self.below else "of at most"} {self.high:g}')
        off = '' if self.off is None else f', or {self.off:g} to turn it off'
        return f'a number {" and ".join(words)}{off}' if words else 'a finite number'


FROM_1, FROM_0, FROM_MINUS_1 = Range(1), Range(0), Range(-1)
ABOVE_0 = Range(0, above=True)
SHARE, SHARE_BELOW_1 = Range(0, 1), Range(0, 1, below=True)
FINITE = Range()


def _each(names: str, range_: Range) -> dict[str, Range]:
    return dict.fromkeys(names.split(), range_)


#: Range by argument.
RANGES: Mapping[str, Range] = {
    # loaders, loops, runs
    **_each('batch_size prefetch_factor max_epochs max_iters val_interval base_batch_size', FROM_1),
    'num_workers': Range(0, 4096),
    'opencv_num_threads': Range(0, 4096, off=-1),
    **_each('timeout val_begin save_begin begin_iter begin_epoch epoch_size', FROM_0),
    **_each('max_keep_ckpts', FROM_MINUS_1),
    'dynamic_intervals': FROM_1,
    'milestones': FROM_0,
    'seed': Range(0, 2**32 - 1),
    # optimizers and schedules
    **_each('lr weight_decay momentum eps eta_min accumulative_counts dampening', FROM_0),
    **_each('max_norm clip_value begin power', FROM_0),
    'norm_type': Range(0, above=True, infinite=True),
    'betas': SHARE_BELOW_1,
    'start_factor': Range(0, 1, above=True),
    'end_factor': SHARE,
    **_each('gamma', FINITE),
    **_each('lr_mult decay_mult bias_lr_mult bias_decay_mult norm_decay_mult dwconv_decay_mult', FROM_0),
    **_each('flat_decay_mult dcn_offset_lr_mult', FROM_0),
    **_each('T_max step_size ns_steps', Range(0, above=True)),
    # models
    **_each('embed_dims depths num_heads patch_size window_size img_size in_channels feat_channels', FROM_1),
    **_each('hidden_size vocab_size context_length max_text_len max_length num_answers num_classes num_blocks', FROM_1),
    **_each('num_beams num_layers pooled_size stem_temporal_kernel merge_temporal_kernel micro_batch', FROM_1),
    **_each('classes_per_box crop_size regions_at_once max_per_img', FROM_1),
    **_each('loss_weight min_length init_std proposal_weight length_penalty', FROM_0),
    **_each('norm_eps layer_norm_eps max_logit_scale context std temperature', ABOVE_0),
    'top_p': Range(0, 1, above=True),
    **_each('drop_rate attn_drop_rate drop_path_rate', SHARE_BELOW_1),
    **_each('probability prob label_smoothing nms_iou score_thr max_translate', SHARE),
    **_each('frozen_stages', FROM_MINUS_1),
    **_each('logit_scale_init layer_scale_init_value mean similarity_weight', FINITE),
    # data and metrics
    **_each('topk top_k pairs_at_once max_elements min_frames patience', FROM_1),
    **_each('table_rows max_bad_boxes max_words keep_mb max_rotate max_shear', FROM_0),
    **_each('background fill', Range(0, 255)),
}
#: Range by class and argument, where a class means something else.
OF_CLASS: Mapping[tuple[str, str], Range] = {
    ('LoggerHook', 'interval'): FROM_1,
    **dict.fromkeys([(f'{kind}CheckpointHook', 'interval') for kind in ('', 'Atomic')], Range(1, off=-1)),
    ('RandomAffineImage', 'scale'): ABOVE_0,
    ('EMAHook', 'momentum'): Range(0, 1, above=True, below=True),
    ('FusionWrittenAnswerHead', 'rank'): FROM_1,
}

#: Range by argument where it has one meaning in all OpenMMLab packages, also in dicts without type.
EVERYWHERE: Mapping[str, Range] = {
    **_each('score_thr iou_threshold min_pos_iou pos_iou_thr neg_iou_thr dropout_ratio drop_path_rate', SHARE),
    **_each('flip_ratio keep_ratio_prob', SHARE),
    **_each('max_per_img nms_pre', Range(1, off=-1)),
    **_each('num_outs feat_channels scales_per_octave octave_base_scale pad_size_divisor', FROM_1),
    **_each('clip_len frame_interval num_clips', FROM_1),
    **_each('loss_weight min_bbox_size lr weight_decay', FROM_0),
    **_each('std', ABOVE_0),
    **_each('mean', FINITE),
}


def range_of(owner: str, argument: str) -> Range | None:
    """The range of an argument of the class named ``owner``; None if every number is accepted."""
    return OF_CLASS.get((owner, argument), RANGES.get(argument))


def outside(value: Any, range_: Range) -> bool:
    """Whether a value is a number outside the range, or a list or dict, at any depth, with one."""
    return any(not range_.holds(number) for number in _numbers(value))


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (list, tuple, Mapping)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(item)
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        yield value
