"""What a dependency parse tells of a text: its objects, attributes and actions, and how many words belong to each.

The parser is one of the user's, such as a model of spaCy (``pip install "florence_mm[parse]"``); without one nothing
that needs a parse is filtered or reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from florence_mm.errors import UsageError, shown

#: Universal tags of what is counted.
OBJECTS, NAMES, ATTRIBUTES, ACTIONS = ('NOUN',), ('PROPN',), ('ADJ',), ('VERB',)


class Word(NamedTuple):
    """A word of a parsed text.

    Attributes:
        text: as it is written.
        lemma: its dictionary form.
        tag: universal part of speech, such as ``'NOUN'``.
        head: index of the word that it depends on; its own index for the root of a sentence.
    """

    text: str
    lemma: str
    tag: str
    head: int


class Parse(NamedTuple):
    """A parsed text.

    Attributes:
        words: its words in order.
        chunks: its noun chunks as they are written, such as ``'a red dog'``.
    """

    words: tuple[Word, ...]
    chunks: tuple[str, ...] = ()


class Parser(Protocol):
    """A dependency parser.

    Attributes:
        name: what tells its parses from those of another one.
    """

    name: str

    def __call__(self, texts: Sequence[str]) -> list[Parse]:
        """Parse texts."""


@dataclass(frozen=True)
class Complexity:
    """How much a text says.

    Attributes:
        objects: nouns.
        attributes: adjectives.
        actions: verbs.
        names: proper nouns.
        object_degree: most arcs of the parse at one noun or proper noun: the words that depend on it, and the one that
            it depends on. 0 without any.
        action_degree: the same of a verb.
    """

    objects: int
    attributes: int
    actions: int
    names: int
    object_degree: int
    action_degree: int


def complexity_of(parse: Parse) -> Complexity:
    """Count what a text names, and the arcs at its words.

    >>> words = [('a', 'a', 'DET', 2), ('red', 'red', 'ADJ', 2), ('dog', 'dog', 'NOUN', 3), ('runs', 'run', 'VERB', 3)]
    >>> complexity_of(Parse(tuple(Word(*word) for word in words)))
    Complexity(objects=1, attributes=1, actions=1, names=0, object_degree=3, action_degree=1)
    """
    degrees = [0] * len(parse.words)
    for index, word in enumerate(parse.words):
        if word.head != index:
            degrees[index] += 1
            degrees[word.head] += 1

    def count(tags: tuple[str, ...]) -> int:
        return sum(word.tag in tags for word in parse.words)

    def most(tags: tuple[str, ...]) -> int:
        return max((n for n, word in zip(degrees, parse.words, strict=True) if word.tag in tags), default=0)

    counts = map(count, (OBJECTS, ATTRIBUTES, ACTIONS, NAMES))
    return Complexity(*counts, most(OBJECTS + NAMES), most(ACTIONS))


def head_lemma(parse: Parse) -> str | None:
    """Lemma of the root of a text that is a noun or pronoun, as of a phrase; None if the root is another word."""
    for index, word in enumerate(parse.words):
        if word.head == index:
            return word.lemma.casefold() if word.tag in (*OBJECTS, *NAMES, 'PRON') else None
    return None


class SpacyParser:
    """The parser of a spaCy model.

    Args:
        model: name of an installed model, or the folder of one, such as ``'en_core_web_sm'``.

    Attributes:
        name (str): language, name and version of the model, and version of spaCy.

    Raises:
        UsageError: spaCy is not installed, there is no such model, or it does not parse.
    """

    def __init__(self, model: str) -> None:
        try:
            import spacy
        except ImportError:
            raise UsageError('a parser needs spaCy; install it with: pip install "florence_mm[parse]"') from None
        try:
            self._parse = spacy.load(model, exclude=['ner'])
        except (OSError, ValueError) as error:
            reason = ' '.join(str(error).split())
            raise UsageError(f'parser: spaCy has no model {shown(model)} ({reason}); install or name another') from None
        pipes = self._parse.pipe_names
        if 'parser' not in pipes or not {'tagger', 'morphologizer'} & set(pipes):
            raise UsageError(
                f'parser: the spaCy model {shown(model)} has the parts {", ".join(pipes) or "none"}; give one with a '
                'tagger and a parser'
            )
        meta = self._parse.meta
        self.name = f'spacy {spacy.__version__} {meta["lang"]}_{meta["name"]} {meta["version"]}'

    def __call__(self, texts: Sequence[str]) -> list[Parse]:
        """Parse texts."""
        chunked = self._parse.vocab.get_noun_chunks is not None
        return [
            Parse(
                tuple(Word(word.text, word.lemma_ or word.lower_, word.pos_, word.head.i) for word in doc),
                tuple(chunk.text for chunk in doc.noun_chunks) if chunked else (),
            )
            for doc in self._parse.pipe(texts, batch_size=64)
        ]
