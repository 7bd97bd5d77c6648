"""Stage B in DuckDB, on one machine; what exceeds its memory goes to the disk."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from florence_mm.errors import UsageError, shown_path

from ..reasons import LOW_SCORE, REASONS, SCORE_NOT_FINITE


class DuckDBPlan:
    """See :class:`~florence_mm.curation.plans.Plan`.

    Args:
        folder: for temporary files.
        memory: that DuckDB takes, such as ``'8GB'``; None: most of the machine's. Not a limit of the process.
        threads: None: all cores.
    """

    def __init__(self, folder: Path, memory: str | None = None, threads: int | None = None) -> None:
        try:
            import duckdb
        except ImportError:
            raise UsageError(
                'engine="duckdb" needs DuckDB; install it with: pip install "florence_mm[curate]"'
            ) from None
        self.folder = folder
        self.database = duckdb.connect(':memory:')
        settings = {
            'temp_directory': str(folder),
            'memory_limit': memory,
            'threads': threads,
            'preserve_insertion_order': False,  # costs memory; whoever reads a result sorts it
            'autoinstall_known_extensions': False,  # no request leaves the machine
        }
        for name, value in settings.items():
            if value is not None:
                self.database.execute(f'SET {name} = $value', {'value': value})

    def read(self, sidecars: Sequence[Path]) -> None:
        """Take the rows that stage A has kept; one whose score is NaN or infinite is dropped."""
        self._run('CREATE TABLE drops (id BIGINT, reason UTINYINT)')
        self._run(
            'CREATE TABLE kept AS SELECT id, phash, label, query, words, sampling, score FROM read_parquet($files) '
            'WHERE "drop" IS NULL',
            files=[str(path) for path in sidecars],
        )
        # NaN >= 0.3 is true here
        self._drop('score IS NOT NULL AND NOT isfinite(score)', SCORE_NOT_FINITE)

    def drop_low_scores(self, min_score: float) -> int:
        """Drop rows whose score is below ``min_score``; return the number of rows that have no score."""
        self._drop('score < $least', LOW_SCORE, least=float(np.float32(min_score)))
        return int(self._fetch('SELECT count(*) AS n FROM kept WHERE score IS NULL')['n'][0])

    def find_pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each hash once, uint64, and the smallest id that has it, in any order."""
        found = self._fetch('SELECT phash, min(id) AS id FROM kept GROUP BY phash')
        return _plain(found['phash']), _plain(found['id'])

    def drop_pictures(self, hashes: np.ndarray, reason: str) -> None:
        """Drop all rows whose hash is one of ``hashes``."""
        self._give(phash=hashes)
        self._drop('phash IN (SELECT phash FROM given)', reason)

    def keep_first(self, hashes: np.ndarray, stands_for: np.ndarray, by_text: bool, reason: str) -> None:
        """Keep the row with the smallest id of each picture, or with ``by_text`` of each picture and label."""
        self._give(phash=hashes, stands_for=stands_for)
        self._run(
            'CREATE OR REPLACE TABLE first AS SELECT min(id) AS id FROM kept LEFT JOIN given USING (phash) '
            f'GROUP BY coalesce(stands_for, phash){", label" if by_text else ""}'
        )
        self._drop('id NOT IN (SELECT id FROM first)', reason)

    def drop_ids(self, ids: np.ndarray, reason: str) -> None:
        """Drop the rows with these ids."""
        self._give(id=ids)
        self._drop('id IN (SELECT id FROM given)', reason)

    def keep_at_most(self, column: str, most: int, reason: str) -> None:
        """Keep ``most`` rows of each value of a column, those smallest in ``sampling``, then id; nulls stay."""
        self._run(
            'CREATE OR REPLACE TABLE given AS SELECT id FROM (SELECT id, row_number() OVER '
            f'(PARTITION BY {column} ORDER BY sampling, id) AS place FROM kept WHERE {column} IS NOT NULL) '
            'WHERE place > $most',
            most=most,
        )
        self._drop('id IN (SELECT id FROM given)', reason)

    def kept(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return id, sampling and words of the rows that are kept, in any order."""
        found = self._fetch('SELECT id, sampling, words FROM kept')
        return tuple(_plain(found[name]) for name in ('id', 'sampling', 'words'))

    def dropped(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of the rows that were dropped, and their reasons' places in ``REASONS``, in any order."""
        found = self._fetch('SELECT id, reason FROM drops')
        return _plain(found['id']), _plain(found['reason'])

    def close(self) -> None:
        """Give back memory and temporary files."""
        self.database.close()

    def _run(self, query: str, **values: object) -> None:
        with self._with_room():
            self.database.execute(query, values or None)

    def _fetch(self, query: str) -> dict[str, np.ndarray]:
        with self._with_room():
            return self.database.execute(query).fetchnumpy()

    @contextmanager
    def _with_room(self) -> Iterator[None]:
        """Say in one sentence that memory or disk do not suffice."""
        import duckdb

        try:
            yield
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            reason = str(error).splitlines()[0].rstrip('.')
            raise UsageError(
                f'stage B has too little memory or disk ({reason}); give DuckDB more by stage_b.memory, or make room '
                f'in {shown_path(self.folder)}'
            ) from None

    def _drop(self, condition: str, reason: str, **values: object) -> None:
        self._run(f'INSERT INTO drops SELECT id, {REASONS.index(reason)} FROM kept WHERE {condition}', **values)
        self._run(f'DELETE FROM kept WHERE {condition}', **values)

    def _give(self, **columns: np.ndarray) -> None:
        import pyarrow as pa

        table = pa.table(columns)
        self.database.register('arrow', table)
        self._run('CREATE OR REPLACE TABLE given AS SELECT * FROM arrow')
        self.database.unregister('arrow')


def _plain(column: np.ndarray) -> np.ndarray:
    """An array without the mask for nulls, of which there are none."""
    return np.ma.getdata(column)
