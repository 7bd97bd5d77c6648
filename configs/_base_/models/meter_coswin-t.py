# METER with CoSwin-T and RoBERTa-base, six layers of co-attention, 768 wide (METER's). RoBERTa's folder is that of
# `roberta-base` on the Hugging Face hub; beginning with ./ it is never looked for there
model = dict(
    type='florence_mm.METER',
    data_preprocessor=dict(type='florence_mm.ImageTextDataPreprocessor'),
    image_encoder=dict(type='florence_mm.CoSwin', arch='tiny', img_size=384, window_size=12),
    text_encoder=dict(type='florence_mm.RobertaTextEncoder', config=dict()),
    tokenizer=dict(type='florence_mm.RobertaTextTokenizer', pretrained='./data/roberta-base'),
    fusion=dict(hidden_size=768, num_layers=6, num_heads=12),
)
# under --smoke all is small; bf16 is slow on CPUs
smoke = dict(
    optim_wrapper=dict(type='mmengine.OptimWrapper'),
    model=dict(
        image_encoder=dict(arch=dict(_delete_=True, embed_dims=32, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])),
        text_encoder=dict(config=dict(hidden_size=48, num_hidden_layers=1, intermediate_size=96)),
        fusion=dict(hidden_size=48, num_layers=1),
    ),
)
