"""The Helm chart: rendered by Helm's engine, valid for Kubernetes, and true to the gateway that it starts.

No cluster runs here. docs/kubernetes.md says what that leaves untested.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import yaml

from gateway.app import create_app
from gateway.settings import Settings
from tests.debian import program
from tests.kubernetes.render import CHART, PROJECT, Object, lint, rendered
from tests.monitoring.expressions import rules

SECRETS = {
    "gateway": {"apiKeys": {"existingSecret": "keys"}},
    "triton": {"image": {"repository": "registry.example/tritonserver"}, "adminKey": {"existingSecret": "triton"}},
}
EVERYTHING = {
    **SECRETS,
    "fullnameOverride": "line-7",
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccount": {"annotations": {"cloud.example/role": "inspection"}},
    "gateway": {
        **SECRETS["gateway"],
        "settings": {"GATEWAY_MAX_QUEUE_S": "2", "GATEWAY_LOG_FORMAT": "console"},
        "extraEnv": [{"name": "GATEWAY_OTLP_ENDPOINT", "value": "http://collector:4317"}],
        "forwardedAllowIps": "10.0.0.0/8",
        "ingress": {"enabled": True, "className": "nginx", "host": "vision.example", "tlsSecret": "certificate"},
        "nodeSelector": {"disk": "ssd"},
    },
    "triton": {**SECRETS["triton"], "keda": {"enabled": True}},
    "export": {"enabled": True, "weightsClaim": "weights", "args": ["--weights", "/weights/dinov2.safetensors"]},
    "models": {
        "bucket": {
            "url": "s3://inspection/models",
            "existingSecret": "store",
            "env": {"AWS_ENDPOINT_URL": "https://s3.plant.example", "AWS_REGION": "eu-central-1"},
        }
    },
    "networkPolicy": {
        "gatewayFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
        "gatewayEgress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}],
        "exportEgress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}],
    },
    "monitoring": {"enabled": True, "labels": {"release": "prometheus"}, "metricsKey": {"existingSecret": "metrics"}},
}
PLAIN = {
    **SECRETS,
    "models": {"existingClaim": "models"},
    "modelRepository": {"existingClaim": "repository"},
    "gateway": {
        "apiKeys": {"existingSecret": "keys"},
        "autoscaling": {"enabled": False},
        "image": {"digest": f"sha256:{'0' * 64}"},
    },
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
}
REFUSED = {
    "a name that the chart does not know": ({**SECRETS, "gatway": {}}, "gatway"),
    "no Secret with API keys": (
        {"triton": SECRETS["triton"]},
        "gateway.apiKeys.existingSecret",
    ),
    "no Secret with Triton's key": (
        {"gateway": SECRETS["gateway"], "triton": {"image": {"repository": "t"}}},
        "triton.adminKey.existingSecret",
    ),
    "no image of Triton": (
        {"gateway": SECRETS["gateway"], "triton": {"adminKey": {"existingSecret": "t"}}},
        "triton.image.repository",
    ),
    "a variable that is no setting": (
        {**SECRETS, "gateway": {**SECRETS["gateway"], "settings": {"AWS_SECRET_ACCESS_KEY": "x"}}},
        "AWS_SECRET_ACCESS_KEY",
    ),
    "a secret among the variables of a bucket": (
        {**SECRETS, "models": {"bucket": {"env": {"AWS_SECRET_ACCESS_KEY": "x"}}}},
        "AWS_SECRET_ACCESS_KEY",
    ),
    "a bucket with credentials": ({**SECRETS, "models": {"bucket": {"url": "s3://key:secret@b/x"}}}, "url"),
    "a name of a model that ends a shell's word": ({**SECRETS, "modelRepository": {"modelName": "a; b"}}, "modelName"),
}
CUSTOM = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}
"""Kinds of KEDA and of the Prometheus operator, which Kubernetes' schemas do not have."""

Rendered = list[Object]


@pytest.fixture(scope="module", autouse=True)
def _helm() -> None:
    if importlib.util.find_spec("helm_python") is None:
        pytest.skip("helm-python-sdk has no wheel for this machine")


@pytest.fixture(scope="session")
def results() -> "list[Rendered | str]":
    return rendered(SECRETS, EVERYTHING, PLAIN, *(values for values, _ in REFUSED.values()))


@pytest.fixture(scope="session", params=["as it comes", "everything", "plain"])
def release(request: pytest.FixtureRequest, results: "list[Rendered | str]") -> Rendered:
    found = results[["as it comes", "everything", "plain"].index(request.param)]
    assert isinstance(found, list), found
    return found


