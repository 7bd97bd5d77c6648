"""Words for messages."""


def counted(number: int, name: str) -> str:
    """Number of things with their name, whose plural has an "s".

    >>> counted(1, 'video'), counted(2, 'video')
    ('1 video', '2 videos')
    """
    return f'{number} {name}' if number == 1 else f'{number} {name}s'
