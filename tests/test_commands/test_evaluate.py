"""florence-mm evaluate: what it says of data before anything runs."""

from florence_mm.commands.main import main

DIGITS = 'zero-shot/food101-digits'


def said_of_data(root, name, capsys, *options):
    assert main(['evaluate', '--list', '--data-root', str(root), '--only', name, *options]) == 0
    return capsys.readouterr().out.splitlines()[1].strip()


def test_data_that_nobody_wrote_are_not_there(tmp_path, capsys):
    embedded = ('--suite', 'embedded')
    assert said_of_data(tmp_path, DIGITS, capsys, *embedded) == 'embedded data, written when it runs'
    from florence_mm.protocols.suites import SUITES

    (protocol,) = [entry.protocol for entry in SUITES['embedded'] if entry.protocol.name == DIGITS]
    for path in protocol.reads(tmp_path):
        path.mkdir(parents=True)
    assert said_of_data(tmp_path, DIGITS, capsys, *embedded) == 'data are there'
    assert 'food-101' in said_of_data(tmp_path, 'zero-shot/food101', capsys)