@pytest.fixture(scope="session")
def everything(results: "list[Rendered | str]") -> Rendered:
    found = results[1]
    assert isinstance(found, list), found
    return found


def of_kind(release: Rendered, kind: str, name: str = "") -> list[Object]:
    return [each for each in release if each["kind"] == kind and each["metadata"]["name"].endswith(name)]


def one(release: Rendered, kind: str, name: str = "") -> Object:
    (found,) = of_kind(release, kind, name)
    return found


def pods(release: Rendered) -> dict[str, Object]:
    """The templates of the pods, by the name of their first container."""
    found = [each["spec"]["template"] for each in release if each["kind"] in ("Deployment", "Job")]
    return {pod["spec"]["containers"][0]["name"]: pod for pod in found}


def environment(pod: Object) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in pod["spec"]["containers"][0]["env"]}


def mounts(pod: Object) -> dict[str, tuple[dict[str, Any], bool]]:
    """Each mounted volume by its path, and whether it can be written."""
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    return {
        mount["mountPath"]: (volumes[mount["name"]], not mount.get("readOnly", False))
        for container in pod["spec"]["containers"]
        for mount in container["volumeMounts"]
    }


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_helms_linter_finds_nothing():
    assert lint(EVERYTHING) == []


@pytest.mark.parametrize("version", ["1.27", "1.33", kubernetes_validate.latest_version()])
def test_every_object_is_valid_for_kubernetes(release, version):
    for each in release:
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, version, strict=True)


def test_no_two_objects_have_one_name(release):
    names = [(each["kind"], each["metadata"]["name"]) for each in release]
    assert len(set(names)) == len(names)
    assert {each["metadata"]["namespace"] for each in release} == {"vision"}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_values_are_refused_by_name(results, case):
    said = results[3 + list(REFUSED).index(case)]
    assert isinstance(said, str)
    assert REFUSED[case][1] in said


def test_no_value_is_missing_in_the_schema_and_none_too_many():
    def names(schema: dict[str, Any], values: dict[str, Any], at: str = "") -> None:
        if "properties" not in schema:
            return
        assert schema["properties"].keys() - {"global"} == values.keys(), at
        for name, value in values.items():
            if isinstance(value, dict):
                names(schema["properties"][name], value, f"{at}.{name}")

    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    names(schema, yaml.safe_load((CHART / "values.yaml").read_text()))


def test_a_gateway_starts_with_the_settings_of_the_chart(release, monkeypatch):
    """Each variable is a setting, and the values are valid together."""
    given = environment(pods(release)["gateway"])
    ours = {name: value for name, value in given.items() if name.startswith("GATEWAY_")}
    assert ours.keys() <= Settings.names()
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    namespace, name = "vision", one(release, "Service", "-triton")["metadata"]["name"]
    assert settings.triton_targets == (f"dns:///{name}.{namespace}.svc:8001",)
    assert settings.host == "0.0.0.0"
    assert not settings.allow_anonymous


def test_given_settings_go_before_those_of_the_chart(everything):
    given = environment(pods(everything)["gateway"])
    assert (given["GATEWAY_LOG_FORMAT"], given["GATEWAY_MAX_QUEUE_S"]) == ("console", "2")
    assert given["FORWARDED_ALLOW_IPS"] == "10.0.0.0/8"


def test_no_pod_is_root_or_has_a_token_or_can_write_to_its_image(release):
    for name, pod in pods(release).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_every_folder_that_a_gateway_writes_to_is_a_volume(release):
    pod = pods(release)["gateway"]
    given, places = environment(pod), mounts(pod)
    is_bucket = "://" in given["GATEWAY_MODELS_DIR"]
    for name in ("CACHE", "STATE") if is_bucket else ("MODELS", "CACHE", "STATE"):
        volume, is_writable = places[given[f"GATEWAY_{name}_DIR"]]
        assert is_writable
        assert ("persistentVolumeClaim" in volume) == (name == "MODELS")
    assert places["/tmp"][1]  # the bodies of requests
    assert not places[given["GATEWAY_MODEL_REPOSITORY"]][1]


