"""What a version of a registered model shows of itself on a real server's pages."""

import re
import urllib.request
from pathlib import Path

import pytest

from diptych.tracking.promoting import Request, promote
from diptych.tracking.versions import CARD_FILE
from tests.stages.conftest import PROCESSED
from tests.tracking.promotions import Project, add_execution, images_of

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own

PICTURE = b"\x89PNG\r\n\x1a\n"
CONFUSIONS = "confusion_matrix.png"  # as the stage evaluate names it


@pytest.fixture(scope="module")
def project(
    recorded: Project, server_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """Two executions on a server, the second worse, and the classifiers of both decided on."""
    server = Project(recorded.root, server_uri, {})
    folder = tmp_path_factory.mktemp("executions")
    (folder / CONFUSIONS).write_bytes(PICTURE)
    executions = {}
    for seed, (name, num_mistakes) in enumerate({"first": 3, "second": 15}.items()):
        made = add_execution(
            server.client,
            recorded.root / PROCESSED,
            folder / name,
            images_of(num_mistakes, 80.0),
            seed,
        )
        server.client.log_artifact(made.runs["evaluate"], str(folder / CONFUSIONS), "evaluation")
        promote(server.registrar(), "cnn", Request(run_id=made.run_id), server.evaluate)
        executions[name] = made
    return Project(recorded.root, server_uri, executions)


@pytest.mark.parametrize(("name", "number"), [("first", 1), ("second", 2)])
def test_a_card_names_the_version_that_it_belongs_to(
    project: Project, name: str, number: int, tmp_path: Path
) -> None:
    run_id = project.executions[name].runs["train_cnn"]
    version = project.client.get_model_version("diptych-cnn", str(number))
    assert version.run_id == run_id
    kept = Path(project.client.download_artifacts(run_id, CARD_FILE, str(tmp_path)))
    for card in (version.description, kept.read_text(encoding="utf-8")):
        assert card.startswith(f"# Classifier, version {number}\n")
        assert ("Promoted: " in card) == (name == "first")


def test_a_refused_version_keeps_its_number_when_it_is_decided_on_again(project: Project) -> None:
    execution = project.executions["second"]
    request = Request(run_id=execution.run_id)
    outcome = promote(project.registrar(), "cnn", request, project.evaluate)
    assert outcome.candidate.version == 2
    description = project.client.get_model_version("diptych-cnn", "2").description
    assert description.startswith("# Classifier, version 2\n")


def test_a_card_shows_pictures_that_the_server_has(project: Project) -> None:
    description = project.client.get_model_version("diptych-cnn", "1").description
    (address,) = re.findall(r"!\[Confusion matrix\]\((\S+)\)", description)
    # The pages' own address, on which it is shown, ends with a slash before the #.
    with urllib.request.urlopen(f"{project.uri}/{address}", timeout=60) as answer:  # noqa: S310
        assert answer.read() == PICTURE
