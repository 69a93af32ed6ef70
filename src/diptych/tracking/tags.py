"""The tags that tell runs apart: which stage of which execution, from which code, made by whom."""

STAGE_TAG = "diptych.stage"
"""The stage that a run is of; the run of an execution has no such tag."""

EXECUTION_TAG = "diptych.execution"
"""Identifies a pipeline execution, on its run."""

PARENT_TAG = "mlflow.parentRunId"
"""The run above a run: a stage's execution, or an execution's group."""

JOURNAL_TAG = "diptych.journal"
"""The journal that a run was recorded from."""

FINGERPRINT_TAG = "diptych.fingerprint"
"""A stage's params, data and code: equal ones, equal outputs."""

REUSED_TAG = "diptych.reused_run_id"
"""Of a link: the run that made its files."""

LOGGED_AGAIN_TAG = "diptych.logged_again"
"""Of a run that was logged from files after its maker was gone."""

COMMIT_TAG = "mlflow.source.git.commit"
DIRTY_TAG = "diptych.git_dirty"
"""Whether the code had changes that were not committed: true or false."""

CODE_DIFF_TAG = "diptych.code_diff_sha256"
"""Identifies these changes."""

PRESET_TAG = "diptych.preset"
USER_TAG = "mlflow.user"
