"""The team's MLflow server, from the environment variables that mlflow.env.example describes.

python server.py init     makes the bucket and the administrator; may be repeated
python server.py serve    is the server, until it is stopped
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

PLACEHOLDER = "change-me"
MIN_SECRET_CHARACTERS = 16

ADMIN_NAME = "MLFLOW_AUTH_ADMIN_USERNAME"
ADMIN_PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"  # noqa: S105  # the variable's name
NAMES = ("PGHOST", "PGDATABASE", "PGUSER", "ARTIFACTS_BUCKET", "AWS_ACCESS_KEY_ID", ADMIN_NAME)
SECRETS = ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "MLFLOW_FLASK_SERVER_SECRET_KEY")

# Host, database, user and password are libpq's PG... variables: no process's arguments and no
# message holds them.
STORE = "postgresql+psycopg://"
PASSED_ON = ("MLFLOW_S3_ENDPOINT_URL", "MLFLOW_FLASK_SERVER_SECRET_KEY", ADMIN_NAME)
FIXED = {
    "MLFLOW_AUTH_CONFIG_PATH": str(Path(__file__).resolve().with_name("basic_auth.ini")),
    "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # The assistant runs commands for whoever logs in from the server's own machine; with this, in
    # a container or not at all.
    "MLFLOW_ENABLE_ASSISTANT_SANDBOX": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def main(arguments: list[str]) -> None:
    """Run one of the two commands, or say in a line each what is wrong and exit with code 2."""
    commands = {"init": initialise, "serve": serve}
    if len(arguments) != 1 or arguments[0] not in commands:
        refuse(f"server.py: must be init or serve (got {' '.join(arguments) or 'nothing'})")
    commands[arguments[0]](os.environ)


def serve(environment: Mapping[str, str]) -> NoReturn:
    """Become `mlflow server`."""
    refuse(*find_problems(environment, SECRETS))
    command = server_command(environment)
    os.execve(command[0], command, server_environment(environment))  # noqa: S606  # no shell


def initialise(environment: Mapping[str, str]) -> None:
    """Make the bucket and the administrator, unless they are there."""
    refuse(*find_problems(environment, (*SECRETS, ADMIN_PASSWORD)))
    check_database()
    make_bucket(environment)
    make_administrator(environment)


def find_problems(environment: Mapping[str, str], secrets: tuple[str, ...]) -> Iterator[str]:
    """Say what is missing, a placeholder or too weak, without showing any of it."""
    server_name = environment.get("SERVER_NAME", "")
    if not is_public_name(server_name):
        yield f"SERVER_NAME: must be the server's own name, as in a URL (got {server_name!r})"
    for variable in NAMES:
        if not environment.get(variable) or PLACEHOLDER in environment[variable]:
            yield f"{variable}: must be set (got {environment.get(variable, '')!r})"
    for variable in secrets:
        value = environment.get(variable, "")
        if PLACEHOLDER in value:
            yield f"{variable}: must be a secret of your own (got the placeholder)"
        elif len(value) < MIN_SECRET_CHARACTERS:
            yield f"{variable}: must have >= {MIN_SECRET_CHARACTERS} characters (got {len(value)})"
    port = environment.get("MLFLOW_PORT", "5000")
    if not (port.isdecimal() and 0 < int(port) < 2**16):
        yield f"MLFLOW_PORT: must be from 1 to 65535 (got {port!r})"


def is_public_name(name: str) -> bool:
    """Tell a host's name; a pattern is none, since MLflow would let `10.evil.com` in by `10.*`."""
    labels = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
    return bool(re.fullmatch(rf"{labels}(\.{labels})*", name)) and not name.endswith("example.org")


def server_command(environment: Mapping[str, str]) -> list[str]:
    """Return the program and all its arguments; none of them is a secret."""
    name = environment["SERVER_NAME"]
    port = environment.get("MLFLOW_PORT", "5000")
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--app-name", "basic-auth"),
        *("--backend-store-uri", STORE),
        *(
            "--serve-artifacts",
            "--artifacts-destination",
            f"s3://{environment['ARTIFACTS_BUCKET']}",
        ),
        *("--host", environment.get("MLFLOW_HOST", "127.0.0.1"), "--port", port),
        *("--allowed-hosts", f"{name},localhost:{port},127.0.0.1:{port}"),
        *("--cors-allowed-origins", f"https://{name}"),
        *("--x-frame-options", "DENY"),
        *("--workers", environment.get("MLFLOW_WORKERS", "4")),
    ]


def server_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the server sees: of MLflow's variables only those that belong to this set-up."""
    others = {key: value for key, value in environment.items() if not key.startswith("MLFLOW_")}
    return others | {key: environment[key] for key in PASSED_ON if environment.get(key)} | FIXED


def check_database() -> None:
    """Log in once."""
    import psycopg

    try:
        psycopg.connect().close()
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        refuse(f"PGHOST: must be a PostgreSQL that PGUSER can log in to (got {reason})")


def make_bucket(environment: Mapping[str, str]) -> None:
    """Create the artifacts' bucket if there is none."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client("s3", endpoint_url=environment.get("MLFLOW_S3_ENDPOINT_URL") or None)
    bucket = environment["ARTIFACTS_BUCKET"]
    try:
        if not has_bucket(client, bucket):
            client.create_bucket(Bucket=bucket)
    except (BotoCoreError, ClientError) as error:
        refuse(f"ARTIFACTS_BUCKET: must be open to AWS_ACCESS_KEY_ID (got {error})")


def has_bucket(client: Any, bucket: str) -> bool:
    """Tell whether there is a bucket of this name that is open to us."""
    from botocore.exceptions import ClientError

    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return False
        raise
    return True


def make_administrator(environment: Mapping[str, str]) -> None:
    """Create the administrator; one who exists keeps the password.

    Here and not when the server starts, so that no server process knows this password.
    """
    program = "from mlflow.server.auth import bootstrap_admin_user; bootstrap_admin_user()"
    password = {ADMIN_PASSWORD: environment[ADMIN_PASSWORD]}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=server_environment(environment) | password,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.splitlines() or ["nothing"])[-1]
        refuse(f"{ADMIN_NAME}: must become a user of MLflow (got {reason})")


def refuse(*lines: str) -> None:
    """Exit with code 2 if there is anything to say."""
    if lines:
        print(*lines, sep="\n", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
