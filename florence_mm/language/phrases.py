"""Phrases of a caption."""

import re


def in_caption(phrase: str, caption: str) -> bool:
    """Whether a phrase is in a caption, as whole words, without regard to case and white space.

    Some tokenizers write spaces around punctuation, which does not matter either.

    >>> in_caption("The dog 's bowl", "A cat and the  dog's bowl."), in_caption('do', 'A cat and the dog.')
    (True, False)
    """
    phrase, caption = (re.sub(r'\s*([^\w\s])\s*', r'\1', ' '.join(x.split())).casefold() for x in (phrase, caption))
    start = caption.find(phrase)
    while start >= 0:
        before, after = caption[:start][-1:], caption[start + len(phrase) :][:1]
        if not (before.isalnum() and phrase[:1].isalnum()) and not (after.isalnum() and phrase[-1:].isalnum()):
            return True
        start = caption.find(phrase, start + 1)
    return False


def caption_phrases(caption: str, longest: int = 8) -> list[str]:
    """All runs of words of a caption, without punctuation at their ends: what a phrase of it can be.

    They are the ``texts`` of a :class:`~florence_mm.models.heads.multimodal.task_grammar.TaskGrammar` that grounds
    phrases of this caption alone.

    Args:
        caption: the caption.
        longest: most words of a phrase.

    >>> caption_phrases('a dog, asleep.', longest=2)
    ['a', 'a dog', 'dog', 'dog, asleep', 'asleep']
    """
    words = caption.split()
    runs = (' '.join(words[start : start + count]) for start in range(len(words)) for count in range(1, longest + 1))
    phrases = (re.sub(r'^\W+|\W+$', '', run) for run in runs)
    return list(dict.fromkeys(phrase for phrase in phrases if phrase))
