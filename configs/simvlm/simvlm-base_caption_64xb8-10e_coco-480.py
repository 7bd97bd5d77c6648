# SimVLM-base's captions on COCO (Karpathy's split), 480 pixels as in questions
_base_ = [
    '../_base_/models/simvlm-base.py',
    '../_base_/datasets/karpathy_coco.py',
    '../_base_/schedules/simvlm_10e.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.image_size import set_image_size

set_image_size(_base_, 480)
model = dict(
    text=dict(drop_rate=0.1, attn_drop_rate=0.1),
    heads=dict(
        caption=dict(
            type='florence_mm.FusionCaptionHead',
            num_beams=5,
            max_length=20,
            label_smoothing=0.1,
            tied=True,
            transform=False,
        )
    ),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/simvlm-base_512xb9-1m_pairs-texts/iter_1000000.pth',
    ),
)
train_dataloader = dict(batch_size=8)
