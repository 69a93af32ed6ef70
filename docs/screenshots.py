"""Take the pictures of MLflow's pages that the documentation shows: `make screenshots`.

In a temporary copy of the project the pipeline runs three times, reduced to a minute or so each,
and after each run the gate decides on the models. Then a headless Chromium opens the pages.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Error, Page, sync_playwright

ROOT = Path(__file__).parents[1]
PORT = 5017
WIDTH = 1440

REDUCED = (
    "preprocess.num_validation=50000",  # leaves 10,000 to train on
    "evaluate.num_importance_samples=10",
    "generate_samples.num_samples=200",
    "promotion.min_cnn_accuracy=0.9",  # floors for trainings as short as these
    "promotion.max_cnn_nll_nats=0.5",
    "promotion.max_vae_nll_nats=300.0",
    "promotion.min_vae_active_units=1",
    "promotion.max_pair_abstention_share=0.1",
    "promotion.min_pair_novelty_auroc=0.5",
    "promotion.min_pair_novel_abstention_share=0.0",
    "promotion.min_pair_rotated_auroc=0.5",
)
EXPERIMENTS = {
    "two-latents": ("train_vae.num_latents=2",),
    "eight-latents": ("train_vae.num_latents=8", "train_cnn.num_epochs=2"),
    "many-latents": ("train_vae.num_latents=32", "train_cnn.num_epochs=3"),
}
FAMILIES = ("cnn", "vae", "pair")


def main() -> None:
    """Write the pictures into a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--demonstration", type=Path, help="take this one, do not make another")
    chosen = parser.parse_args()
    chosen.images.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="diptych-screenshots-") as temporary:
        project = chosen.demonstration or Path(temporary, "diptych")
        if not (project / "mlflow.db").exists():
            make_demonstration(project)
        with shown_runs(project) as addresses, browser_page() as page:
            take_table(page, addresses["runs"], chosen.images / "comparison.png")
            take_images(page, addresses["images"], chosen.images / "images.png")
            take_registry(page, chosen.images / "registry.png")


def make_demonstration(project: Path) -> None:
    """Copy the project and run it; the copy has the raw images of this one, if it has them."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, project / name)
    identity = ["-c", "user.name=diptych", "-c", "user.email=diptych@localhost"]
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "All"]):
        run(project, "git", *identity, *arguments)
    raw = ROOT / "data" / "raw"
    sources = [f"dataset.sources=[{raw}]"] if raw.is_dir() else []
    run(project, "diptych", "preset", "fast")
    for name, changes in EXPERIMENTS.items():
        settings = [f"--set-param={one}" for one in (*sources, *REDUCED, *changes)]
        run(project, "dvc", "exp", "run", "--name", name, *settings)
        wait_until_recorded(project)
        for family in FAMILIES:
            run(project, "diptych", "promote", family, "--allow-dirty", also=(1,))


def wait_until_recorded(project: Path) -> None:
    """Wait until all that the runs have told is in the store: the recorder ends after them."""
    journals = project / ".diptych" / "tracking"
    deadline = time.monotonic() + 120
    while journals.is_dir() and any(journals.iterdir()):
        if time.monotonic() > deadline:
            sys.exit(f"{journals}: must be recorded")
        time.sleep(0.5)


@contextmanager
def shown_runs(project: Path) -> Iterator[dict[str, str]]:
    """Run `diptych ui` in a project; yield the addresses that it prints, by name."""
    command = ["diptych", "ui", "--port", str(PORT)]
    server = subprocess.Popen(
        command, cwd=project, env=environment(project), stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None  # noqa: S101
    try:
        lines = [server.stdout.readline() for _ in ("runs", "images")]
        yield dict(line.strip().split(": ", 1) for line in lines)
    finally:
        server.terminate()
        server.wait()


@contextmanager
def browser_page() -> Iterator[Page]:
    """Yield a page of a headless Chromium, in which MLflow's assistant does not open by itself."""
    installed = shutil.which("chromium") or shutil.which("google-chrome")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed, args=arguments)
        page = browser.new_page(viewport={"width": WIDTH, "height": 600})
        page.set_default_timeout(120_000)
        opened = "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"
        page.add_init_script(f"localStorage.setItem('{opened}', 'true')")
        yield page
        browser.close()


def take_table(page: Page, address: str, path: Path) -> None:
    """Picture the table of pipeline executions."""
    open_page(page, address)
    for name in EXPERIMENTS:
        page.get_by_text(name, exact=True).first.wait_for()
    page.get_by_text("vae.nll_nats").first.wait_for()
    page.get_by_label("Hide banner").click()
    take(page, path, height=480)


def take_images(page: Page, address: str, path: Path) -> None:
    """Picture the reconstructions of all runs beside each other."""
    open_page(page, address)
    images = "[...document.querySelectorAll('img')].filter(one => one.src.includes('artifact'))"
    page.wait_for_function(
        f"{images}.length >= {len(EXPERIMENTS)}"
        f" && {images}.every(one => one.complete && one.naturalWidth > 0)"
    )
    page.get_by_label("Hide banner").click()
    take(page, path, height=640)


def take_registry(page: Page, path: Path) -> None:
    """Picture the versions of the registered pair with their aliases."""
    address = f"http://127.0.0.1:{PORT}/#/models/diptych-pair?workflowType=machine_learning"
    open_page(page, address)
    page.get_by_text("Tags", exact=True).first.click()  # folds the log of decisions away
    page.get_by_text(re.compile("^@.champion$")).wait_for()
    take(page, path, height=940)


def open_page(page: Page, address: str) -> None:
    """Open a page of the application anew, also where only what follows the # differs."""
    for _ in range(60):
        try:
            page.goto("about:blank")
            page.goto(address)
        except Error:  # the server is still starting
            page.wait_for_timeout(1000)
        else:
            return
    raise SystemExit(f"{address}: must answer")


def take(page: Page, path: Path, height: int) -> None:
    """Take the picture when nothing moves any more; the height is in pixels."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.mouse.move(0, 0)
    page.wait_for_timeout(2000)
    page.screenshot(path=path, animations="disabled")
    print(f"{path}: {path.stat().st_size // 1024} KiB")


def run(project: Path, *command: str, also: tuple[int, ...] = ()) -> None:
    """Run a command in a project; it must end with 0, or with one of some other codes."""
    code = subprocess.run(command, cwd=project, env=environment(project), check=False).returncode
    if code not in (0, *also):
        sys.exit(f"{' '.join(command)}: must end with 0 (got {code})")


def environment(project: Path) -> dict[str, str]:
    """Return this environment for work in a project: its library, its store."""
    steering = ("GIT_", "DVC_", "MLFLOW_", "DIPTYCH_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
    return {
        **kept,
        "PYTHONPATH": str(project / "src"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


if __name__ == "__main__":
    main()
