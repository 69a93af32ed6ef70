import subprocess

import pytest
import torch

from benchmarks.machine import (
    COMMIT_FILE,
    describe_machine,
    file_name,
    git_commit,
    is_dirty,
    pinned_versions,
)
from diptych.machine import cpu_model


@pytest.mark.parametrize(
    ("hardware", "name"),
    [
        ("AMD EPYC (bfloat16), 2 cores", "amd-epyc-bfloat16-2-cores.json"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3.json"),
        ("Intel(R) Xeon(R) @ 2.6GHz, 4 cores", "intel-r-xeon-r-2-6ghz-4-cores.json"),
    ],
)
def test_a_result_file_is_named_by_the_hardware(hardware, name):
    assert file_name(hardware) == name


@pytest.mark.parametrize(
    ("capability", "fastest"),
    [("amx_bf16", "bfloat16"), ("avx512_bf16", "bfloat16"), ("avx2", "float32")],
)
def test_a_cpu_is_named_with_its_fastest_precision_and_its_cores(monkeypatch, capability, fastest):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    monkeypatch.setattr("benchmarks.machine.num_cores", lambda: 4)
    machine = describe_machine(torch.device("cpu"))
    assert machine.processor == "cpu"
    assert machine.hardware == f"{cpu_model()} ({fastest}), 4 cores"
    assert machine.cases == {}


def test_changed_code_makes_a_commit_dirty_and_other_changes_do_not(tmp_path):
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=Tester", "-c", "user.email=tester@localhost"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert git_commit(tmp_path) == "unknown"
    git("init", "--quiet")
    (tmp_path / "code.py").write_text("x = 1\n", encoding="utf-8")
    git("add", "--all")
    git("commit", "--quiet", "--message", "Start")
    head = git("rev-parse", "HEAD")
    assert git_commit(tmp_path) == head
    (tmp_path / "results.json").write_text("{}", encoding="utf-8")
    assert git_commit(tmp_path) == head
    (tmp_path / "code.py").write_text("x = 2\n", encoding="utf-8")
    assert git_commit(tmp_path) == f"{head}-dirty"
    assert is_dirty(git_commit(tmp_path))
    assert not is_dirty(head)


def test_versions_are_read_off_pins(tmp_path):
    lock = tmp_path / "other.lock"
    pins = ("keras==3.15.1 \\", "    --hash=x", "keras-hub==1.0 ; python_version < '4'")
    lock.write_text("\n".join([*pins, "    # via keras==0", ""]), encoding="utf-8")
    assert pinned_versions(lock, ["keras"]) == {"keras": "3.15.1"}
    assert pinned_versions(lock, ["keras-hub"]) == {"keras-hub": "1.0"}


def test_a_bundle_names_its_commit_itself(tmp_path):
    (tmp_path / COMMIT_FILE).write_text("abc-dirty\n", encoding="utf-8")
    assert git_commit(tmp_path) == "abc-dirty"
