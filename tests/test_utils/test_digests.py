"""Digests of files beside the published ones of the functions."""

from florence_mm.utils.digests import blake2b_of, sha256_of


def test_digests_are_those_of_the_standards_and_of_whole_files(tmp_path):
    file = tmp_path / 'abc'
    file.write_bytes(b'abc')
    # FIPS 180-2, appendix B.1, and `printf abc | b2sum -l 128`
    assert sha256_of(file) == 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    assert blake2b_of(str(file)) == 'cf4ab791c62b8d2b2109c90275287816'
    file.write_bytes(b'a' * 1_000_000)  # appendix B.3
    assert sha256_of(file) == 'cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0'
    before = blake2b_of(file)
    file.write_bytes(b'a' * 2_000_000)
    assert blake2b_of(file) != before  # what lies behind the first block counts
