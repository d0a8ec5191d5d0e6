"""The images and the compose file, run for real: from the export to an inspection, and through faults.

The tests follow each other over one running stack, which is healthy again after each.
"""

import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse

import pytest

from tests.docker.engine import SITE, Engine
from tests.docker.images import build, copy_project
from tests.docker.stack import PROXY, Stack, wait_until
from tests.e2e.synthetic_images import png, steel, with_blob

pytestmark = pytest.mark.docker

GATEWAY, EXPORT = "patchcore-gateway:0.1.0", "patchcore-export:0.1.0"
CPU_SERVICES = ("gateway-a", "gateway-b", "proxy", "triton-cpu")


@pytest.fixture(scope="module")
def engine(full: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if not full:
        pytest.skip("builds images and starts containers for ten minutes: only with --all")
    folder = tmp_path_factory.mktemp("docker")
    try:
        engine = Engine(folder)
        copy_project(engine.site)
        with engine.running("host"):
            build(engine)
        with engine.running("own"):
            yield engine
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def started(engine: Engine) -> Stack:
    stack = Stack(engine)
    stack.prepare()
    stack.up()
    return stack


@pytest.fixture
def stack(started: Stack) -> Iterator[Stack]:
    with started.engine.network():
        yield started
        started.up()
        wait_until(started.tries_only_what_lives)


def test_the_images_run_as_a_user_and_have_the_command_line(engine):
    for image in (GATEWAY, EXPORT):
        run = ["run", "--rm", "--network=none", "--entrypoint=sh", image, "-c"]
        assert engine.docker(*run, "id -u && patchcore --version").split() == ["10001", "patchcore", "0.1.0"]


def test_a_gateway_with_a_read_only_root_can_write_what_it_keeps(engine):
    command = "for each in models cache state; do touch /data/$each/x || exit 2; done; ! touch /data/x /home/gateway/x"
    engine.docker("run", "--rm", "--network=none", "--read-only", GATEWAY, "sh", "-c", command)


def test_triton_refuses_an_empty_administrators_key(engine, started):
    empty = engine.site / "empty"
    empty.touch()
    mount = f"--volume={SITE}/empty:/run/secrets/triton_admin_key:ro"
    said = started.compose("--profile", "cpu", "run", "--rm", "--no-deps", mount, "triton-cpu", ok=False)
    assert "the secret triton_admin_key is empty" in said


def test_every_service_is_healthy_and_ready(stack):
    for service in CPU_SERVICES:
        assert stack.inspected(service)["State"]["Health"]["Status"] == "healthy"
    assert stack.ready()


def test_an_roi_is_learned_and_judged_through_the_proxy(stack):
    with stack.client("office") as client:
        assert stack.fit(client, 4).json()["n_ok_total"] == 4
        parts = [png(steel(seed)) for seed in range(20, 26)]
        broken = [png(with_blob(steel(seed), (190, 190), 40)[0]) for seed in range(30, 33)]
        ok, ng = ([stack.infer(client, image).json()["score"] for image in images] for images in (parts, broken))
        body = {"role_id": "steel", "roi_id": "disc", "mm_per_px": 0.2, "ok_scores": ok, "ng_scores": ng}
        assert client.post("/calibrate_ng", json=body).status_code == 200
    with stack.client("line") as client:
        # Four, so that each gateway has some: both must know the version and its threshold.
        assert [stack.infer(client, image).json()["verdict"] for image in 2 * [parts[0], broken[0]]] == 2 * ["ok", "ng"]
        for service in ("gateway-a", "gateway-b"):
            with stack.client("line", f"{stack.address(service)}:8080") as direct:
                assert stack.infer(direct, broken[0]).json()["verdict"] == "ng"
        assert client.get("/rois/steel/disc/drift").json()["n"] == len(ok + ng) + 6, "they share a window"
    for service in ("gateway-a", "gateway-b"):
        said = [json.loads(line) for line in stack.logs(service).splitlines() if '"level":"warning"' in line]
        assert {line["event"] for line in said} <= {
            "dinov2_vits14: the model has random weights: its scores mean nothing"
        }


def test_requests_need_a_key_and_metrics_stay_inside(stack):
    with stack.client(None) as client:
        assert stack.infer(client, png(steel(1))).status_code == 401
        assert client.get("/health").status_code == 200
    with stack.client("line") as client:
        assert stack.fit(client, 1).status_code == 403
        assert client.get("/metrics").status_code == 404


def test_the_errors_of_the_proxy_have_the_form_of_the_api(stack):
    connection = HTTPConnection(PROXY)
    connection.putrequest("POST", "/infer")
    connection.putheader("Content-Length", str(600 << 20))
    connection.endheaders()
    with connection.getresponse() as answer:
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (413, "too_large")
    connection.close()


def test_triton_is_changed_by_the_administrator_alone(stack):
    load = (
        "curl -s -o /dev/null -w '%{http_code}' -X POST http://127.0.0.1:8000/v2/repository/models/dinov2_vits14/load"
    )
    key = '-H "admin-key: $(cat /run/secrets/triton_admin_key)"'
    assert stack.compose("exec", "triton-cpu", "sh", "-c", load) == "403"
    assert stack.compose("exec", "triton-cpu", "sh", "-c", f"{load} {key}") == "200"


def test_no_key_is_in_logs_or_in_what_the_engine_tells(stack):
    told = "".join(stack.logs(service) + json.dumps(stack.inspected(service)) for service in CPU_SERVICES)
    assert "dinov2_vits14" in told
    assert [name for name, key in stack.keys.items() if key in told] == []


def test_no_process_has_a_right_beyond_its_user(stack):
    for service in CPU_SERVICES:
        status = stack.compose("exec", service, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split()[0] in {"10001", "101"}, service
        assert (int(fields["CapEff"], 16), fields["NoNewPrivs"]) == (0, "1"), service
        inspected = stack.inspected(service)
        assert inspected["HostConfig"]["ReadonlyRootfs"] == (service != "triton-cpu")
        assert bool(inspected["HostConfig"]["PortBindings"]) == (service == "proxy")


def test_triton_has_no_way_out_and_clients_no_way_to_it(stack):
    networks = json.loads(stack.engine.docker("network", "inspect", "docker_back"))
    assert networks[0]["Internal"]
    assert set(stack.inspected("triton-cpu")["NetworkSettings"]["Networks"]) == {"docker_back"}
    reach = "import socket; socket.create_connection(('triton', 8001), 3)"
    stack.compose("exec", "gateway-a", "python", "-c", reach)
    said = stack.compose("exec", "proxy", "wget", "--tries=1", "--timeout=3", "http://triton-cpu:8000/", ok=False)
    assert "unable to resolve" in said


def test_a_gateway_that_crashes_costs_no_inspection_and_comes_back(stack):
    with stack.line() as load:
        # A signal from outside of the container, as of the kernel without memory: `docker kill` is an order to stop.
        stack.engine.kill(stack.inspected("gateway-a")["State"]["Pid"])
        wait_until(lambda: stack.inspected("gateway-a")["RestartCount"] == 1)
        stack.up()
    assert set(load.answers) == {"200"}, load.answers


def test_a_gateway_that_is_killed_for_good_costs_no_inspection(stack):
    with stack.line() as load:
        stack.compose("kill", "gateway-b")
        load.more(100)
    assert set(load.answers) == {"200"}, load.answers


def test_a_gateway_that_is_stopped_answers_what_it_has_and_others_go_on(stack):
    with stack.held("gateway-a") as connection, stack.line() as load:
        stopping = threading.Thread(target=stack.compose, args=("stop", "gateway-a"))
        stopping.start()
        wait_until(lambda: not stack.ready(f"{stack.address('gateway-a')}:8080"))
        load.more(8)  # no more, since the held upload is refused as too slow after ten seconds
        assert stopping.is_alive()
        connection.sendall(b"\n")
        with HTTPResponse(connection) as answer:
            answer.begin()
            assert (answer.status, json.loads(answer.read())["verdict"]) == (200, "ok")
        stopping.join()
    assert stack.inspected("gateway-a")["State"]["ExitCode"] == 0
    assert set(load.answers) == {"200"}, load.answers


def test_gateways_restart_one_after_the_other_without_a_lost_inspection(stack):
    with stack.line() as load:
        for service in ("gateway-a", "gateway-b"):
            stack.compose("restart", service)
            stack.up(service)
    assert set(load.answers) == {"200"}, load.answers


def test_three_gateways_share_the_work_and_a_new_address_is_found(stack):
    before = stack.address("gateway-a")
    with stack.line() as load:
        stack.compose("rm", "--stop", "--force", "gateway-a")
        stack.up("gateway-b", scale_b=2)  # the new one takes the address that is free
        stack.up("gateway-a", "gateway-b", scale_b=2)
        addresses = [stack.address(*each) for each in (("gateway-a", 1), ("gateway-b", 1), ("gateway-b", 2))]
        wait_until(lambda: all(f'tried="{each}:8080" 200' in stack.logs("proxy")[-20_000:] for each in addresses))
    assert before != addresses[0]
    assert set(load.answers) == {"200"}, load.answers


def test_an_inspection_whose_gateway_dies_after_the_addresses_changed_is_answered_by_another(stack):
    with stack.line() as load:
        stack.compose("pause", "gateway-a")
        load.more(20)  # of the gateway that goes on, while the first ones wait for the other
        stack.up("gateway-b", scale_b=2)
        added = stack.address("gateway-b", 2)
        wait_until(lambda: f'tried="{added}:8080" 200' in stack.logs("proxy")[-20_000:])
        stack.compose("kill", "gateway-a")
        load.more(20)
    assert set(load.answers) == {"200"}, load.answers
    assert re.search(r'tried="[^"]+ : [^"]+" .*200$', stack.logs("proxy"), re.MULTILINE), "none was tried anew"


def test_without_triton_the_refusals_say_so_and_it_is_found_again(stack):
    with stack.line() as load:
        stack.compose("restart", "triton-cpu")
        wait_until(stack.ready)
    assert set(load.answers) == {"200", "503 engine_unavailable"}, load.answers
    assert stack.inspected("gateway-a")["RestartCount"] == 0


def test_without_any_gateway_the_proxy_says_so_and_keeps_asking_for_their_addresses(stack):
    def n_asked() -> int:
        return stack.logs("proxy").count("gateway-a could not be resolved")

    before = n_asked()
    stack.compose("stop", "gateway-a", "gateway-b")
    with stack.client("line") as client:
        answer = stack.infer(client, png(steel(1)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "http_502")
    wait_until(lambda: n_asked() >= before + 8)  # every 2 s; by nginx's default every 30, too long for this wait


def test_prometheus_sees_every_gateway_and_triton(stack):
    stack.up("prometheus")
    query = ["exec", "prometheus", "promtool", "query", "instant", "http://localhost:9090"]
    targets = ("gateway-a:8080", "gateway-b:8080", "triton:8002")
    wait_until(lambda: all(f'instance="{each}"' in stack.compose(*query, "up == 1") for each in targets))
    wait_until(lambda: stack.compose(*query, "gateway_engine_ready == 1").count("instance=") == 2)
    stack.compose("--profile", "monitoring", "rm", "--stop", "--force", "prometheus")


def test_everything_learned_outlives_the_containers(stack):
    with stack.client("line") as client:
        version = client.get("/rois/steel/disc").json()["version"]
    stack.compose("--profile", "cpu", "down")
    stack.up()
    with stack.client("line") as client:
        assert client.get("/rois/steel/disc").json()["version"] == version
        answer = stack.infer(client, png(steel(20))).json()
    assert (answer["version"], answer["verdict"]) == (version, "ok")
