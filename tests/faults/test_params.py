"""B2: whatever params.yaml holds, a stage that cannot use it says so in one line."""

import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from diptych.params import read_yaml
from tests.faults.commands import Ended, end_of_diptych, end_of_stage, sample
from tests.faults.tiers import chosen_tier, trials
from tests.stages.conftest import ROOT, STAGES

SHIPPED = read_yaml(ROOT / "params.yaml")
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
NOWHERE = ["/nonexistent/source"]
NEVER_RIGHT: tuple[Any, ...] = ({"a": 1}, [1], None, -1e300, float("nan"), "no\nsuch value", "\0")
SECTIONS = {
    stage: [name for name in described["params"] if name in SHIPPED]
    for stage, described in STAGES.items()
}


@dataclass(frozen=True, slots=True)
class Case:
    """A parameter file, the stage that reads it, and what its refusal must name."""

    stage: str
    content: bytes
    named: tuple[str, ...] = ()


def as_bytes(content: dict[str, Any]) -> bytes:
    if content["dataset"].get("sources") == SHIPPED["dataset"]["sources"]:
        content["dataset"]["sources"] = NOWHERE  # no byte is fetched, whatever happens
    return json.dumps(content).replace("NaN", ".nan").encode()


def of_a_wrong_value(source: random.Random) -> Case:
    stage = source.choice(list(SECTIONS))
    section = source.choice(SECTIONS[stage] or ["preprocess"])
    content = json.loads(json.dumps(SHIPPED))
    key = source.choice(list(content[section]))
    content[section][key] = source.choice(NEVER_RIGHT)
    return Case(stage, as_bytes(content), ("params.yaml: ", f"{section}.{key}"))


def of_a_wrong_key(source: random.Random) -> Case:
    stage = source.choice(list(SECTIONS))
    section = source.choice(SECTIONS[stage] or ["preprocess"])
    content = json.loads(json.dumps(SHIPPED))
    key = source.choice(list(content[section]))
    value = content[section].pop(key)
    if source.random() < 0.5:
        content[section][f"{key}_"] = value
    return Case(stage, as_bytes(content), ("params.yaml: ", f"{section}.{key}"))


def of_a_wrong_section(source: random.Random) -> Case:
    stage = source.choice(list(SECTIONS))
    section = source.choice(SECTIONS[stage] or ["preprocess"])
    content = json.loads(json.dumps(SHIPPED))
    if source.random() < 0.3 and section != "dataset":
        del content[section]
    else:
        content[section] = source.choice([None, 1, "text", [], [content[section]]])
    text = json.dumps(content).encode()
    return Case(stage, text, ("params.yaml: ", section))


def harmless() -> bytes:
    """The file that ships, with its comments; only its sources are nowhere."""
    before, _, rest = TEXT.partition("  sources:\n")
    after = rest[rest.index("  name: ") :]
    return f"{before}  sources: {json.dumps(NOWHERE)}\n{after}".encode()


def of_wrong_bytes(source: random.Random) -> Case:
    """Bytes changed anywhere: the file may still be good, and then a missing input is named."""
    content = bytearray(harmless())
    for _ in range(source.randint(1, 4)):
        place = source.randrange(len(content))
        change = source.choice(("flip", "insert", "delete", "cut"))
        if change == "flip":
            content[place] ^= 1 << source.randrange(8)
        elif change == "insert":
            content[place:place] = source.choice((b"\t", b": ", b"[", b"{", b"&a ", b"*a", b"\xff"))
        elif change == "delete":
            del content[place : place + source.randint(1, 40)]
        elif len(content) > 2000 and source.random() < 0.3:
            del content[place:]
        content = content or bytearray(b"\n")
    return Case(source.choice(list(STAGES)), bytes(content))


def layers(count: int, opening: str, closing: str) -> str:
    """Aliases of aliases: 10 ** count values, in as many lines."""
    names = [f"a{number}" for number in range(count + 1)]
    lines = [f"{names[0]}: &{names[0]} 1"]
    for inner, outer in itertools.pairwise(names):
        items = (f"k{number}: *{inner}" if opening == "{" else f"*{inner}" for number in range(10))
        lines.append(f"{outer}: &{outer} {opening}{', '.join(items)}{closing}")
    return "\n".join(lines)


