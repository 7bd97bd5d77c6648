"""Which of CLIP's image towers a file or a model has, by the names of its tensors."""

from collections.abc import Collection

from .renaming import Skipped, StateDict, any_key

#: Class of a tower -> a tensor that no other tower has, and what the tower is.
_TOWERS = {
    'CLIPResNet': (r'(^|^image_encoder\.)conv3\.weight$', 'a ResNet'),
    'CLIPVisionTower': (r'(^|^image_encoder\.)class_embedding$', "CLIP's ViT"),
}
_TOWER = r'^image_encoder\.'


def image_tower(keys: Collection[str]) -> str | None:
    """Tell the class of the image tower of CLIP with these keys, alone or under ``image_encoder.``; None: neither."""
    return next((name for name, (mark, _) in _TOWERS.items() if any_key(keys, mark)), None)


def drop_other_tower(state: StateDict, own: Collection[str], model: str) -> tuple[StateDict, Skipped]:
    """Leave out an image tower of CLIP that is not the model's.

    Args:
        state: tensors under our names.
        own: keys of the model.
        model: its class, for the reason if it is no pair of towers.

    Returns:
        the tensors, and those left out with the reason.
    """
    theirs, ours = image_tower(state), image_tower(own)
    # a ViT is also that of models of other classes, whose keys tell
    if theirs is None or ours == theirs or theirs == 'CLIPVisionTower' and ours is None:
        return state, {}
    lone = not any_key(state, _TOWER)
    tower = ours or ('the one of the model' if not lone else model)
    why = f'of an image tower that is {_TOWERS[theirs][1]}, which {tower} is not'
    left_out = {key: why for key in state if lone or any_key([key], _TOWER)}
    return {key: value for key, value in state.items() if key not in left_out}, left_out
