import pytest
import torch

from florence_mm.models.layers.token_layout import TokenLayout
from florence_mm.models.text import CLIPTextTower, CLIPTokenEncoder, RobertaTextEncoder
from florence_mm.models.tokenizers import CLIPTokenizer, MaskedCLIPTokenizer, RobertaTextTokenizer, transformers_files
from florence_mm.models.tokenizers import protocol as tokens_module

SMALL = {
    'vocab_size': 300,
    'hidden_size': 16,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'intermediate_size': 32,
    'max_position_embeddings': 24,
    'hidden_dropout_prob': 0.0,
    'attention_probs_dropout_prob': 0.0,
}
TEXTS = ['How many dogs sit here?', 'red', 'is the largest dog on the left']


@pytest.fixture(scope='module')
def roberta_folder(tmp_path_factory):
    """A tokenizer and a model as transformers saves them; the vocabulary is learned from a few words."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel

    folder = tmp_path_factory.mktemp('roberta')
    learned = ByteLevelBPETokenizer()
    learned.train_from_iterator(
        [*TEXTS, 'the dogs', 'largest dogs on the left'] * 5,
        vocab_size=300,
        special_tokens=['<s>', '<pad>', '</s>', '<unk>', '<mask>'],
        show_progress=False,
    )
    learned.save_model(str(folder))
    torch.manual_seed(0)
    RobertaModel(RobertaConfig(**SMALL | {'type_vocab_size': 1})).save_pretrained(folder)
    return folder


def test_robertas_ids_are_those_of_transformers(roberta_folder):
    from transformers import RobertaTokenizer

    ours, peer = RobertaTextTokenizer(str(roberta_folder)), RobertaTokenizer.from_pretrained(roberta_folder)
    batch, expected = ours(TEXTS, 40), peer(TEXTS, padding=True, return_tensors='pt')
    assert torch.equal(batch.input_ids, expected['input_ids'])
    assert torch.equal(batch.mask, expected['attention_mask'].bool())
    assert batch.mask.dtype == torch.bool
    # merges were learned
    assert batch.mask.sum(1).max() < len(TEXTS[2])
    cut, expected = ours(TEXTS, 6), peer(TEXTS, padding=True, truncation=True, max_length=6, return_tensors='pt')
    assert torch.equal(cut.input_ids, expected['input_ids'])
    assert [ours.decode(row) for row in batch.input_ids] == TEXTS
    assert (ours.start_token_id, ours.pad_token_id, ours.end_token_id, ours.mask_token_id) == (0, 1, 2, 4)
    assert ours.special_ids == {0, 1, 2, 3, 4}
    assert ours(['a <mask> b'], 20).input_ids[0].tolist().count(4) == 1


def test_a_mask_takes_the_space_before_it(roberta_folder):
    """As in RoBERTa's released tokenizer, where a masked word is one token with its space."""
    for ours in (RobertaTextTokenizer(str(roberta_folder)), RobertaTextTokenizer()):
        one, other = (ours([text], 20).input_ids[0].tolist() for text in ('a <mask>b', 'a<mask>b'))
        assert one == other and one.count(ours.mask_token_id) == 1


def test_a_half_precision_folder_becomes_single_precision(tmp_path):
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(0)
    half = RobertaModel(RobertaConfig(**SMALL | {'type_vocab_size': 1})).half()
    half.save_pretrained(tmp_path)
    encoder = RobertaTextEncoder(str(tmp_path))
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}
    ours, theirs = encoder.model.embeddings.word_embeddings.weight, half.embeddings.word_embeddings.weight
    assert torch.equal(ours, theirs.float())
    assert encoder(torch.tensor([[0, 5, 2]]), torch.ones(1, 3).bool()).dtype == torch.float32


