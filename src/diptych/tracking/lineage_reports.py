"""A model's lineage as a terminal or a program can be shown it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diptych.tracking.lineage import Lineage
from diptych.tracking.printable import printable
from diptych.tracking.reproducing import (
    caveats,
    changed_params,
    compared_preset,
    reproducing_commands,
)


def lineage_as_json(lineage: Lineage, workspace: Path) -> dict[str, Any]:
    """Return all there is to say about a model's origin as JSON values.

    Args:
        lineage: The model's.
        workspace: A checkout of the project, from which its commands start.
    """
    fields = asdict(lineage)
    del fields["params_text"], fields["params_fault"]  # the latter is among the caveats
    return {
        **fields,
        "aliases": list(lineage.aliases),
        "machine": dict(lineage.machine),
        "params": {key: _json_value(value) for key, value in lineage.params.items()},
        "commands": reproducing_commands(lineage, workspace),
        "caveats": caveats(lineage, workspace),
    }


def lineage_lines(lineage: Lineage, workspace: Path) -> list[str]:
    """Return all there is to say about a model's origin, for people: lines that may be printed.

    Args:
        lineage: The model's.
        workspace: A checkout of the project, from which its commands start.
    """
    aliases = f" ({', '.join(lineage.aliases)})" if lineage.aliases else ""
    state = {None: "", True: ", with changes", False: ", clean"}[lineage.is_dirty]
    execution = f" of {lineage.execution_run_id}" if lineage.execution_run_id else ""
    facts = {
        "model": f"{lineage.model}, version {lineage.version}{aliases}",
        "weights": lineage.weights_sha256,
        "description": lineage.description_sha256,
        "data": lineage.dataset_sha256,
        "commit": lineage.commit and f"{lineage.commit}{state}",
        "experiment": lineage.experiment,
        "run": f"{lineage.run_id} ({lineage.stage}){execution}",
        "machine": ", ".join(f"{name} {value}" for name, value in lineage.machine.items()),
        "preset": lineage.preset,
    }
    preset = compared_preset(lineage)
    changes = changed_params(lineage, workspace) or []  # None: a caveat says why
    rows = [(name, value) for name, value in facts.items() if value]
    rows += [("params", f"{one.key}: {one.new} ({preset}: {one.old})") for one in changes]
    rows += [("caveat", one) for one in caveats(lineage, workspace)]
    lines = [f"{name:<11} {printable(value)}" for name, value in rows]
    if commands := reproducing_commands(lineage, workspace):
        are_checked = commands[-1].startswith("grep ")
        check = " (the last commands fail unless the model is the same)" if are_checked else ""
        lines += ["", f"To make it again{check}:"]
        lines += [f"  {printable(command)}" for command in commands]
    return lines


def _json_value(value: object) -> object:
    """Return a value of YAML as one of JSON; what JSON lacks, such as a date, as text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value
