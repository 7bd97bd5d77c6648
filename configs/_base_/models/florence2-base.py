# Florence-2-base: DaViT-B, and BART of 6 + 6 layers, 768 wide. The vocabulary is BART's, which is RoBERTa's, with marks
# and 1,000 locations behind it; its folder is that of `facebook/bart-base` on the Hugging Face hub; beginning with ./
# it is never looked for there
model = dict(
    type='florence_mm.Florence2',
    data_preprocessor=dict(type='florence_mm.ImageTextDataPreprocessor'),
    image_encoder=dict(type='florence_mm.FlorenceDaViT', arch='base', drop_path_rate=0.1),
    tokenizer=dict(
        type='florence_mm.LocationTokenizer',
        tokenizer=dict(type='florence_mm.RobertaTextTokenizer', pretrained='./data/bart-base'),
        num_bins=1000,
    ),
    text=dict(vocab_size=51289, hidden_size=768, num_layers=6, num_heads=12, max_positions=1024),
    max_map_size=50,
    max_text_len=1024,
    heads=dict(tasks=dict(type='florence_mm.TaskHead', num_beams=3)),
)
# under --smoke all is small, and answers are short; bf16 is slow on CPUs
smoke = dict(
    optim_wrapper=dict(type='mmengine.OptimWrapper'),
    model=dict(
        image_encoder=dict(
            arch=dict(_delete_=True, embed_dims=[8, 16, 32, 64], depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 4])
        ),
        text=dict(hidden_size=48, num_layers=1, num_heads=4),
        heads=dict(tasks=dict(num_beams=1, max_length=10)),
    ),
)
