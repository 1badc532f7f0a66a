"""Checks what is in deploy/: the manifests for Kubernetes, the dashboard for Grafana, the alerts for Prometheus.

Each is read by what is published for that, and then compared with the program: settings, ports and metrics are those
that it has, and whoever is woken by an alert finds a heading that says what to do.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import fetch

REPOSITORY = Path(__file__).resolve().parents[2]
ROLES = {"command": {"http", "admin"}, "eventbus": {"admin"}, "query": {"http", "admin"}}
# What the stop of a process may take beyond its grace: a second for each step that had no time left.
STOP_STEPS_SECONDS = 5
# Bound on one run of promtool.
TIMEOUT_SECONDS = 60
# What Grafana puts in for its variables, for a reader that knows none.
GRAFANA_VARIABLES = {"$__rate_interval": "1m", "$job": ".*"}


def main():
    """Checks everything, prints each finding, and ends with 1 if there is any."""
    try:
        load_validators()
        found = findings(REPOSITORY)
    except fetch.FetchError as error:
        found = [str(error)]
    for finding in found:
        print(f"deploy: {finding}", file=sys.stderr)
    if not found:
        print("deploy: the manifests, the dashboard and the alerts are right")
    return 1 if found else 0


def findings(root):
    """All that is wrong below `root`, a line each."""
    return [finding for check in (manifests, dashboard, alerts) for finding in check(root)]


def load_validators():
    """Makes the validators' modules importable."""
    modules = str(fetch.fetch_validators())
    if modules not in sys.path:
        sys.path.insert(0, modules)


# Kubernetes

def manifests(root):
    """What is wrong with the manifests."""
    import yaml
    files = sorted((root / "deploy/kubernetes").rglob("*.yaml"))
    found, documents = [], []
    for file in files:
        try:
            own = [document for document in yaml.safe_load_all(file.read_text()) if document]
        except yaml.YAMLError as error:
            return [f"{file.name}: {error}"]
        documents += own
        found += [f"{file.name}: {complaint}" for document in own for complaint in misfits(document)]
    return found or [*of_settings(root, documents), *of_deployments(documents), *of_selectors(documents)]


