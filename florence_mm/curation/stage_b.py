"""Stage B: which pairs are kept, decided over the columns of all sidecars.

The steps, in this order; a pair is dropped for the first that drops it:

1. scores that are not finite, or below the least one;
2. pictures that nearly duplicate one of an evaluation set, by hash and by embedding;
3. pictures that nearly duplicate another one of the set, by hash, then by embedding: the smallest id stays;
4. balance: at most so many pairs of one query, and of one text.

What is kept gets its place in the order of writing, a shuffle by the column ``sampling`` within 64 raw shards, and the
mark of short texts.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from florence_mm.errors import DataError, UsageError
from florence_mm.utils.files import replacing

from . import reasons
from .columns import POSITION_BITS, drops_schema, kept_schema, require_pyarrow
from .embeddings import find_near_features, near_to_any, read_features
from .hamming import choose, find_near
from .options import StageBOptions
from .plans import COLUMNS, Plan, make_plan

#: Pairs are shuffled over this many raw shards, two to this power: stage C then reads few raw shards for each that it
#: writes, and training shuffles blocks of shards anyway.
_WINDOW_BITS = 6
KEPT_NAME, DROPS_NAME = 'kept.parquet', 'drops.parquet'


def select(sidecars: Sequence[Path], out: Path, options: StageBOptions, evaluation: Sequence[Path] = ()) -> None:
    """Choose the pairs to keep, and write ``kept.parquet`` and ``drops.parquet``, the same bytes with every engine.

    Args:
        sidecars: those of stage A, of which no two have a sample in common.
        out: the folder to write to.
        options: see :class:`~florence_mm.curation.options.StageBOptions`.
        evaluation: sidecars of evaluation sets, by stage A too; pairs whose picture is in one are dropped.

    Raises:
        UsageError: an option needs a column that the sidecars have not, or the engine is not installed.
        DataError: a file is no sidecar, or two have the same id.
    """
    if not sidecars:
        raise UsageError('there are no sidecars to select from; run stage A first')
    with_embeddings = options.near_cosine is not None
    for path in (*sidecars, *evaluation):
        _check_columns(path, with_embeddings)
    out.mkdir(parents=True, exist_ok=True)
    plan = make_plan(options, out)
    try:
        plan.read(sidecars)
        if options.min_score is not None and (unknown := plan.drop_low_scores(options.min_score)):
            raise UsageError(
                f'stage_b.min_score={options.min_score} needs scores, which {unknown} pairs lack; give stage A a model'
            )
        _drop_near_hashes(plan, evaluation, options)
        if options.near_cosine is not None:
            _drop_near_features(plan, sidecars, evaluation, out, options)
        if options.max_per_query is not None:
            plan.keep_at_most('query', options.max_per_query, reasons.UNBALANCED)
        if options.max_per_text is not None:
            plan.keep_at_most('label', options.max_per_text, reasons.UNBALANCED)
        _write(out, *plan.kept(), *plan.dropped(), options.short_words)
    finally:
        plan.close()


def _check_columns(path: Path, with_embeddings: bool) -> None:
    pa = require_pyarrow()
    from pyarrow import parquet

    try:
        names = parquet.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise DataError(f'{path} is no sidecar ({str(error).splitlines()[0]}); run stage A again') from None
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise DataError(f'{path} is no sidecar, it lacks the columns {", ".join(missing)}; run stage A again')
    if with_embeddings and 'embedding' not in names:
        raise UsageError(f'stage_b.near_cosine needs embeddings, which {path} lacks; run stage A with embeddings=True')


def _drop_near_hashes(plan: Plan, evaluation: Sequence[Path], options: StageBOptions) -> None:
    """Steps 2 and 3 by perceptual hashes, with one search for both."""
    if options.duplicates == 'all' and not evaluation:
        return
    hashes, first = plan.find_pictures()
    hashes = hashes[np.argsort(first)]
    listed = _read_hashes(evaluation)
    # those of the evaluation sets behind all others: they are never chosen in place of a picture
    known = np.isin(hashes, listed)
    pairs = find_near(np.concatenate([hashes, np.setdiff1d(listed, hashes)]), options.near_bits).pairs
    in_set = pairs < len(hashes)
    known[pairs[in_set[:, 0] & ~in_set[:, 1], 0]] = True
    pairs = pairs[in_set.all(axis=1)]
    exact = np.isin(hashes, listed)
    known[pairs[exact[pairs[:, 1]], 0]] = True
    known[pairs[exact[pairs[:, 0]], 1]] = True
    if known.any():
        plan.drop_pictures(hashes[known], reasons.EVALUATION_DUPLICATE)
    if options.duplicates == 'all':
        return
    stands_for = choose(len(hashes), pairs[~known[pairs].any(axis=1)])
    other = np.flatnonzero(stands_for != np.arange(len(hashes)))
    plan.keep_first(hashes[other], hashes[stands_for[other]], options.duplicates == 'texts', reasons.NEAR_DUPLICATE)


def _read_hashes(evaluation: Sequence[Path]) -> np.ndarray:
    """Hashes of the pictures of evaluation sets that stage A could read, each once, ascending."""
    from pyarrow import parquet

    found = [np.empty(0, np.uint64)]
    for path in evaluation:
        table = parquet.read_table(path, columns=['phash', 'width', 'drop'])
        hashed = [reason not in reasons.NOT_HASHED for reason in table['drop'].to_pylist()]
        found.append(table['phash'].to_numpy()[(table['width'].to_numpy() > 0) & hashed])
    return np.unique(np.concatenate(found))


def _drop_near_features(
    plan: Plan, sidecars: Sequence[Path], evaluation: Sequence[Path], out: Path, options: StageBOptions
) -> None:
    """Steps 2 and 3 by embeddings."""
    ids, sampling, _ = plan.kept()
    order = np.argsort(ids)
    ids, sampling = ids[order], sampling[order]
    with read_features(sidecars, ids, out) as features:
        listed = near_to_any(features, evaluation, options.near_cosine)
        if listed.any():
            plan.drop_ids(ids[listed], reasons.EVALUATION_DUPLICATE)
        if options.duplicates != 'one':
            return
        near = find_near_features(features, sampling, options.near_cosine, ~listed)
        if near.any():
            plan.drop_ids(ids[near], reasons.NEAR_DUPLICATE)


def _write(
    out: Path,
    ids: np.ndarray,
    sampling: np.ndarray,
    words: np.ndarray,
    dropped: np.ndarray,
    why: np.ndarray,
    short_words: int,
) -> None:
    pa = require_pyarrow()
    from pyarrow import parquet

    order = np.argsort(ids)
    ids, sampling, words = ids[order], sampling[order], words[order]
    equal = np.flatnonzero(ids[1:] == ids[:-1])
    if len(equal):
        raise DataError(f'two sidecars have the sample {ids[equal[0]]}; give each sidecar once')
    position = np.empty(len(ids), np.int64)
    # a stable order by two keys, the last of which counts first
    position[np.lexsort((sampling, ids >> POSITION_BITS + _WINDOW_BITS))] = np.arange(len(ids))
    kept = pa.table([ids, position, words <= short_words], schema=kept_schema())
    order = np.argsort(dropped)
    names = pa.array(reasons.REASONS).take(pa.array(why[order]))
    drops = pa.table([pa.array(dropped[order]), names], schema=drops_schema())
    for name, table in ((KEPT_NAME, kept), (DROPS_NAME, drops)):
        with replacing(out / name) as temporary:
            parquet.write_table(table, temporary, compression='zstd')
