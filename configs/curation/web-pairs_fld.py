# Pairs from the web as Florence curates its FLD-900M (section 2.1): 3 billion raw pairs become 900 million.
# Raw pairs as img2dataset writes them, with the search that found each in the column 'search_term'
inputs = [dict(kind='tars', path='data/raw/*.tar', names=dict(query='search_term'))]
work = 'work_dirs/curation/web-pairs'
out = 'data/web-pairs'

# Relevance of picture and text, and crops and flips, which hashes miss; any two-tower model of florence-mm models
model = dict(name='unicl_coswin-t_8xb512-32e_in21k-yfcc14m', checkpoint='checkpoints/unicl_coswin-t.pth')
# "we also removed the test-set near-duplicates": folders or tars of the sets that models will be compared on
evaluation = [dict(kind='folder', path='data/imagenet/val')]

stage_a = dict(
    min_side=200,  # "small-size image removal"; the paper gives no size, 200 is that of LAION-style sets
    max_aspect=3.0,  # ours: longer pictures lose more than two thirds in a square crop
    embeddings=True,
)
stage_b = dict(
    near_bits=3,  # "image hash-based near-duplicate removal"
    near_cosine=0.95,  # ours: crops and flips
    min_score=0.25,  # "image-text relevance"; depends on the model: look at the report's histogram before you choose
    max_per_query=2000,  # balanced sampling over queries; the number is ours
    short_words=3,  # put into templates in the first stage of training, left out in the second
)
stage_c = dict(samples_per_shard=10_000)
tokenizer = dict(type='florence_mm.CLIPTokenizer')
workers = 16
