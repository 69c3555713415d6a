"""What the documents and examples show is run as it stands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .world import LONG, ROOT, Dev

PACKAGE = ROOT / "sdk/python"
EXAMPLES = ROOT / "examples/python"
BLOCKS = re.findall(r"^```python\n(.*?)^```", (PACKAGE / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def run(dev: Dev, agent: str, *words: str | Path) -> str:
    """What a program of an agent prints."""
    ran = subprocess.run([sys.executable, *words], env=dev.environment(agent), capture_output=True, text=True, timeout=2 * LONG)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


class Program:
    """One that runs beside others."""

    def __init__(self, dev: Dev, agent: str, *words: str | Path) -> None:
        self._process = subprocess.Popen([sys.executable, *words], env=dev.environment(agent), stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def line(self) -> str:
        """The next line of what it prints."""
        assert self._process.stdout
        return self._process.stdout.readline()

    def end(self, number: signal.Signals | None = None) -> tuple[int, str]:
        """Its exit code, and the rest of what it prints."""
        if number is not None:
            self._process.send_signal(number)
        said, _ = self._process.communicate(timeout=2 * LONG)
        return self._process.returncode, said


@pytest.mark.parametrize(
    ("block", "prints"),
    [
        (BLOCKS[0], r"^supervisor says hello$"),
        (BLOCKS[1], r"^supervisor orders \['tea', 'milk'\]\n\{'number': 7, 'count': 2\}$"),
        (BLOCKS[2], r"^b'\{\"title\":\"Plan\"\}'$"),
    ],
)
def test_the_blocks_of_the_readme_run(dev: Dev, block: str, prints: str) -> None:
    assert re.search(prints, run(dev, "supervisor", "-c", block).strip())


def test_no_block_of_the_readme_is_left_out() -> None:
    assert len(BLOCKS) == 3


def test_hello_world(dev: Dev) -> None:
    with Program(dev, "reader", "-u", EXAMPLES / "hello.py", "receive") as receiver:
        assert receiver.line() == "reader waits for a message\n"
        assert run(dev, "asker", EXAMPLES / "hello.py", "send", "reader", "hello").startswith("sent ")
        assert receiver.end() == (0, "asker says: hello\n")


def test_streaming_with_progress(dev: Dev, tmp_path: Path) -> None:
    source, target = tmp_path / "big.bin", tmp_path / "copy.bin"
    source.write_bytes(os.urandom(5 << 20))
    context_id = run(dev, "author", EXAMPLES / "streaming.py", "push", "documents", source).strip()
    assert f"{5 << 20} bytes" in run(dev, "reader", EXAMPLES / "streaming.py", "pull", context_id, target)
    assert target.read_bytes() == source.read_bytes()


def test_a_supervisor_and_its_workers(dev: Dev, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.md" for number in range(4)]
    for number, file in enumerate(files):
        file.write_text("word " * (number + 1))
    with (
        Program(dev, "worker-a", "-u", EXAMPLES / "workers.py", "work") as one,
        Program(dev, "worker-b", "-u", EXAMPLES / "workers.py", "work") as other,
    ):
        assert [one.line(), other.line()] == ["worker-a is at work\n", "worker-b is at work\n"]
        said = run(dev, "supervisor", EXAMPLES / "workers.py", "supervise", *files)
        assert said.splitlines() == [f"{number}.md: {number + 1} words" for number in range(4)] + ["4 documents, 10 words"]
        for worker, name in ((one, "worker-a"), (other, "worker-b")):
            code, printed = worker.end(signal.SIGTERM)
            assert code == 0 and printed.count(f"{name} reads ") == 2
