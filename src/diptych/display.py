"""Training as it is seen in a terminal or in a log."""

import sys

from tqdm import tqdm

from diptych.optimization.progress import EpochReport


class EpochDisplay:
    """A progress bar on a terminal, and one plain line per epoch elsewhere.

    Args:
        title: What is trained.
        num_epochs: Number of epochs in all.
    """

    def __init__(self, title: str, num_epochs: int) -> None:
        self._title = title
        self.rows: list[dict[str, float]] = []
        """The epochs shown so far, for the table of curves."""
        self._bar = tqdm(total=num_epochs, desc=title, unit="epoch", disable=not _is_terminal())

    def show(self, report: EpochReport) -> None:
        """Show an epoch's figures; closes the bar after the last one."""
        self.rows.append({"epoch": report.epoch, **report.metrics})
        figures = {name: f"{value:.4g}" for name, value in report.metrics.items()}
        if self._bar.disable:
            line = "  ".join(f"{name} {value}" for name, value in figures.items())
            epoch = f"epoch {report.epoch}/{report.num_epochs}"
            print(f"{self._title}  {epoch}  {line}", file=sys.stderr, flush=True)
            return
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update()
        if report.epoch == report.num_epochs:
            self._bar.close()


def _is_terminal() -> bool:
    return sys.stderr.isatty()
