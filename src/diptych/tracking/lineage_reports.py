"""A model's lineage as a terminal or a program can be shown it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from diptych.tracking.lineage import Lineage
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
    del fields["params_text"]
    return {
        **fields,
        "aliases": list(lineage.aliases),
        "machine": dict(lineage.machine),
        "params": lineage.params,
        "commands": reproducing_commands(lineage, workspace),
        "caveats": caveats(lineage, workspace),
    }


def lineage_lines(lineage: Lineage, workspace: Path) -> list[str]:
    """Return all there is to say about a model's origin, for people.

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
    lines = [f"{name:<11} {value}" for name, value in facts.items() if value]
    preset = compared_preset(lineage)
    changes = changed_params(lineage, workspace) or []  # None: a caveat says why
    lines += [f"{'params':<11} {one.key}: {one.new} ({preset}: {one.old})" for one in changes]
    lines += [f"{'caveat':<11} {one}" for one in caveats(lineage, workspace)]
    if commands := reproducing_commands(lineage, workspace):
        are_checked = commands[-1].startswith("grep ")
        check = " (the last commands fail unless the model is the same)" if are_checked else ""
        lines += ["", f"To make it again{check}:"]
        lines += [f"  {command}" for command in commands]
    return lines
