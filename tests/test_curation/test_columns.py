import pyarrow as pa
import pytest

from florence_mm.curation import reasons
from florence_mm.curation.columns import MAX_SHARD, drops_schema, kept_schema, make_id, sidecar_schema, split_id


@pytest.mark.parametrize(('shard', 'position'), [(0, 0), (3, 7), (MAX_SHARD, 2**32 - 1)])
def test_ids_tell_shard_and_position_and_fit_into_a_signed_integer(shard, position):
    sample_id = make_id(shard, position)
    assert split_id(sample_id) == (shard, position) and 0 <= sample_id < 2**63


def test_ids_order_samples_as_they_lie():
    assert make_id(0, 2**32 - 1) < make_id(1, 0) < make_id(1, 1)


def test_the_embedding_column_has_its_width_or_is_left_out():
    assert 'embedding' not in sidecar_schema().names
    assert sidecar_schema(16).field('embedding').type == pa.list_(pa.float16(), 16)
    assert sidecar_schema().field('phash').type == pa.uint64() and sidecar_schema().field('id').type == pa.int64()


def test_files_of_stage_b_are_keyed_by_id():
    assert kept_schema().names == ['id', 'position', 'short'] and drops_schema().names == ['id', 'drop']


def test_each_reason_belongs_to_one_stage_and_has_its_own_name():
    named = {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
    assert set(reasons.REASONS) == named and len(reasons.REASONS) == len(named)
