"""What deploy/ says is what the code has: settings, ports, versions, entry points, the instance's settings.

Nothing of it runs here; deploy/README.md says what was run. With `--schemas` the files are checked against
the schemas of Compose, of Dagster's chart and of KubeRay, which are not kept here: a folder with
compose-spec.json, values.schema.json and ray.io_rayclusters.yaml.
"""

import importlib.metadata
import itertools
import json
import pathlib
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from audio_assets.settings import PROJECT, VARIABLES

DEPLOY = PROJECT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE))
RAYS_OWN = {"RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED"}
"""Ray and Postgres read these themselves, like all of `POSTGRES_…`, which Postgres's image reads."""

EXTRAS = PYPROJECT["project"]["optional-dependencies"]


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def document(name: str) -> Any:
    [only] = documents(name)
    return only


COMPOSE = document("compose.yaml")
VALUES = document("kubernetes/dagster-values.yaml")
RAY_CLUSTER, TO_RAY, TO_RUNS = documents("kubernetes/raycluster.yaml")
SETTINGS = document("kubernetes/settings.yaml")["data"]
[LOCATION] = VALUES["dagster-user-deployments"]["deployments"]


def named(tree: Any) -> Iterator[tuple[str, Any]]:
    """Each variable of the environment that a tree of YAML sets, with its value."""
    if isinstance(tree, dict):
        if isinstance(tree.get("name"), str) and ("value" in tree or "valueFrom" in tree):
            yield tree["name"], tree.get("value", tree.get("valueFrom"))
        for key, value in tree.items():
            if isinstance(key, str) and re.fullmatch(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+", key):
                yield key, value
            yield from named(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from named(item)


@pytest.fixture(params=sorted(str(p.relative_to(DEPLOY)) for p in DEPLOY.rglob("*.yaml")))
def file(request: pytest.FixtureRequest) -> str:
    return request.param


# --- what the files name --------------------------------------------------------------------------------


def test_each_variable_that_a_file_sets_is_a_setting(file: str):
    declared = {variable.name for variable in VARIABLES} | RAYS_OWN
    # The part of a build, not of the environment.
    set_here = {name for name, _ in named(documents(file))} - {"TORCH_BACKEND"}
    assert {name for name in set_here if not name.startswith("POSTGRES_")} <= declared


def test_each_secret_is_a_reference(file: str):
    secret = {variable.name for variable in VARIABLES if variable.secret}
    for name, value in named(documents(file)):
        if name in secret - {"AUDIO_SOURCE_URI", "AUDIO_TABLE_URI"} or re.search(
            "PASSWORD|TOKEN|SECRET", name
        ):
            assert "secretKeyRef" in value or re.match(r"\$\{\w+:\?", str(value)), name


def test_versions_are_those_that_are_tested_together():
    assert RAY_CLUSTER["spec"]["rayVersion"] == PINNED["ray"]
    chart = {PINNED["dagster"]}
    said = (DEPLOY / "kubernetes" / "dagster-values.yaml").read_text() + (DEPLOY / "README.md").read_text()
    assert set(re.findall(r"--version (\d[\d.]+)", said)) == chart
    tags = re.findall(r"audio-assets:(\d[\d.]*)-c", (DEPLOY / "kubernetes" / "raycluster.yaml").read_text())
    tags.append(LOCATION["image"]["tag"].partition("-")[0])
    assert set(tags) == {PYPROJECT["project"]["version"]}
    [python] = re.findall(r"ARG PYTHON_VERSION=3\.(\d+)", DOCKERFILE)
    low, high = re.findall(r"3\.(\d+)", PYPROJECT["project"]["requires-python"])
    assert int(low) <= int(python) < int(high)


def test_the_image_is_made_of_files_and_extras_that_exist():
    [extras] = re.findall(r"'\.\[(.*?)\]'", DOCKERFILE)
    assert set(extras.split(",")) - ({"ray"} - EXTRAS.keys()) <= EXTRAS.keys()
    copied = [
        path for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE) for path in line.split()
    ]
    assert len(copied) > 5
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for path in copied:
        assert (PROJECT / path).exists()
        assert f"!{path}" in ignored


def test_commands_start_what_the_project_has():
    scripts = {script.name for script in importlib.metadata.entry_points(group="console_scripts")} | {"ray"}
    [command] = re.findall(r"^CMD (\[.*?\])", DOCKERFILE.replace("\\\n", ""), re.MULTILINE | re.DOTALL)
    commands = [json.loads(command), *(s["command"] for s in COMPOSE["services"].values() if "command" in s)]
    assert len(commands) == 5
    assert {words[0] for words in commands} <= scripts
    location = PYPROJECT["tool"]["dg"]["project"]
    for words in (commands[0], LOCATION["dagsterApiGrpcArgs"]):
        said = dict(itertools.pairwise(words))
        assert said["--module-name"] == location["code_location_target_module"]
        assert said["--location-name"] == location["code_location_name"]


def test_ports_agree():
    [server] = [item["grpc_server"] for item in document("workspace.yaml")["load_from"]]
    [ours] = [
        item["grpc_server"] for item in yaml.safe_load((PROJECT / "workspace.yaml").read_text())["load_from"]
    ]
    assert server == ours | {"host": "code-location"}
    assert "code-location" in COMPOSE["services"]
    assert f'"--port", "{ours["port"]}"' in DOCKERFILE
    assert LOCATION["port"] == ours["port"]
    [exposed] = re.findall(r"^EXPOSE (\d+) (\d+)$", DOCKERFILE, re.MULTILINE)
    ui = VALUES["dagsterWebserver"]
    assert exposed == (str(ui["service"]["port"]), str(ours["port"]))
    assert ui["readinessProbe"]["httpGet"]["port"] == ui["service"]["port"]
    assert f"--port={COMPOSE['x-image']['environment']['RAY_ADDRESS'].partition(':')[2]}" in " ".join(
        COMPOSE["services"]["ray-head"]["command"]
    )


def test_nothing_of_compose_listens_beyond_this_machine():
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_daemon_of_compose_can_see_the_processes_of_runs():
    """`LocalRunLauncher` judges a process by host name and process id."""
    services = COMPOSE["services"]
    assert services["daemon"]["hostname"] == services["code-location"]["hostname"]
    assert services["daemon"]["pid"] == "service:code-location"


# --- the instance ---------------------------------------------------------------------------------------


def test_the_instance_on_postgres_differs_from_the_embedded_one_in_its_storage_alone():
    configured = document("dagster.yaml")
    storage = configured.pop("storage")
    assert configured == yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    read = {value["env"] for value in storage["postgres"]["postgres_db"].values() if isinstance(value, dict)}
    assert read == {variable.name for variable in VARIABLES if variable.name.startswith("DAGSTER_PG_")}


def snake(tree: Any) -> Any:
    """The chart writes `maxRetries` for `max_retries`."""
    if not isinstance(tree, dict):
        return tree
    return {re.sub(r"([A-Z])", lambda found: f"_{found[0].lower()}", key): snake(tree[key]) for key in tree}


def test_the_instance_on_kubernetes_is_set_as_the_embedded_one():
    ours = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    daemon = snake(VALUES["dagsterDaemon"])
    # A pod may have to wait for a node.
    assert daemon["run_monitoring"] | {"start_timeout_seconds": 45} == ours["run_monitoring"]
    assert daemon["run_retries"] == ours["run_retries"]
    assert daemon["run_coordinator"]["config"]["queued_run_coordinator"] == ours["run_coordinator"]["config"]
    concurrency = snake(VALUES["concurrency"])
    assert concurrency.pop("enabled")
    assert concurrency == ours["concurrency"]
    assert snake(VALUES["pythonLogs"]) == ours["python_logs"]
    assert VALUES["telemetry"] == ours["telemetry"]
    assert VALUES["additionalInstanceConfig"]["nux"] == ours["nux"]
    purged = VALUES["retention"]["sensor"]["purgeAfterDays"].items()
    assert ours["retention"]["sensor"]["purge_after_days"].items() <= purged


# --- the fleet ------------------------------------------------------------------------------------------


def test_a_run_on_kubernetes_finds_the_cluster_and_its_token():
    name = RAY_CLUSTER["metadata"]["name"]
    # As KubeRay calls the service and the Secret that it makes.
    assert SETTINGS["RAY_ADDRESS"] == f"{name}-head-svc:6379"
    tokens = [value for variable, value in named(LOCATION) if variable == "RAY_AUTH_TOKEN"]
    assert tokens == [{"secretKeyRef": {"name": name, "key": "auth_token"}}]
    assert RAY_CLUSTER["spec"]["authOptions"]["mode"] == SETTINGS["RAY_AUTH_MODE"] == "token"


def test_a_run_asks_for_as_many_actors_as_the_autoscaler_may_bring():
    [workers] = RAY_CLUSTER["spec"]["workerGroupSpecs"]
    [container] = workers["template"]["spec"]["containers"]
    gpus = int(container["resources"]["limits"]["nvidia.com/gpu"]) * workers["maxReplicas"]
    assert gpus == int(SETTINGS["RAY_MAX_ACTORS"]) * float(SETTINGS["RAY_GPUS_PER_ACTOR"])


def test_the_pods_of_ray_and_of_runs_reach_each_other_and_nobody_else_reaches_them():
    ray = {"ray.io/cluster": RAY_CLUSTER["metadata"]["name"]}
    run = VALUES["runLauncher"]["config"]["k8sRunLauncher"]["labels"]
    for policy, pods, sources in ((TO_RAY, ray, [ray, run]), (TO_RUNS, run, [ray])):
        assert policy["spec"]["podSelector"]["matchLabels"] == pods
        [rule] = policy["spec"]["ingress"]
        assert [source["podSelector"]["matchLabels"] for source in rule["from"]] == sources


# --- schemas --------------------------------------------------------------------------------------------


@pytest.fixture
def schemas(request: pytest.FixtureRequest) -> pathlib.Path:
    return pathlib.Path(str(request.config.getoption("--schemas")))


@pytest.mark.schemas
@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_follow_the_schema_of_compose(schemas: pathlib.Path, name: str):
    jsonschema.validate(document(name), json.loads((schemas / "compose-spec.json").read_text()))


@pytest.mark.schemas
def test_each_value_is_one_of_dagsters_chart(schemas: pathlib.Path):
    schema = json.loads((schemas / "values.schema.json").read_text())
    jsonschema.validate(VALUES, optional(schema))


def optional(schema: Any) -> Any:
    """Without what is required: the chart's defaults have it, and Helm takes ours and them together."""
    if isinstance(schema, list):
        return [optional(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: optional(value) for key, value in schema.items() if key != "required"}


@pytest.mark.schemas
def test_the_ray_cluster_is_one_of_kuberay(schemas: pathlib.Path):
    crd = yaml.safe_load((schemas / "ray.io_rayclusters.yaml").read_text())
    [schema] = [v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == "v1"]
    jsonschema.validate(RAY_CLUSTER, closed(schema))


def closed(schema: Any) -> Any:
    """As Kubernetes takes a schema: a field that it does not describe is wrong."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {key: closed(value) for key, value in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made
