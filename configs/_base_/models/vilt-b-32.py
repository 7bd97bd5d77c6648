# ViLT-B/32 from a ViT-B/32 of 384 pixels (timm's vit_base_patch32_384, trained on ImageNet-21k), 111.6 M parameters
model = dict(
    type='florence_mm.ViLT',
    tokenizer=dict(type='florence_mm.BertTextTokenizer', pretrained='data/bert-base-uncased'),
    hidden_size=768,
    num_layers=12,
    num_heads=12,
    patch_size=32,
    img_size=384,
    text=dict(vocab_size=30522),
    max_text_len=40,
)