def test_a_folder_of_another_model_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers import RobertaConfig, RobertaModel

    RobertaModel(RobertaConfig(**SMALL)).save_pretrained(tmp_path)
    state = load_file(tmp_path / 'model.safetensors')
    del state['encoder.layer.0.output.dense.weight']
    save_file(state, tmp_path / 'model.safetensors', {'format': 'pt'})
    with pytest.raises(ValueError, match='lacks 1 of the weights of RoBERTa, among them encoder.layer.0.output'):
        RobertaTextEncoder(str(tmp_path))


@pytest.mark.parametrize('name', ['roberta', 'bytes', 'clip'])
def test_words_begin_where_they_begin(name, roberta_folder):
    tokenizer = {
        'roberta': lambda: RobertaTextTokenizer(str(roberta_folder)),
        'bytes': RobertaTextTokenizer,
        'clip': lambda: MaskedCLIPTokenizer(vocab_size=600),
    }[name]()
    batch = tokenizer(TEXTS, 60)
    starts = tokenizer.word_starts(batch.input_ids)
    for row, begins, real, text in zip(batch.input_ids, starts, batch.mask, TEXTS, strict=True):
        ids, begins = row[real].tolist(), begins[real].tolist()
        assert begins[0] and begins[-1]
        words, word = [], []
        for token, new in zip(ids[1:-1], begins[1:-1], strict=True):
            if new and word:
                words.append(tokenizer.decode(word))
                word = []
            word.append(token)
        words.append(tokenizer.decode(word))
        expected = text.lower().replace('?', ' ?').split() if name == 'clip' else text.split()
        assert words == expected
    assert batch.mask.sum() > sum(len(text.split()) + 2 for text in TEXTS)  # some words have several tokens


def test_clips_ids_and_the_mask_token():
    ours, plain = MaskedCLIPTokenizer(), CLIPTokenizer()
    batch = ours(TEXTS, 77)
    expected = plain(TEXTS)[:, : batch.input_ids.shape[1]]
    assert torch.equal(batch.input_ids, expected)
    assert batch.mask.sum(1).tolist() == [int(row.argmax()) + 1 for row in expected]
    assert ours.vocab_size == 49409
    ids = ours(['a <mask> dog'], 77).input_ids[0].tolist()
    assert ids == [49406, 320, 49408, 1929, 49407]
    assert ours.decode(ids) == 'a dog'
    assert ours.decode(ours(['Zwölf  Boxkämpfer, 12!'], 77).input_ids[0]) == 'zwölf boxkämpfer , 1 2 !'


@pytest.mark.parametrize('make', [MaskedCLIPTokenizer, RobertaTextTokenizer])
def test_long_texts_are_cut_and_reported_once(make, monkeypatch):
    said = []
    monkeypatch.setattr(tokens_module, 'print_log', lambda message, *_: said.append(message))
    tokenizer = make()
    batch = tokenizer(['two words ' * 30, 'a'], 10)
    assert batch.input_ids.shape == (2, 10)
    assert batch.input_ids[0, -1] == tokenizer.end_token_id
    tokenizer(['two words ' * 30] * 3, 10)
    assert tokenizer.num_truncated == 4
    assert len(said) == 1
    assert said[0].startswith('1 of 2 texts have more than 10 tokens')


def test_roberta_from_a_folder_is_transformers(roberta_folder):
    from transformers import RobertaModel

    peer = RobertaModel.from_pretrained(roberta_folder).eval()
    ours = RobertaTextEncoder(str(roberta_folder)).eval()
    batch = RobertaTextTokenizer(str(roberta_folder))(TEXTS, 20)
    expected = peer(batch.input_ids, batch.mask.long()).last_hidden_state
    torch.testing.assert_close(ours(batch.input_ids, batch.mask)[batch.mask], expected[batch.mask])
    assert not any('pooler' in name for name, _ in ours.named_parameters())
    assert (ours.embed_dims, ours.vocab_size, ours.context_length) == (16, 300, 22)
    changed = RobertaTextEncoder(str(roberta_folder), {'hidden_dropout_prob': 0.3})
    assert changed.model.config.hidden_dropout_prob == 0.3
    assert RobertaTextEncoder(config=SMALL).model.config.layer_norm_eps == 1e-5