def test_with_a_bucket_no_folder_of_models_is_claimed_and_credentials_come_from_a_secret(everything):
    assert [each["metadata"]["name"] for each in of_kind(everything, "PersistentVolumeClaim")] == [
        "line-7-model-repository"
    ]
    pod = pods(everything)["gateway"]
    assert "/data/models" not in mounts(pod)
    assert pod["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert environment(pod)["AWS_REGION"] == "eu-central-1"


def test_the_gateways_find_the_model_that_the_export_writes_and_triton_serves(everything):
    found = pods(everything)
    name = environment(found["gateway"])["GATEWAY_MODEL_NAME"]
    folder = environment(found["gateway"])["GATEWAY_MODEL_REPOSITORY"]
    (triton,), (export,) = (found[each]["spec"]["containers"] for each in ("triton", "export"))
    assert f"--load-model={name}" in triton["args"]
    assert export["args"][:4] == ["--repository", "/repository", "--name", name]
    claims = [
        mounts(found["gateway"])[folder],
        mounts(found["triton"])["/models"],
        mounts(found["export"])["/repository"],
    ]
    assert len({volume["persistentVolumeClaim"]["claimName"] for volume, _ in claims}) == 1
    assert [is_writable for _, is_writable in claims] == [False, False, True]


def test_models_of_other_input_sizes_are_exported_and_loaded_beside_the_first():
    (result,) = rendered({**EVERYTHING, "modelRepository": {"inputSizes": [560]}})
    triton = pods(result)["triton"]["spec"]
    assert [arg for arg in triton["containers"][0]["args"] if arg.startswith("--load-model=")] == [
        "--load-model=dinov2_vits14",
        "--load-model=dinov2_vits14_560",
    ]
    assert "for model in dinov2_vits14 dinov2_vits14_560; do" in triton["initContainers"][0]["command"][2]
    first, other = (job["spec"]["template"]["spec"]["containers"][0]["args"] for job in of_kind(result, "Job"))
    assert first[3] == "dinov2_vits14"
    assert (other[3], other[-2:]) == ("dinov2_vits14_560", ["--input-size", "560"])


def test_an_export_with_other_arguments_is_another_job(results):
    first, second = rendered(EVERYTHING, {**EVERYTHING, "export": {**EVERYTHING["export"], "args": []}})
    assert one(first, "Job")["metadata"]["name"] != one(second, "Job")["metadata"]["name"]
    assert one(first, "Job")["metadata"]["name"] == one(results[1], "Job")["metadata"]["name"]


def test_the_probes_ask_endpoints_that_need_no_key(everything):
    (gateway,) = pods(everything)["gateway"]["spec"]["containers"]
    document = create_app(Settings(_env_file=None)).openapi()["paths"]
    for probe, path in (("startupProbe", "/health"), ("livenessProbe", "/health"), ("readinessProbe", "/ready")):
        assert gateway[probe]["httpGet"] == {"path": path, "port": "http"}
        assert "Scope:" not in document[path]["get"].get("description", "")


def test_a_gateway_has_time_to_drain_and_end_before_it_is_killed(release):
    pod = pods(release)["gateway"]
    given = environment(pod)
    needed = float(given["GATEWAY_DRAIN_S"]) + float(given["GATEWAY_SHUTDOWN_GRACE_S"])
    assert pod["spec"]["terminationGracePeriodSeconds"] >= needed + 5
    (probe,) = (each["readinessProbe"] for each in pod["spec"]["containers"])
    assert float(given["GATEWAY_DRAIN_S"]) >= (probe["failureThreshold"] - 1) * probe["periodSeconds"]


def test_triton_ends_by_itself_before_it_is_killed(release):
    pod = pods(release)["triton"]
    (timeout,) = (a.partition("=")[2] for a in pod["spec"]["containers"][0]["args"] if a.startswith("--exit-timeout"))
    assert pod["spec"]["terminationGracePeriodSeconds"] > int(timeout)


def test_the_access_restrictions_of_triton_are_those_of_compose(release):
    (triton,) = pods(release)["triton"]["spec"]["containers"]
    compose = (PROJECT / "docker" / "compose.yaml").read_text()
    (restricted,) = re.findall(r"restricted=(\S+):admin-key=", compose)
    options = re.findall(r"(--\S+)=\"\$\$restricted\"", compose)
    assert len(options) == 2
    assert [arg for arg in triton["args"] if "restricted" in arg] == [
        f"{option}={restricted}:admin-key=$(TRITON_ADMIN_KEY)" for option in options
    ]


def test_triton_gets_gpus_and_other_pods_none(release):
    for name, pod in pods(release).items():
        (container,) = pod["spec"]["containers"]
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (name == "triton")


def test_every_selector_finds_the_pods_of_its_component_alone(release):
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(release).items()}
    for each in release:
        spec = each.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector", {}))
        if each["kind"] in ("Service", "Deployment", "PodDisruptionBudget", "NetworkPolicy"):
            component = each["metadata"]["labels"]["app.kubernetes.io/component"]
            selector = selector.get("matchLabels", selector)
            assert [name for name, given in labels.items() if selects(selector, given)] == [component], each["kind"]


