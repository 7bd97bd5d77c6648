# UNITER-base from cased BERT, on regions of 2,048 channels with 1,600 classes
model = dict(
    type='florence_mm.UNITER',
    tokenizer=dict(type='florence_mm.BertTextTokenizer', pretrained='data/bert-base-cased'),
    feature_dims=2048,
    text=dict(vocab_size=28996, num_layers=12, hidden_size=768, num_heads=12),
    max_text_len=60,
)
