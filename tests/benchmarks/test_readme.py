from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.bench import add_measurement
from benchmarks.readme import BEGIN, END, ReadmeError, benchmark_block
from benchmarks.results import Measurement, ResultFileError, save_results
from benchmarks.settings import PRESETS, make_setting

ROOT = Path(__file__).parents[2]


def test_readme_shows_what_the_result_files_say():
    """`python -m benchmarks readme`, which `make results` runs, brings them together."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split(f"{BEGIN}\n")[1].split(f"\n{END}")[0]
    assert block == benchmark_block(ROOT / "benchmarks" / "results", PRESETS)


def test_only_what_stands_between_the_marks_changes(tmp_path):
    readme, results = tmp_path / "README.md", tmp_path / "results"
    readme.write_text(f"a\n{BEGIN}\nold\n{END}\nz\n", encoding="utf-8")
    arguments = ["readme", "--readme", str(readme), "--results", str(results)]
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert readme.read_text(encoding="utf-8") == (
        f"a\n{BEGIN}\n{benchmark_block(results, PRESETS)}\n{END}\nz\n"
    )
    readme.write_text("no marks", encoding="utf-8")
    with pytest.raises(ReadmeError, match=r"README\.md: must hold the marks"):
        main(arguments)


def test_the_block_names_machine_and_versions(
    tmp_path, cnn_case, presets, processed, machine, conditions, measured
):
    latency = replace(cnn_case, name="latency/cnn_default", kind="latency")
    setting = make_setting(latency, 0, [processed], presets)
    figures = {"batch_1_seconds": 0.001, "batch_256_images_per_second": 30000.0}
    results = add_measurement(machine, latency, setting, conditions, measured(0, **figures))
    save_results(tmp_path / "abacus.json", results)
    block = benchmark_block(tmp_path, presets)
    assert block.splitlines()[-1] == (
        "Abacus, 2 cores: Linux, 1 CPU threads, float32, torch 2.15.0."
    )
    assert "| 1.00 ms   | 30,000 " in block


def test_what_was_measured_with_other_parameters_is_left_out(
    tmp_path, cnn_case, presets, processed, machine, conditions, measured
):
    latency = replace(cnn_case, name="latency/cnn_default", kind="latency")
    figures = {"batch_1_seconds": 0.001, "batch_256_images_per_second": 30000.0}
    setting = make_setting(latency, 0, [processed], presets)
    setting.content["train_cnn"]["width"] += 1
    results = add_measurement(machine, latency, setting, conditions, measured(0, **figures))
    save_results(tmp_path / "abacus.json", results)
    block = benchmark_block(tmp_path, presets)
    assert "| 30,000 " not in block
    assert block.splitlines()[-1] == "Abacus, 2 cores: no results yet."


def test_seeds_of_code_that_no_commit_holds_are_left_out(
    tmp_path, cnn_case, presets, processed, machine, conditions, measured
):
    latency = replace(cnn_case, name="latency/cnn_default", kind="latency")
    setting = make_setting(latency, 0, [processed], presets)

    def block(*measurements: Measurement) -> str:
        results = machine
        for one in measurements:
            results = add_measurement(results, latency, setting, conditions, one)
        save_results(tmp_path / "abacus.json", results)
        return benchmark_block(tmp_path, presets)

    clean = measured(0, batch_1_seconds=0.001, batch_256_images_per_second=30000.0)
    dirty = measured(1, batch_1_seconds=0.003, batch_256_images_per_second=10000.0)
    dirty = dirty.model_copy(update={"git_commit": "abc-dirty"})
    assert block(clean, dirty) == block(clean)
    assert "no results yet" in block(dirty)


def test_a_damaged_result_file_stops_it(tmp_path):
    (tmp_path / "x.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ResultFileError, match=r"x\.json: must be"):
        benchmark_block(tmp_path, PRESETS)
