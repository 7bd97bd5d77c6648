from florence_mm.utils import progress
from florence_mm.utils.progress import ProgressLog, format_seconds


def test_format_seconds():
    assert [format_seconds(s) for s in (-3, 0.4, 59.4, 75.2, 3599, 3661, 90000)] == [
        '0 s',
        '0 s',
        '59 s',
        '1 min 15 s',
        '59 min 59 s',
        '1 h 1 min',
        '25 h 0 min',
    ]


def test_progress_tells_the_time_left(monkeypatch):
    clock, lines = [0.0], []
    monkeypatch.setattr(progress.time, 'monotonic', lambda: clock[0])
    monkeypatch.setattr(progress, 'print_log', lambda text, **_: lines.append(text))
    log = ProgressLog('reading', total=200)
    log.update(0)
    for second in range(1, 21):
        clock[0] = float(second)
        log.update(second * 10)
    # every five seconds; ten units a second, so 150, 100, 50 and 0 units are left
    assert lines == [
        'reading: 25 %, 15 s left',
        'reading: 50 %, 10 s left',
        'reading: 75 %, 5 s left',
        'reading: 100 %, 0 s left',
    ]


def test_what_comes_before_the_first_round_takes_no_part(monkeypatch):
    clock, lines = [0.0], []
    monkeypatch.setattr(progress.time, 'monotonic', lambda: clock[0])
    monkeypatch.setattr(progress, 'print_log', lambda text, **_: lines.append(text))
    log = ProgressLog('drawing', total=101)
    for done, when in ((1, 60.0), (1, 66.0), (11, 70.0), (51, 90.0)):
        clock[0] = when
        log.update(done)
    # 10 pictures in 10 s, then 50 in 30
    assert lines == ['drawing: 11 %, 1 min 30 s left', 'drawing: 50 %, 30 s left']
