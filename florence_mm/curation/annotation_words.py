"""Words that say nothing of a region by themselves: pronouns, and nouns of what has no place in a picture."""

_PRONOUNS = """
i me you he him she her it we us they them myself yourself himself herself itself ourselves themselves this that these
those who whom which what someone somebody something anyone anybody anything everyone everybody everything nothing
nobody none another other others each both all some any mine yours hers ours theirs
"""
_ABSTRACT_NOUNS = """
time day night morning evening moment way kind type sort style fun love idea concept theme mood feeling sense atmosphere
beauty joy happiness sadness peace life history culture tradition art nature quality design detail focus attention
presence emphasis variety number amount lot bit couple rest addition example fact reason purpose action activity event
experience middle center front back top bottom side left right edge background foreground distance direction position
part area view scene image picture photo photograph shot
"""
#: 'one' is not among them, as it is a number too.
PRONOUNS = frozenset(_PRONOUNS.split())
ABSTRACT_NOUNS = frozenset(_ABSTRACT_NOUNS.split())
