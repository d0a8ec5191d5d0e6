"""The dashboard as a file. It was never opened in Grafana, which cannot be had where it was written: what Grafana would
refuse or show wrongly is looked for here, as far as a file tells.
"""

import itertools
import re

import promql_parser
import pytest
import yaml

from tests.monitoring.expressions import DASHBOARDS, DOCKER, dashboard, targets, variable_query

PROVISIONING = DOCKER / "grafana" / "provisioning"


@pytest.fixture(scope="module")
def board():
    (path,) = DASHBOARDS
    return dashboard(path)


def provisioned(kind: str) -> dict:
    (path,) = (PROVISIONING / kind).glob("*.yaml")
    return yaml.safe_load(path.read_text())


def test_the_three_rows_are_there_in_order(board):
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows == ["Lines", "Triton", "Models"]


def test_panels_have_numbers_of_their_own_and_lie_beside_each_other(board):
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    for place in places:
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
    for a, b in itertools.combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (a, b)


def test_every_panel_says_what_it_shows_in_which_unit(board):
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["title"]
        assert panel["description"]
        if panel["type"] in ("timeseries", "stat"):
            assert panel["fieldConfig"]["defaults"]["unit"]
        references = [target["refId"] for target in panel["targets"]]
        assert references == sorted(set(references))


def test_every_query_goes_to_the_source_that_is_provisioned(board):
    (source,) = provisioned("datasources")["datasources"]
    named = {target["datasource"]["uid"] for _, target in targets(board)}
    named |= {variable["datasource"]["uid"] for variable in board["templating"]["list"]}
    assert named == {source["uid"]}


def test_every_expression_can_be_parsed_and_every_legend_names_labels_that_it_keeps(board):
    for title, target in targets(board):
        parsed = promql_parser.parse(target["expr"])
        kept = re.search(r"^\w+ by \(([^)]*)\)", target["expr"])
        if isinstance(parsed, promql_parser.AggregateExpr) and kept:
            legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert legend <= set(kept[1].replace(" ", "").split(",")), title


def test_the_variables_choose_roles_and_their_rois(board):
    role, roi = board["templating"]["list"]
    assert (role["name"], roi["name"]) == ("role", "roi")
    assert variable_query(role)[1] == "role_id"
    assert variable_query(roi)[1] == "roi_id"
    assert "$role" in roi["query"]["query"]


def test_what_is_provisioned_lies_where_compose_mounts_it(board):
    (provider,) = provisioned("dashboards")["providers"]
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    (source,) = provisioned("datasources")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{DASHBOARDS[0].name}"


def test_prometheus_scrapes_what_compose_starts():
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    scraped = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    gateways, triton = [job["static_configs"][0]["targets"] for job in scraped]
    assert gateways == [f"{name}:8080" for name in services if name.startswith("gateway-")]
    assert triton == ["triton:8002"]
    for name in ("triton-gpu", "triton-cpu"):
        assert services[name]["networks"]["back"]["aliases"] == ["triton"]
    assert "back" in services["prometheus"]["networks"]
    key = scraped[0]["authorization"]["credentials_file"]
    assert services["prometheus"]["secrets"] == [key.removeprefix("/run/secrets/")]
