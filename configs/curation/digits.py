# Raw pairs of the embedded digits with planted faults: python tools/dataset_converters/prepare_raw_digits.py
inputs = [dict(kind='tars', path='data/raw_digits')]
work = 'work_dirs/curation/digits'
out = 'data/curated_digits'

# digits are drawn at 32 x 32
stage_a = dict(min_side=32)
# two digits written alike are as near as copies of one: 3 bits would take a tenth of the right pairs with them
stage_b = dict(near_bits=1, short_words=1)
stage_c = dict(samples_per_shard=500)
# counts the report's tokens
tokenizer = dict(type='florence_mm.CLIPTokenizer')
workers = 2
