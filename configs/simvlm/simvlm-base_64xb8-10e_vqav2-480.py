# SimVLM-base on VQAv2: the question is the beginning, the decoder writes the answer, as in its pretraining. Dropout is
# the paper's, its drop path is left out, the resolution is from memory
_base_ = [
    '../_base_/models/simvlm-base.py',
    '../_base_/datasets/vqav2.py',
    '../_base_/schedules/simvlm_10e.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.image_size import set_image_size

set_image_size(_base_, 480)
model = dict(
    text=dict(drop_rate=0.1, attn_drop_rate=0.1),
    heads=dict(
        answer=dict(
            type='florence_mm.FusionWrittenAnswerHead',
            tied=True,
            transform=False,
        )
    ),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/simvlm-base_512xb9-1m_pairs-texts/iter_1000000.pth',
        allow_missing=['heads'],
    ),
)
