# Florence's zero-shot detector: proposals on the frozen CoSwin-H, named by the towers of its last pretraining stage
_base_ = ['./atss_coswin-h_fpn_dyhead.py']

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
        text_encoder=dict(type='florence_mm.CLIPTextTower', arch='huge'),
        tokenizer=dict(type='florence_mm.CLIPTokenizer'),
        embed_dims=1024,
    ),
    crop_size=384,
)
smoke = dict(
    _delete_=True,
    model=dict(
        detector=_base_.smoke.model,
        classifier=dict(
            text_encoder=dict(arch=dict(_delete_=True, embed_dims=1024, num_layers=2, num_heads=16)),
        ),
        crop_size=96,
    ),
)
