"""One process holds a lock, and whoever only looks takes it from nobody."""

import fcntl
import subprocess
import sys
import threading
import time
from pathlib import Path

from diptych.locks import is_locked, try_lock


def test_a_lock_is_one_holders_until_its_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    with path.open("ab") as first, path.open("ab") as second:
        assert try_lock(first)
        assert is_locked(path)
        assert not try_lock(second)
        first.close()
        assert not is_locked(path)
        assert try_lock(second)
    assert not is_locked(path)


def test_who_looks_at_that_instant_keeps_nobody_from_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("ab") as file, path.open("ab") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # as `is_locked` does, but for longer
        end_of_look = threading.Timer(0.1, looking.close)
        end_of_look.start()
        assert try_lock(file)
        end_of_look.join(10)


LOOK = """
import sys
from pathlib import Path
from diptych.locks import is_locked
print(flush=True)
while True:
    is_locked(Path(sys.argv[1]))
"""


def test_who_never_stops_looking_keeps_nobody_from_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with subprocess.Popen(
        [sys.executable, "-c", LOOK, str(path)], stdout=subprocess.PIPE
    ) as looking:
        assert looking.stdout is not None
        looking.stdout.readline()
        started = time.monotonic()
        for _ in range(1000):
            with path.open("ab") as file:
                assert try_lock(file)
        assert time.monotonic() - started < 30
        looking.kill()