def tricky() -> list[Case]:
    """What a YAML reader, a check or an error's own text may stumble over."""
    good = harmless().decode()
    changed: list[tuple[str, str]] = [
        ("num_validation: 5000", "num_validation: 0x" + "f" * 5000),
        ("num_validation: 5000", "num_validation: 0o" + "7" * 6000),
        ("num_validation: 5000", "num_validation: " + "9" * 5000),
        ("num_validation: 5000", "num_validation: !!bool maybe"),
        ("num_validation: 5000", 'num_validation: !!int ""'),
        ("num_validation: 5000", "num_validation: !!float x"),
        ("num_validation: 5000", "num_validation: !!timestamp x"),
        ("num_validation: 5000", "num_validation: 2001-99-99"),
        ("num_validation: 5000", "num_validation: 2001-01-01"),
        ("num_validation: 5000", "num_validation: !!binary aGk="),
        ("num_validation: 5000", "num_validation: !!set {a, b}"),
        ("num_validation: 5000", "num_validation: !!pairs [a: 1, b]"),
        ("num_validation: 5000", "num_validation: " + "[" * 150 + "]" * 150),
        ("num_validation: 5000", "num_validation: " + "[" * 5000),
        ("num_validation: 5000", 'num_validation: !!python/object/apply:os.system ["true"]'),
        ("num_validation: 5000", "num_validation: !!python/name:os.system"),
        ("num_validation: 5000", "num_validation: &a [*a]"),
        ("num_validation: 5000", 'num_validation: "\\ud800"'),
        ("num_validation: 5000", 'num_validation: 5\n  "\\ud800\\n": 1'),
        ("num_validation: 5000", 'num_validation: 5\n  "\\e[31m\\x85\\u2028": 1'),
        ("num_validation: 5000", "num_validation: 5\n  ? " + "k" * 2000 + "\n  : 1"),
        ("num_validation: 5000", "num_validation: 5\n  ? [a]\n  : 1"),
        ("num_validation: 5000", "num_validation: 5\n  ? {a: b}\n  : 1"),
        ("num_validation: 5000", "num_validation: 5\n  ~: 1"),
        ("num_validation: 5000", "num_validation: 5\n  <<: 5"),
        ("preprocess:\n", "preprocess: &p\n  itself: *p\n"),
        ("preprocess:\n", "preprocess: !!set\n"),
        ("preprocess:\n", "preprocess: !!omap\n"),
        ("preprocess:\n", layers(9, "[", "]") + "\npreprocess:\n"),
        ("preprocess:\n", layers(7, "{", "}") + "\npreprocess:\n"),
        ("preprocess:\n", layers(9, "[", "]") + "\npreprocess: *a9\n#"),
        ("preprocess:\n", "itself: &x {y: *x}\npreprocess:\n"),
    ]
    assert all(old in good for old, _ in changed)
    texts = [good.replace(old, new, 1) for old, new in changed]
    texts += ["", "---\n...\n", "- a\n", "5", "%YAML 9.9\n---\n" + good, "a: 1\n---\nb: 2\n"]
    contents = [text.encode() for text in texts]
    contents += [good.encode("utf-16"), good.encode() + b"\xff", b"\0", b"# " + b"x" * 1_000_000]
    return [Case("preprocess", content, ("params.yaml:",)) for content in contents]


GENERATORS: tuple[Callable[[random.Random], Case], ...] = (
    of_a_wrong_value,
    of_a_wrong_key,
    of_a_wrong_section,
    of_wrong_bytes,
)


def failures(folder: Path, cases: list[Case]) -> list[tuple[Case, Ended]]:
    """The cases that are anything but one line, which names file and key, and exit code 2."""
    failed = []
    for case in cases:
        (folder / "params.yaml").write_bytes(case.content)
        ended = end_of_stage(folder, case.stage)
        if not ended.is_refusal(f"{case.stage}: ", *case.named):
            failed.append((case, ended))
    for case, ended in failed[:5]:
        print(case.stage, case.named, case.content[-300:], ended.code, ended.stderr[-600:])
    return failed


def test_generated_files_are_refused_in_one_line(promise, tmp_path):
    num = trials(quick=60, full=1000)
    cases = [GENERATORS[number % 4](random.Random(number)) for number in range(num)]
    failed = failures(tmp_path, cases)
    promise("B2", "generated files", num, num - len(failed))


def test_tricky_files_are_refused_in_one_line(promise, tmp_path):
    cases = tricky()
    failed = failures(tmp_path, cases)
    promise("B2", "tricky files", len(cases), len(cases) - len(failed))


def test_a_bad_file_stops_the_diptych_command_too(promise, tmp_path):
    cases = sample(tricky(), trials(quick=10, full=100))
    num_survived = 0
    for case in cases:
        (tmp_path / "params.yaml").write_bytes(case.content)
        ended = end_of_diptych(tmp_path, "preset", "tiny", "--presets", str(ROOT / "presets"))
        num_survived += ended.is_refusal("diptych: ", "params.yaml")
        assert (tmp_path / "params.yaml").read_bytes() == case.content
    promise("B2", "`diptych preset`", len(cases), num_survived)


def test_a_process_ends_with_one_line_and_exit_code_2(promise, tmp_path):
    names = ["train_cnn"] if chosen_tier() == "quick" else list(STAGES)
    num_survived = 0
    (tmp_path / "params.yaml").write_text("compute: [1]\n", encoding="utf-8")
    for stage in names:
        words = [str(ROOT / "stages" / f"{stage}.py"), *STAGES[stage]["cmd"].split()[2:]]
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={**os.environ, "DIPTYCH_TRACKING": "off"},
            capture_output=True,
            text=True,
        )
        ended = Ended(done.returncode, done.stdout, done.stderr)
        num_survived += ended.is_refusal(f"{stage}: params.yaml: ")
    promise("B2", "processes", len(names), num_survived)


@pytest.mark.parametrize("stage", SECTIONS)
def test_the_harmless_file_passes_the_check(tmp_path, stage):
    """Otherwise the refusals above could have another reason."""
    (tmp_path / "params.yaml").write_bytes(harmless())
    ended = end_of_stage(tmp_path, stage)
    assert ended.is_refusal()
    assert "params.yaml" not in ended.stderr
