"""Results as Markdown, for README and for a terminal alike."""

from collections.abc import Callable, Iterator, Sequence

from benchmarks.cases import CASES, Case
from benchmarks.figures import (
    write_figure,
    write_limit,
    write_mean,
    write_median,
    write_single_verdict,
    write_verdict,
)
from benchmarks.results import CaseResult, MachineResults, Processor

Table = list[list[str]]
"""Rows of cells, the heading first."""

Column = tuple[str, Callable[[CaseResult], str]]
"""A heading, and what stands below it for a result."""

_NOT_MEASURED = "not measured"
_PROCESSORS: tuple[tuple[Processor, str], ...] = (("cpu", "2 CPU cores"), ("gpu", "a GPU"))


def render(machines: Sequence[MachineResults], also_missing: bool) -> str:
    """Return all tables that have rows, each under its title.

    Args:
        machines: Their results; rows of a case stand in this order.
        also_missing: Whether what was not measured gets a row that says so: on two CPU cores
            everything, on a GPU what has a target.
    """
    tables = {
        "Classifiers": _case_table("cnn", _CLASSIFIER, machines, also_missing),
        "Autoencoders": _case_table("vae", _AUTOENCODER, machines, also_missing),
        "The article's network: others' programs and this one, interleaved": _peers(
            machines, also_missing
        ),
        "What the pipeline costs beside its computations": _overheads(machines, also_missing),
        "Novelty: how well the bound's p-value tells the test set from other images": _case_table(
            "novelty", _NOVELTY, machines, also_missing
        ),
        "What checkpoints cost a training": _case_table(
            "checkpoints", _CHECKPOINTS, machines, also_missing
        ),
        "Speed of training, against a matrix product of the same precision": _case_table(
            "roofline", _ROOFLINE, machines, also_missing
        ),
        "Speed of predicting": _case_table("latency", _LATENCY, machines, also_missing),
    }
    return "\n\n".join(
        f"**{title}**\n\n{markdown(table)}" for title, table in tables.items() if len(table) > 1
    )


