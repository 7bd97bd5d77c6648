# Zero-shot detection: a class-agnostic Dynamic Head proposes on the frozen CoSwin-T of UniCL, the two towers name.
# The classifier has no image_encoder of its own: it shares the detector's backbone
_base_ = ['./atss_coswin-t_fpn_dyhead.py']

detector = _base_.model
detector.bbox_head.num_classes = 1
# what is not trained drops nothing
detector.backbone.drop_path_rate = 0.0
model = dict(
    _delete_=True,
    type='florence_mm.ZeroShotDetector',
    detector=detector,
    classifier=dict(
        type='florence_mm.UniCL',
        text_encoder=dict(type='florence_mm.CLIPTextTower', arch='base'),
        tokenizer=dict(type='florence_mm.CLIPTokenizer'),
        embed_dims=512,
    ),
)