def encoders():
    torch.manual_seed(0)
    tower = CLIPTextTower({'embed_dims': 16, 'num_layers': 2, 'num_heads': 2}, 22, 299, causal=False)
    made = [RobertaTextEncoder(config=SMALL), CLIPTokenEncoder(tower)]
    for encoder in made:
        for parameter in encoder.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return [encoder.eval() for encoder in made]


def test_clips_token_features_are_the_towers():
    torch.manual_seed(0)
    tower = CLIPTextTower({'embed_dims': 16, 'num_layers': 2, 'num_heads': 2}, vocab_size=600)
    encoder = CLIPTokenEncoder(tower)
    batch = MaskedCLIPTokenizer(vocab_size=600)(TEXTS, 77)
    features = encoder(batch.input_ids, batch.mask)
    ends = batch.mask.sum(1) - 1
    torch.testing.assert_close(features[torch.arange(3), ends], tower(CLIPTokenizer(vocab_size=600)(TEXTS)))
    assert not features[~batch.mask].any()
    # the mask token is a row of its own, and has a gradient also where it does not occur
    features.sum().backward()
    assert encoder.mask_embedding.grad is not None and not encoder.mask_embedding.grad.any()
    masked = batch.input_ids.clone()
    masked[0, 1] = 600
    encoder(masked, batch.mask).square().sum().backward()
    assert encoder.mask_embedding.grad.any()


def test_recomputed_layers_of_roberta_give_the_same_gradient():
    grads = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        encoder = RobertaTextEncoder(config=SMALL, with_cp=with_cp).train()
        ids = torch.randint(5, 299, (2, 6), generator=torch.Generator().manual_seed(1))
        encoder(ids, torch.ones(2, 6).bool()).square().sum().backward()
        grads.append([p.grad for p in encoder.parameters()])
    for kept, recomputed in zip(*grads, strict=True):
        torch.testing.assert_close(recomputed, kept)


def test_refused_encoders(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='neither pretrained nor config'):
        RobertaTextEncoder()
    with pytest.raises(ValueError, match="has 'hidden_sise', which is no argument of RobertaConfig"):
        RobertaTextEncoder(config={'hidden_sise': 16})
    for make in (RobertaTextEncoder, RobertaTextTokenizer):
        with pytest.raises(FileNotFoundError, match='absent of the .* does not exist; give a folder'):
            make(str(tmp_path / 'absent'))
        with pytest.raises(ValueError, match='could be read from|holds no vocabulary'):
            make(str(tmp_path))  # an empty folder
    # a name on the hub, which is not there: the cache answers, and at once
    monkeypatch.setenv('HF_HOME', str(tmp_path))
    monkeypatch.setattr(transformers_files, '_hub_answers', lambda: False)
    with pytest.raises(ValueError, match="no RoBERTa could be read from 'somebody/roberta'"):
        RobertaTextEncoder('somebody/roberta')
    with pytest.raises(ValueError, match="'somebody/roberta'"):
        RobertaTextTokenizer('somebody/roberta')
    for encoder in encoders():
        with pytest.raises(ValueError, match='texts have 23 tokens and .* takes 22; lower max_text_len'):
            encoder(torch.full((1, 23), 6), torch.ones(1, 23).bool())


def test_beginnings_are_shared_only_where_texts_have_enough_in_common():
    real = torch.ones(8, 16, dtype=torch.bool)
    unlike = torch.arange(128).view(8, 16)
    unlike[:, 0] = 1000  # the start alone
    alike = unlike.clone()
    alike[:, :12] = torch.arange(12)
    assert TokenLayout.of_prefixes(unlike, real).shared is None
    assert TokenLayout.of_prefixes(alike, real).shared is not None