def misfits(document):
    """Why `document` does not fit the schemas of Kubernetes, which know no field but their own."""
    import kubernetes_validate
    for release in fetch.KUBERNETES_VERSIONS:
        try:
            kubernetes_validate.validate(document, release, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{document['kind']}, Kubernetes {release}: {'.'.join(map(str, error.path))}: {error.message}"
        except kubernetes_validate.utils.SchemaNotFoundError as error:
            yield error.message


def of_settings(root, documents):
    """The program knows every variable that is set; every list of variables that is used is there."""
    known = set(re.findall(r'"([A-Z][A-Z0-9_]+)"', (root / "src/settings/known.rs").read_text()))
    defined = {(d["kind"], d["metadata"].get("name")) for d in documents}
    for document in documents:
        if document["kind"] in ("ConfigMap", "Secret"):
            for name in {**document.get("data", {}), **document.get("stringData", {})}:
                if name not in known and not name.startswith("OTEL_"):
                    yield f"{document['kind']} {document['metadata']['name']}: the program has no setting {name}"
    for document, container in containers(documents):
        for source in container.get("envFrom", []):
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source and not source[key].get("optional") and (kind, source[key]["name"]) not in defined:
                    yield f"{name_of(document)}: there is no {kind} {source[key]['name']}"


def containers(documents):
    """Each document that makes pods, with each of its containers."""
    for document in documents:
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("containers", []):
            yield document, container


def name_of(document):
    return f"{document['kind']} {document['metadata'].get('name', document['metadata'].get('generateName'))}"


def of_deployments(documents):
    """There is a Deployment for each role, which stays up while it is deployed, drained or stopped."""
    common = next(document["data"] for document in documents if document["kind"] == "ConfigMap")
    grace = int(common["TIDELOG_SHUTDOWN_GRACE"].removesuffix("s"))
    deployments = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Deployment"}
    if set(deployments) != {f"tidelog-{role}" for role in ROLES}:
        yield f"the Deployments are {sorted(deployments)}"
        return
    for role, ports in ROLES.items():
        deployment = deployments[f"tidelog-{role}"]
        for wrong in of_deployment(deployment, role, ports, grace):
            yield f"{name_of(deployment)}: {wrong}"
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        kept = [document["spec"].get("minAvailable", 0) for document in documents
                if document["kind"] == "PodDisruptionBudget" and document["spec"]["selector"]["matchLabels"] == labels]
        if len(kept) != 1 or not 0 < kept[0] < deployment["spec"]["replicas"]:
            yield f"{name_of(deployment)}: no disruption budget keeps one of its pods and lets one go"


def of_deployment(deployment, role, ports, grace):
    spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    if container["args"] != ["serve", "--role", role]:
        yield f"it runs {container['args']}"
    if {port["name"] for port in container["ports"]} != ports:
        yield f"its ports are not {sorted(ports)}"
    if spec["replicas"] < 2 or spec["strategy"]["rollingUpdate"]["maxUnavailable"] != 0:
        yield "nobody is there while it is deployed"
    if pod["terminationGracePeriodSeconds"] < pause + grace + STOP_STEPS_SECONDS:
        yield f"it is killed before {pause} s of pause, {grace} s of grace and {STOP_STEPS_SECONDS} s are over"
    probes = {"startupProbe": "live", "livenessProbe": "live", "readinessProbe": "ready"}
    for probe, path in probes.items():
        if container.get(probe, {}).get("httpGet") != {"path": f"/health/{path}", "port": "admin"}:
            yield f"its {probe} does not ask /health/{path} of the admin listener"
    if not pod["securityContext"].get("runAsNonRoot"):
        yield "it runs as root"
    if not container["securityContext"].get("readOnlyRootFilesystem"):
        yield "it may write to its image"
    resources = container["resources"]
    if "memory" not in resources["limits"] or set(resources["requests"]) != {"cpu", "memory"}:
        yield "it does not say what it needs"


def of_selectors(documents):
    """What selects pods selects some, and asks for ports that they have."""
    pods = [(document["spec"]["template"]["metadata"]["labels"], {port["name"] for port in container["ports"]})
            for document, container in containers(documents) if document["kind"] == "Deployment"]
    for document in documents:
        match document["kind"]:
            case "Service":
                selector, asked = document["spec"]["selector"], {port["targetPort"] for port in document["spec"]["ports"]}
            case "NetworkPolicy":
                # One policy for all: a port need not be everywhere.
                selector, asked = document["spec"]["podSelector"]["matchLabels"], set()
            case _:
                continue
        selected = [ports for labels, ports in pods if selector.items() <= labels.items()]
        if not selected or not all(asked <= ports for ports in selected):
            yield f"{name_of(document)}: it selects no pods with the ports {sorted(asked)}"


# Grafana

def dashboard(root):
    """What is wrong with the dashboard: what Grafana's own types lose of it, and expressions that Prometheus cannot read."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard
    file = root / "deploy/grafana/tidelog.json"
    try:
        source = json.loads(file.read_text())
        register_default_plugins()
        understood = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(source)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{file.name}: {type(error).__name__}: {error}"]
    found = [f"{file.name}: Grafana does not know {lost}" for lost in lost_of(source, understood, "")]
    return [*found, *overlaps(source["panels"], file.name), *of_expressions(root, file.name, expressions(source))]


def lost_of(ours, theirs, place):
    """The places in `ours` that `theirs` has not, or otherwise."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from lost_of(value, theirs[key], f"{place}.{key}")
            else:
                yield f"{place}.{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs)):
            yield from lost_of(one, other, f"{place}[{index}]")
    elif ours != theirs:
        yield f"{place}: {ours!r}, which is {theirs!r} to it"


def overlaps(panels, name):
    """Panels with the same id or in the same place."""
    ids, places = set(), set()
    for panel in panels:
        grid = panel["gridPos"]
        own = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        if panel["id"] in ids or own & places or grid["x"] + grid["w"] > 24:
            yield f"{name}: the panel {panel['title']!r} has the id or the place of another"
        ids.add(panel["id"])
        places |= own


def expressions(source):
    """The expressions of a dashboard, without Grafana's variables."""
    for panel in source["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for variable, value in GRAFANA_VARIABLES.items():
                expression = expression.replace(variable, value)
            yield expression


def of_expressions(root, name, found):
    """What Prometheus cannot read of these expressions; metrics that the program does not have."""
    found = list(found)
    rules = [{"record": f"dashboard:{index}", "expr": expression} for index, expression in enumerate(found)]
    with tempfile.TemporaryDirectory() as directory:
        # JSON is YAML.
        (Path(directory) / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        yield from (f"{name}: {said}" for said in promtool(directory, "check", "rules", "rules.yml"))
    yield from (f"{name}: {wrong}" for expression in found for wrong in unknown_metrics(root, expression))


# Prometheus

def alerts(root):
    """What is wrong with the alerts."""
    import yaml
    directory = root / "deploy/prometheus"
    said = [*promtool(directory, "check", "rules", "alerts.yml"), *promtool(directory, "test", "rules", "alerts.test.yml")]
    if said:
        return [f"alerts.yml: {line}" for line in said]
    rules = [rule for group in yaml.safe_load((directory / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    cases = yaml.safe_load((directory / "alerts.test.yml").read_text())["tests"]
    tried = [test for case in cases for test in case["alert_rule_test"]]
    headings = set(re.findall(r"^## (\w+)$", (root / "docs/operations/alerts.md").read_text(), re.MULTILINE))
    names = {rule["alert"] for rule in rules}
    found = [f"alerts.yml: {rule['alert']}: {wrong}" for rule in rules for wrong in of_alert(root, rule, tried, headings)]
    return found + [f"docs/operations/alerts.md: there is no alert {name}" for name in sorted(headings - names)]


def of_alert(root, rule, tried, headings):
    name = rule["alert"]
    yield from unknown_metrics(root, rule["expr"])
    if name not in headings:
        yield "docs/operations/alerts.md has no heading of this name"
    if rule["annotations"].get("runbook") != f"docs/operations/alerts.md#{name.lower()}":
        yield "it does not name that heading"
    fires = {bool(test.get("exp_alerts")) for test in tried if test["alertname"] == name}
    if fires != {True, False}:
        yield "alerts.test.yml does not try both that it fires and that it does not"


def promtool(directory, *arguments):
    """What promtool complains of, in one line; nothing where it is content."""
    done = subprocess.run([fetch.fetch_promtool(), *arguments], cwd=directory, capture_output=True, text=True,
                          timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode:
        yield " ".join((done.stdout + done.stderr).split())


def unknown_metrics(root, expression):
    """The metrics of an expression that docs/operations.md does not tell of."""
    documented = documented_metrics((root / "docs/operations.md").read_text())
    for name in sorted(set(re.findall(r"\btidelog_\w+", expression))):
        part = re.fullmatch(r"(\w+)_(?:bucket|sum|count)", name)
        if documented.get(name) not in ("gauge", "counter") and not (part and documented.get(part[1]) == "histogram"):
            yield f"docs/operations.md has no metric {name}"


def documented_metrics(text):
    """The metrics of the table `| metric | type | …`, with their types."""
    return dict(re.findall(r"^\| `(tidelog_\w+)` \| (\w+) \|", text, re.MULTILINE))


if __name__ == "__main__":
    sys.exit(main())