def test_the_ports_of_services_and_policies_are_ports_of_containers(release):
    ports = {p["name"] for pod in pods(release).values() for c in pod["spec"]["containers"] for p in c.get("ports", [])}
    named = [port["targetPort"] for each in of_kind(release, "Service") for port in each["spec"]["ports"]]
    for policy in of_kind(release, "NetworkPolicy"):
        rules = [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]
        named += [p["port"] for rule in rules for p in rule.get("ports", []) if isinstance(p["port"], str)]
    assert set(named) <= ports


def test_the_gateways_see_every_triton_server(release):
    assert one(release, "Service", "-triton")["spec"]["clusterIP"] == "None"


def test_an_autoscaler_sets_the_replicas_alone(release):
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in release if "scaleTargetRef" in each.get("spec", {})}
    for deployment in of_kind(release, "Deployment"):
        assert ("replicas" in deployment["spec"]) == (deployment["metadata"]["name"] not in scaled)
    assert scaled <= {each["metadata"]["name"] for each in of_kind(release, "Deployment")}


def test_triton_reaches_nothing_and_only_gateways_infer(everything):
    policy = one(everything, "NetworkPolicy", "-triton")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy
    inference, metrics = policy["ingress"]
    gateway = pods(everything)["gateway"]["metadata"]["labels"]
    assert [selects(peer["podSelector"]["matchLabels"], gateway) for peer in inference["from"]] == [True]
    assert [port["port"] for port in (*inference["ports"], *metrics["ports"])] == ["grpc", "metrics"]


def test_prometheus_reaches_gateways_where_others_are_named(everything):
    (ingress,) = one(everything, "NetworkPolicy", "-gateway")["spec"]["ingress"]
    assert {peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in ingress["from"]} == {
        "ingress",
        "monitoring",
    }


def test_the_alerts_are_those_of_compose(everything):
    groups = one(everything, "PrometheusRule")["spec"]["groups"]
    assert [rule for group in groups for rule in group["rules"]] == rules()


def test_prometheus_accepts_the_rules_of_the_chart(everything, tmp_path):
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(one(everything, "PrometheusRule")["spec"]))
    done = subprocess.run([program("promtool", "prometheus"), "check", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_jobs_have_the_names_that_the_rules_ask_for(everything):
    for monitor in of_kind(everything, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        found = [s for s in of_kind(everything, "Service") if selects(selector, s["metadata"]["labels"])]
        (service,) = found
        assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] in ("gateway", "triton")
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
        assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_triton_scales_by_its_wait_and_by_its_queue(everything):
    queue, pending = one(everything, "ScaledObject")["spec"]["triggers"]
    for trigger in (queue, pending):
        promql_parser.parse(trigger["metadata"]["query"])
        assert 'namespace="vision",job="triton"' in trigger["metadata"]["query"]
    assert "nv_inference_queue_duration_us" in queue["metadata"]["query"]
    assert "nv_inference_pending_request_count" in pending["metadata"]["query"]
    # A mean is not divided by the number of replicas; a sum is.
    assert (queue["metricType"], pending["metricType"]) == ("Value", "AverageValue")


def test_no_secret_is_in_the_release(release):
    assert of_kind(release, "Secret") == []
    for pod in pods(release).values():
        for each in pod["spec"]["containers"][0]["env"]:
            assert "KEY" not in each["name"] or "valueFrom" in each or each["name"].endswith("_FILE")


def test_a_digest_goes_before_a_tag(results):
    (gateway,) = pods(results[2])["gateway"]["spec"]["containers"]
    assert gateway["image"] == f"patchcore-gateway@sha256:{'0' * 64}"


def test_checkov_finds_nothing(everything, tmp_path):
    checkov = shutil.which("checkov", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if checkov is None:
        pytest.skip("no checkov on this machine: its requirements exclude ours, so it has an environment of its own")
    path = tmp_path / "release.yaml"
    path.write_text(yaml.safe_dump_all(everything))
    config = CHART.parent / ".checkov.yaml"
    done = subprocess.run(
        [checkov, "--framework", "kubernetes", "--config-file", config, "--file", path, "--compact", "--skip-download"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "Failed checks: 0" in done.stdout
