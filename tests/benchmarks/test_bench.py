import itertools
import math
from dataclasses import replace

import pytest

from benchmarks.bench import choose_plan, make_plan, open_results, run_plans, with_targets
from benchmarks.cases import at_least
from benchmarks.results import load_results
from benchmarks.settings import UnavailableError, make_setting


@pytest.fixture
def plan(presets, processed, machine, conditions):
    """The plan of a case, given what its machine has measured."""

    def build(case, results=machine, num_seeds=None, again=False, conditions=conditions):
        setting = make_setting(case, 0, [processed], presets)
        return make_plan(case, setting, conditions, results, num_seeds, again)

    return build


@pytest.fixture
def path(tmp_path):
    """The result file."""
    return tmp_path / "abacus.json"


@pytest.fixture
def bench(path, machine, measured):
    """Runs plans into the result file; returns what was measured, in order, and the remarks."""

    def run(plans, budget=math.inf, fail=()):
        done = []

        def measure(case, seed):
            if (case.name, seed) in fail:
                raise UnavailableError("needs luck")
            done.append((case.name, seed))
            return measured(seed, case.cpu_seconds)

        results, remarks = run_plans(
            plans, path, open_results(path, machine), budget, measure, lambda _: None
        )
        assert not done or results == load_results(path)
        return done, remarks

    return run


def test_every_seed_is_measured_and_the_file_holds_them(bench, plan, cnn_case, vae_case, path):
    done, remarks = bench([plan(cnn_case), plan(vae_case)])
    assert sorted(done) == sorted(itertools.product(["cnn/default", "vae/default"], range(3)))
    assert remarks == []
    assert [one.seed for one in load_results(path).cases["vae/default"].measurements] == [0, 1, 2]


def test_later_seeds_of_quick_cases_take_turns_with_first_seeds_of_slow_ones(
    bench, plan, cnn_case, vae_case, path
):
    quick = replace(cnn_case, num_seeds=5, cpu_seconds=11.0)
    done, _ = bench([plan(vae_case), plan(quick)])
    # Seed n counts its seconds (n + 1) (n + 2) times: 11 x 12 < 100 x 2 < 11 x 20.
    expected = ["cnn"] * 3 + ["vae"] + ["cnn"] * 2 + ["vae"] * 2
    assert [name.partition("/")[0] for name, _ in done] == expected


def test_only_what_fits_the_budget_is_measured(bench, plan, cnn_case, vae_case):
    done, remarks = bench([plan(cnn_case), plan(vae_case)], budget=50.0)
    assert {name for name, _ in done} == {"cnn/default"}
    assert remarks == ["vae/default: no time for 3 more seeds of about 100 s each"]
    assert choose_plan([plan(cnn_case)], seconds_left=9.9) is None


def test_what_is_there_is_not_measured_again(bench, plan, cnn_case, path):
    bench([plan(cnn_case, num_seeds=1)])
    known = load_results(path)
    assert plan(cnn_case, known).seeds == (1, 2)
    assert plan(cnn_case, known, num_seeds=1).seeds == ()
    assert plan(cnn_case, known, again=True).seeds == (0, 1, 2)
    done, _ = bench([plan(cnn_case, known)])
    assert done == [("cnn/default", 1), ("cnn/default", 2)]
    assert load_results(path).cases["cnn/default"].summary["accuracy"].num_seeds == 3


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "1" * 64},
        {"num_threads": 2},
        {"precision": "bfloat16"},
        {"versions": {"torch": "2.16.0"}},
    ],
)
def test_seeds_under_other_conditions_do_not_mix(bench, plan, conditions, cnn_case, change, path):
    bench([plan(cnn_case)])
    changed = conditions.model_copy(update=change)
    new = plan(cnn_case, load_results(path), num_seeds=1, conditions=changed)
    assert new.seeds == (0,)
    bench([new])
    result = load_results(path).cases["cnn/default"]
    assert result.conditions == changed
    assert len(result.measurements) == 1


def test_an_interruption_loses_the_seed_under_way_alone(
    bench, plan, cnn_case, machine, measured, path
):
    def measure(case, seed):
        if seed == 2:
            raise KeyboardInterrupt
        return measured(seed)

    with pytest.raises(KeyboardInterrupt):
        run_plans([plan(cnn_case)], path, machine, math.inf, measure, lambda _: None)
    assert [one.seed for one in load_results(path).cases["cnn/default"].measurements] == [
        0,
        1,
    ]


def test_a_case_that_fails_is_named_and_the_others_go_on(bench, plan, cnn_case, vae_case):
    done, remarks = bench([plan(cnn_case), plan(vae_case)], fail={("cnn/default", 1)})
    assert [seed for name, seed in done if name == "cnn/default"] == [0]
    assert [seed for name, seed in done if name == "vae/default"] == [0, 1, 2]
    assert remarks == ["cnn/default: not measured: needs luck"]


def test_results_are_judged_by_the_targets_of_today(bench, plan, cnn_case, path):
    bench([plan(cnn_case)])
    stricter = replace(cnn_case, num_seeds=5, cpu_limits=(at_least("accuracy", 0.6),))
    result = with_targets(load_results(path), [stricter]).cases["cnn/default"]
    assert (result.is_met, result.num_seeds_planned) == (False, 5)
    assert load_results(path).cases["cnn/default"].is_met is None


def test_the_time_of_a_seed_is_what_the_last_one_took(plan, cnn_case, measured):
    assert plan(cnn_case).expected_seconds == 10
    assert plan(cnn_case).after(measured(0, wall_seconds=3.0)).expected_seconds == 3.0
