import pytest

from florence_mm.language.prompts import clean_class_name, fill_template, get_class_names, get_templates


@pytest.fixture(scope='module')
def open_clip():
    # imported after florence_mm, which makes torchvision importable
    import open_clip

    return open_clip


def test_imagenet_templates_are_those_of_open_clip_and_the_bare_name(open_clip):
    templates = get_templates('imagenet')
    assert len(templates) == len(set(templates)) == 81
    ours = {fill_template(template, 'tench') for template in templates}
    theirs = {template('tench') for template in open_clip.OPENAI_IMAGENET_TEMPLATES}
    assert ours == theirs | {'tench.'}


def test_imagenet_names_are_those_of_open_clip(open_clip):
    assert get_class_names('imagenet1k') == list(open_clip.IMAGENET_CLASSNAMES)


def test_own_templates_are_checked():
    assert get_templates(('a {}', 'the {}')) == ['a {}', 'the {}']
    assert get_templates('none') == ['{}']
    assert all(template.count('{}') == 1 for template in get_templates('simple'))
    for bad in (['a photo'], ['{} and {}'], ['{name}'], [], ['{0} {}'], [3]):
        with pytest.raises(ValueError, match='template'):
            get_templates(bad)
    with pytest.raises(ValueError, match="no templates named 'imagnet'"):
        get_templates('imagnet')
    with pytest.raises(ValueError, match="no class names for 'cifar'"):
        get_class_names('cifar')


def test_returned_lists_are_copies():
    get_templates('imagenet').clear()
    assert len(get_templates('imagenet')) == 81


def test_class_names_are_cleaned_as_in_unicl():
    assert clean_class_name('crane, bird+plane') == 'crane bird plane'
    # braces in a name are left alone
    assert fill_template('a photo of a {}.', 'set {a, b}') == 'a photo of a set {a b}.'
