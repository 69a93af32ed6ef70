import io
import sys

import pytest

from diptych.display import EpochDisplay
from diptych.optimization.progress import EpochReport

REPORTS = [EpochReport(k, 2, {"loss_nats": 1.23456 / k, "accuracy": 0.5}) for k in (1, 2)]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show() -> EpochDisplay:
    display = EpochDisplay("train_cnn", num_epochs=2)
    for report in REPORTS:
        display.show(report)
    return display


def test_elsewhere_every_epoch_is_one_plain_line(capsys):
    show()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "train_cnn  epoch 1/2  loss_nats 1.235  accuracy 0.5\n"
        "train_cnn  epoch 2/2  loss_nats 0.6173  accuracy 0.5\n"
    )


def test_on_a_terminal_it_is_a_bar(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    display = show()
    printed = terminal.getvalue()
    del display  # a bar that is dropped closes by itself
    assert "epoch 1/2" not in printed
    last = printed.rsplit("\r", 1)[-1]
    assert last.startswith("train_cnn: 100%")
    assert "2/2" in last
    assert "loss_nats=0.6173, accuracy=0.5" in last
    assert last.endswith("\n"), "closed: what comes next starts on a line of its own"
