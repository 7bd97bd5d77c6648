# BLIP-2's second stage with Flan-T5-XL: each text is cut at a place from its first token to its middle, as LAVIS's authors
# say in its issue 139; what is before the cut is read by the encoder, the rest is learned, in batches of 1,520. T5's
# folder is that of `google/flan-t5-xl` on the Hugging Face hub
_base_ = [
    '../_base_/models/blip2_vit-g-14.py',
    '../_base_/datasets/blip_pretrain.py',
    '../_base_/schedules/blip2_80k.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='florence_mm.BLIP2Writer',
    language_model=dict(
        type='florence_mm.TransformersLanguageModel',
        pretrained='./data/flan-t5-xl',
        dtype='bfloat16',
        config=dict(
            model_type='t5',
            vocab_size=32128,
            d_model=2048,
            num_layers=24,
            num_heads=32,
            d_kv=64,
            d_ff=5120,
            feed_forward_proj='gated-gelu',
            tie_word_embeddings=False,
        ),
    ),
    tokenizer=dict(_delete_=True, type='florence_mm.LanguageModelTokenizer', pretrained='./data/flan-t5-xl'),
    heads=dict(
        caption=dict(type='florence_mm.FusionCaptionHead', random_prefix='half', num_beams=5, max_length=30)
    ),
    max_text_len=34,
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/blip2_vit-g-14_16xb105-250k_coco-vg-cc-sbu/iter_250000.pth',
        allow_missing=['image_encoder', 'language_model', 'language_projection'],
    ),
)
train_dataloader = dict(batch_size=95)
auto_scale_lr = dict(base_batch_size=1520, enable=False)
default_hooks = dict(checkpoint=dict(interval=5_000, by_epoch=False))
log_processor = dict(by_epoch=False)
smoke = dict(
    model=dict(
        language_model=dict(
            dtype='float32', config=dict(vocab_size=300, d_model=32, num_layers=1, num_heads=2, d_kv=8, d_ff=32)
        )
    ),
)
