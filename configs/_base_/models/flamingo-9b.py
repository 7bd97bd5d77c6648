# Flamingo of the size of open_flamingo's 9B: LLaMA-7B's 32 layers of 4096 channels with a block before every fourth;
# the paper's language model has 40 layers and 10 blocks
_base_ = './flamingo-3b.py'

model = dict(
    language_model=dict(
        pretrained='./data/llama-7b',
        config=dict(
            _delete_=True,
            model_type='llama',
            vocab_size=32000,
            hidden_size=4096,
            intermediate_size=11008,
            num_hidden_layers=32,
            num_attention_heads=32,
            max_position_embeddings=2048,
        ),
    ),
    tokenizer=dict(pretrained='./data/llama-7b'),
    every=4,
)
