"""The page of the protocols names every data set as the command does."""

from pathlib import Path

from florence_mm.protocols.sources import CROSS_DOMAIN
from florence_mm.protocols.suites import SUITES

PAGE = (Path(__file__).resolve().parents[2] / 'docs/protocols.md').read_text(encoding='utf-8')


def test_every_set_is_on_the_page():
    sentences = [entry.protocol.missing('/nowhere') for entry in SUITES['florence'] if not entry.variables]
    assert len(sentences) > 10
    for sentence in sentences:
        title, _, rest = sentence.partition(' is not there: download it from ')
        row = next(line for line in PAGE.splitlines() if line.startswith(f'| {title} |'))
        assert f'<{rest.split()[0].rstrip(",")}>' in row
        layout = rest.partition(' so that ')[2].partition(', then run: ')[0].rpartition(' exist')[0]
        assert all(f'`{path.removeprefix("/nowhere/")}`' in row for path in layout.split(' and '))
        assert row.endswith(' * |') is (', then run: ' in rest)
    assert all(f'`{name}`' in PAGE for name in CROSS_DOMAIN)
