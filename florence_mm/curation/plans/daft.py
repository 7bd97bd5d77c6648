"""Stage B in Daft, with the threads of one machine or on a Ray cluster."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from florence_mm.errors import UsageError

from ..reasons import LOW_SCORE, REASONS, SCORE_NOT_FINITE

if TYPE_CHECKING:
    import daft


class DaftPlan:
    """See :class:`~florence_mm.curation.plans.Plan`.

    Args:
        on_ray: run on the Ray cluster that Ray finds, or else starts here. Daft cannot change it in a process.
    """

    def __init__(self, on_ray: bool = False) -> None:
        os.environ.setdefault('DAFT_ANALYTICS_ENABLED', '0')  # no request leaves the machine
        try:
            import daft

            if on_ray:
                import ray  # noqa: F401
        except ImportError:
            raise UsageError(
                'engine="daft" needs Daft and Ray; install them with: pip install "florence_mm[cluster]"'
            ) from None
        wanted = 'ray' if on_ray else 'native'
        if daft.runners.get_or_infer_runner_type() != wanted:
            try:
                (daft.set_runner_ray if on_ray else daft.set_runner_native)()
            except daft.exceptions.DaftCoreException:  # it is set once a process
                raise UsageError(f'Daft has another runner than {wanted} in this process; start another one') from None
        self.daft = daft
        self.drops: list[daft.DataFrame] = []

    def read(self, sidecars: Sequence[Path]) -> None:
        """Take the rows that stage A has kept; one whose score is NaN or infinite is dropped."""
        col = self.daft.col
        rows = self.daft.read_parquet([str(path) for path in sidecars]).where(col('drop').is_null())
        self.rows = rows.select('id', 'phash', 'label', 'query', 'words', 'sampling', 'score').collect()
        # NaN >= 0.3 is true here
        self._drop(col('score').is_nan() | col('score').is_inf(), SCORE_NOT_FINITE)

    def drop_low_scores(self, min_score: float) -> int:
        """Drop rows whose score is below ``min_score``; return the number of rows that have no score."""
        score = self.daft.col('score').cast(self.daft.DataType.float64())
        self._drop(score < float(np.float32(min_score)), LOW_SCORE)
        return self.rows.where(self.daft.col('score').is_null()).count_rows()

    def find_pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each hash once, uint64, and the smallest id that has it, in any order."""
        return _arrays(self.rows.groupby('phash').agg(self.daft.col('id').min()), 'phash', 'id')

    def drop_pictures(self, hashes: np.ndarray, reason: str) -> None:
        """Drop all rows whose hash is one of ``hashes``."""
        self._drop_joined(self._table(phash=hashes), 'phash', reason)

    def keep_first(self, hashes: np.ndarray, stands_for: np.ndarray, by_text: bool, reason: str) -> None:
        """Keep the row with the smallest id of each picture, or with ``by_text`` of each picture and label."""
        col = self.daft.col
        rows = self.rows.join(self._table(phash=hashes, stands_for=stands_for), on='phash', how='left')
        rows = rows.with_column('picture', self.daft.functions.coalesce(col('stands_for'), col('phash')))
        first = rows.groupby('picture', *(['label'] if by_text else [])).agg(col('id').min()).select('id').collect()
        self.drops.append(self._marked(self.rows.join(first, on='id', how='anti'), reason))
        self.rows = self.rows.join(first, on='id', how='semi').collect()

    def drop_ids(self, ids: np.ndarray, reason: str) -> None:
        """Drop the rows with these ids."""
        self._drop_joined(self._table(id=ids), 'id', reason)

    def keep_at_most(self, column: str, most: int, reason: str) -> None:
        """Keep ``most`` rows of each value of a column, those smallest in ``sampling``, then id; nulls stay."""
        col = self.daft.col
        window = self.daft.Window().partition_by(column).order_by('sampling', 'id')
        known = self.rows.where(col(column).not_null()).with_column(
            'place', self.daft.functions.row_number().over(window)
        )
        self._drop_joined(known.where(col('place') > most).select('id').collect(), 'id', reason)

    def kept(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return id, sampling and words of the rows that are kept, in any order."""
        return _arrays(self.rows, 'id', 'sampling', 'words')

    def dropped(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of the rows that were dropped, and their reasons' places in ``REASONS``, in any order."""
        parts = [_arrays(drops, 'id', 'reason') for drops in self.drops]
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def close(self) -> None:
        """Give back memory and temporary files."""
        del self.rows
        self.drops.clear()

    def _drop(self, condition: 'daft.Expression', reason: str) -> None:
        condition = condition.fill_null(False)
        self.drops.append(self._marked(self.rows.where(condition), reason))
        self.rows = self.rows.where(~condition).collect()

    def _drop_joined(self, given: 'daft.DataFrame', column: str, reason: str) -> None:
        self.drops.append(self._marked(self.rows.join(given, on=column, how='semi'), reason))
        self.rows = self.rows.join(given, on=column, how='anti').collect()

    def _marked(self, rows: 'daft.DataFrame', reason: str) -> 'daft.DataFrame':
        return rows.select('id', self.daft.lit(REASONS.index(reason)).alias('reason')).collect()

    def _table(self, **columns: np.ndarray) -> 'daft.DataFrame':
        import pyarrow as pa

        return self.daft.from_arrow(pa.table(columns))


def _arrays(rows: 'daft.DataFrame', *columns: str) -> tuple[np.ndarray, ...]:
    table = rows.select(*columns).to_arrow()
    return tuple(table[name].to_numpy() for name in columns)