def markdown(table: Table) -> str:
    """Return a table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    heading, *rows = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in table
    ]
    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([heading, rule, *rows])


def _figure(label: str, name: str) -> Column:
    """Return the column of a figure; it is empty for a case that has no such figure."""
    return label, lambda result: write_figure(result, name) if name in result.summary else ""


def _seeds(result: CaseResult) -> str:
    measured, planned = len(result.measurements), result.num_seeds_planned
    return str(measured) if measured == planned else f"{measured} of {planned}"


def _commits(result: CaseResult) -> str:
    """Return the commits measured, in the order of the seeds."""
    return " ".join(dict.fromkeys(one.git_commit[:7] for one in result.measurements))


def _calibration_errors(result: CaseResult) -> str:
    return f"{write_figure(result, 'uncalibrated_ece')} → {write_figure(result, 'ece')}"


def _classifier_nll(result: CaseResult) -> str:
    before, after = (result.summary[name] for name in ("uncalibrated_nll_nats", "nll_nats"))
    return f"{before.mean:.4f} → {after.mean:.4f}"


def _bound(result: CaseResult) -> str:
    rate, distortion = (write_mean(result, name) for name in ("rate_nats", "distortion_nats"))
    return f"{write_figure(result, 'negative_elbo_nats')} ({rate} + {distortion})"


def _likelihood(result: CaseResult) -> str:
    error = result.summary["nll_monte_carlo_error_nats"].mean
    samples = write_figure(result, "num_importance_samples")
    return f"{write_figure(result, 'nll_nats')} ({samples} samples: ± {error:.3f})"


_ORIGIN: tuple[Column, ...] = (("seeds", _seeds), ("commit", _commits))
_CLASSIFIER: tuple[Column, ...] = (
    _figure("accuracy", "accuracy"),
    ("NLL, calibrated (nats)", _classifier_nll),
    ("ECE, calibrated", _calibration_errors),
    _figure("parameters", "num_parameters"),
    _figure("training", "training_seconds"),
    _figure("loading of data", "loading_seconds"),
)
_AUTOENCODER: tuple[Column, ...] = (
    ("−ELBO (rate + distortion), nats", _bound),
    ("NLL, nats", _likelihood),
    _figure("bits per pixel", "bits_per_dim"),
    _figure("active units", "active_units"),
    _figure("parameters", "num_parameters"),
    _figure("training", "training_seconds"),
    _figure("loading of data", "loading_seconds"),
    _figure("likelihood", "likelihood_seconds"),
)
_NOVELTY: tuple[Column, ...] = (
    _figure("abstains on the test set", "abstention_share"),
    *(
        _figure(f"AUROC, {label}", f"{name}_auroc")
        for label, name in (
            ("Fashion-MNIST", "fashion_mnist"),
            ("noise", "noise"),
            ("inverted", "inverted"),
            ("rotated by 90°", "rotated"),
        )
    ),
)
_CHECKPOINTS: tuple[Column, ...] = (
    _figure("training", "training_seconds"),
    _figure("checkpoints", "num_checkpoints"),
    _figure("they take", "checkpointing_seconds"),
    _figure("share", "share_of_training"),
)
_ROOFLINE: tuple[Column, ...] = tuple(
    _figure(label, name)
    for label, name in (
        ("forward, per image", "forward_flops_per_image"),
        ("training step, per image", "training_flops_per_image"),
        ("images per second", "training_images_per_second"),
        ("achieved", "training_flops_per_second"),
        ("matrix product", "matrix_product_flops_per_second"),
        ("share", "share_of_matrix_product"),
    )
)
_LATENCY: tuple[Column, ...] = (
    _figure("one image", "batch_1_seconds"),
    _figure("images per second, 256 at once", "batch_256_images_per_second"),
    _figure("one image over HTTP", "http_batch_1_seconds"),
    _figure("images per second over HTTP, 256 at once", "http_batch_256_images_per_second"),
)


def _case_table(
    family: str,
    columns: Sequence[Column],
    machines: Sequence[MachineResults],
    also_missing: bool,
) -> Table:
    """Return a row for every case of a family and every machine that has measured it."""
    cases = _cases(family)
    judged = any(case.cpu_limits or case.gpu_limits for case in cases)
    rows = []
    for case, processor, machine, result in _entries(cases, machines, also_missing):
        cells = [case.name.partition("/")[2].replace("_", " "), machine]
        cells += [write(result) if result else "" for _, write in (*columns, *_ORIGIN)]
        if judged:
            cells.append(_targets(result) if result else _limits(case, processor))
            cells.append(write_verdict(result) if result else "")
        if not result:
            cells[-1] = _NOT_MEASURED
        rows.append(cells)
    headings = ["", "on", *(heading for heading, _ in (*columns, *_ORIGIN))]
    return [[*headings, "target", ""] if judged else headings, *rows]


def _entries(
    cases: Sequence[Case], machines: Sequence[MachineResults], also_missing: bool
) -> Iterator[tuple[Case, Processor, str, CaseResult | None]]:
    for case in cases:
        for processor, general_name in _PROCESSORS:
            measured = [
                (case, processor, machine.hardware, machine.cases[case.name])
                for machine in machines
                if machine.processor == processor and case.name in machine.cases
            ]
            yield from measured
            if also_missing and not measured and _is_wanted(case, processor):
                yield case, processor, general_name, None


def _is_wanted(case: Case, processor: Processor) -> bool:
    """Tell whether a case has a row also where no machine of this kind has measured it."""
    return processor == "cpu" or bool(case.limits(processor))


def _peers(machines: Sequence[MachineResults], also_missing: bool) -> Table:
    """Return a row for every program.

    Figures are named `<program>_seconds`, `<program>_accuracy` and `<program>_over_diptych`.
    """
    headings = ["program", "on", "training", "times ours", "accuracy", "rounds", "commit"]
    table = [[*headings, "target", ""]]
    for case, processor, machine, result in _entries(_cases("peers"), machines, also_missing):
        if not result:
            missing = [_limits(case, processor), _NOT_MEASURED]
            table.append(["diptych", machine, *[""] * (len(headings) - 2), *missing])
            continue
        programs = [
            name.removesuffix("_seconds") for name in result.summary if name.endswith("_seconds")
        ]
        for program in programs:
            is_ours = program == "diptych"
            table.append(
                [
                    program,
                    machine,
                    write_figure(result, f"{program}_seconds"),
                    "" if is_ours else write_figure(result, f"{program}_over_diptych"),
                    write_figure(result, f"{program}_accuracy"),
                    *(write(result) for _, write in _ORIGIN),
                    _targets(result) if is_ours else "",
                    write_verdict(result) if is_ours else "",
                ]
            )
    return table


def _targets(result: CaseResult) -> str:
    """Return the limits that a case was judged by."""
    return ", ".join(write_limit(verdict.limit) for verdict in result.verdicts)


def _limits(case: Case, processor: Processor) -> str:
    """Return the limits of a case that was not measured."""
    return ", ".join(map(write_limit, case.limits(processor)))


def _overheads(machines: Sequence[MachineResults], also_missing: bool) -> Table:
    """Return a row for every stage and for what else starts, in medians.

    Other processes disturb single times by more than what is to be seen.
    """
    headings = ["", "on", "starts in", "takes", "tracking adds", "runs", "commit", "target", ""]
    rows: dict[tuple[str, str], list[str]] = {}
    for case, _, machine, result in _entries(_cases("overheads"), machines, also_missing):
        if not result:
            subject = case.name.partition("/")[2]
            blank = [""] * (len(headings) - 3)
            rows[subject, machine] = [subject, machine, *blank, _NOT_MEASURED]
            continue
        for figure in result.summary:
            subject, column = _overhead_place(figure)
            blank = [""] * (len(headings) - 2)
            row = rows.setdefault((subject, machine), [subject, machine, *blank])
            row[column] = write_median(result, figure)
            row[5:7] = [write(result) for _, write in _ORIGIN]
        for verdict in result.verdicts:
            row = rows[_overhead_place(verdict.limit.figure)[0], machine]
            symbol_and_value = write_limit(verdict.limit).split()[-3:]
            row[-2:] = [" ".join(symbol_and_value), write_single_verdict(result, verdict)]
    return [headings, *rows.values()]


def _overhead_place(figure: str) -> tuple[str, int]:
    """Return the row's subject and the column of a figure."""
    places = (("_startup_seconds", 2), ("_untracked_seconds", 3), ("_tracking_seconds", 4))
    for suffix, column in places:
        if figure.endswith(suffix):
            return figure.removesuffix(suffix), column
    return figure.removesuffix("_seconds").replace("_", " "), 2


def _cases(family: str) -> list[Case]:
    return [case for case in CASES if case.family == family]
