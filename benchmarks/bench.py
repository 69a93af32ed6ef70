"""Which seed is measured next, and where its figures go."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.kinds import params_of
from benchmarks.results import (
    CaseResult,
    Conditions,
    MachineResults,
    Measurement,
    judge,
    load_results,
    save_results,
    summarize,
)
from benchmarks.settings import Setting, description_of
from diptych.errors import UserError


@dataclass(frozen=True, slots=True)
class Plan:
    """What is still to be measured of a case.

    Attributes:
        case: The case.
        setting: Its parameters and data.
        conditions: Under which its seeds belong together.
        seeds: To be measured, in this order.
        expected_seconds: Of one seed.
    """

    case: Case
    setting: Setting
    conditions: Conditions
    seeds: tuple[int, ...]
    expected_seconds: float

    def after(self, measurement: Measurement) -> "Plan":
        """Return the plan when its first seed has been measured."""
        return replace(self, seeds=self.seeds[1:], expected_seconds=measurement.wall_seconds)


def make_plan(
    case: Case,
    setting: Setting,
    conditions: Conditions,
    results: MachineResults,
    num_seeds: int | None,
    again: bool,
) -> Plan:
    """Plan a case: the seeds that its results do not hold yet, under the same conditions.

    Args:
        case: The case.
        setting: Its parameters and data.
        conditions: Those of today.
        results: Of this machine, so far.
        num_seeds: At most so many seeds; None for the protocol's number.
        again: Whether to measure also the seeds that are there.
    """
    known = results.cases.get(case.name)
    wanted = range(min(case.num_seeds, num_seeds or case.num_seeds))
    there = () if again else _measurements_under(known, conditions)
    seconds = [one.wall_seconds for one in known.measurements] if known else []
    return Plan(
        case=case,
        setting=setting,
        conditions=conditions,
        seeds=tuple(seed for seed in wanted if seed not in {one.seed for one in there}),
        expected_seconds=max(seconds, default=case.expected_seconds(results.processor)),
    )


def choose_plan(plans: Sequence[Plan], seconds_left: float) -> Plan | None:
    """Return the plan whose next seed is worth most per second and fits the time; None if none.

    What another seed adds to a mean of n seeds falls as 1 / n (n + 1), so that seeds of quick cases
    take turns with the first seeds of slow ones.
    """
    fitting = [plan for plan in plans if plan.seeds and plan.expected_seconds <= seconds_left]
    return min(fitting, key=_seconds_per_information, default=None)


def run_plans(
    plans: Sequence[Plan],
    path: Path,
    results: MachineResults,
    budget_seconds: float,
    measure: Callable[[Case, int], Measurement],
    say: Callable[[str], None],
) -> tuple[MachineResults, list[str]]:
    """Measure what fits a time budget; the result file is written after every seed.

    Args:
        plans: What there is to measure.
        path: The result file.
        results: What it holds.
        budget_seconds: Infinite for no limit.
        measure: Takes the figures of one seed.
        say: Takes a line on each seed.

    Returns:
        The results, and a line for every case that failed or of which the time left seeds over.
    """
    open_plans, remarks = {plan.case.name: plan for plan in plans}, []
    deadline = time.monotonic() + budget_seconds
    while plan := choose_plan(list(open_plans.values()), deadline - time.monotonic()):
        case, seed = plan.case, plan.seeds[0]
        try:
            measurement = measure(case, seed)
        except UserError as error:
            remarks.append(f"{case.name}: not measured: {error}")
            del open_plans[case.name]
            continue
        results = add_measurement(results, case, plan.setting, plan.conditions, measurement)
        save_results(path, results)
        open_plans[case.name] = plan.after(measurement)
        say(_progress(case, measurement, deadline - time.monotonic()))
    remarks += [
        f"{plan.case.name}: no time for {len(plan.seeds)} more seeds "
        f"of about {plan.expected_seconds:.0f} s each"
        for plan in open_plans.values()
        if plan.seeds
    ]
    return results, remarks


def add_measurement(
    results: MachineResults,
    case: Case,
    setting: Setting,
    conditions: Conditions,
    measurement: Measurement,
) -> MachineResults:
    """Return results with one more seed; seeds measured under other conditions leave the case."""
    there = _measurements_under(results.cases.get(case.name), conditions)
    others = [one for one in there if one.seed != measurement.seed]
    measurements = sorted([*others, measurement], key=lambda one: one.seed)
    summary = summarize(measurements)
    result = CaseResult(
        preset=case.preset,
        params=params_of(case, setting.content),
        dataset=description_of(setting).name,
        num_seeds_planned=case.num_seeds,
        conditions=conditions,
        measurements=tuple(measurements),
        summary=summary,
        verdicts=judge(summary, case.limits(results.processor)),
    )
    return results.with_case(case.name, result)


def open_results(path: Path, machine: MachineResults) -> MachineResults:
    """Return what a result file holds, or the machine without results if there is no file yet.

    Raises:
        ResultFileError: when the file is not a result file.
    """
    return load_results(path) if path.exists() else machine


def with_targets(results: MachineResults, cases: Sequence[Case]) -> MachineResults:
    """Return results judged by the targets of today, which may be others than when measured."""
    for case in cases:
        if known := results.cases.get(case.name):
            verdicts = judge(known.summary, case.limits(results.processor))
            today = {"verdicts": verdicts, "num_seeds_planned": case.num_seeds}
            results = results.with_case(case.name, known.model_copy(update=today))
    return results


def _measurements_under(
    known: CaseResult | None, conditions: Conditions
) -> tuple[Measurement, ...]:
    return known.measurements if known and known.conditions == conditions else ()


def _seconds_per_information(plan: Plan) -> float:
    num_known = plan.seeds[0]
    return plan.expected_seconds * (num_known + 1) * (num_known + 2)


def _progress(case: Case, measurement: Measurement, seconds_left: float) -> str:
    shown = ", ".join(
        f"{name} {measurement.figures[name]:.5g}"
        for name in ("accuracy", "negative_elbo_nats", "nll_nats", "training_seconds")
        if name in measurement.figures
    )
    left = f"; {seconds_left:.0f} s left" if math.isfinite(seconds_left) else ""
    took = f"{measurement.wall_seconds:.1f} s"
    return (
        f"{case.name} seed {measurement.seed} of {case.num_seeds}: {shown or 'done'} ({took}{left})"
    )
