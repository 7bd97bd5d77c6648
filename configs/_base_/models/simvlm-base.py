# SimVLM-base: the stem and the first three stages of ResNet-101, encoder and decoder of 12 layers, 768 wide. Its 32,000
# word pieces are not public; the vocabulary is RoBERTa's, whose folder is that of `roberta-base` on the Hugging Face
# hub; beginning with ./ it is never looked for there
model = dict(
    type='florence_mm.SimVLM',
    data_preprocessor=dict(type='florence_mm.ImageTextDataPreprocessor'),
    image_encoder=dict(
        type='mmdet.ResNet',
        depth=101,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        norm_eval=False,
    ),
    tokenizer=dict(type='florence_mm.RobertaTextTokenizer', pretrained='./data/roberta-base'),
    text=dict(vocab_size=50265, hidden_size=768, num_layers=12, num_heads=12),
    map_size=(14, 14),  # of 224 pixels
    max_text_len=256,
)
# a batch of a process is small: statistics of all processes
sync_bn = 'torch'
# under --smoke all is small; bf16 is slow on CPUs
smoke = dict(
    optim_wrapper=dict(type='mmengine.OptimWrapper'),
    model=dict(
        image_encoder=dict(depth=50, stem_channels=8, base_channels=8),
        text=dict(hidden_size=48, num_layers=1, num_heads=4),
    ),
)
