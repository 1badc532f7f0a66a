"""Each check of deploy/ refuses what is broken, and says what."""

import shutil
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import validate  # noqa: E402

READ = ["deploy", "docs/operations.md", "docs/operations", "src/settings/known.rs"]

COMMAND = "deploy/kubernetes/command.yaml"
DASHBOARD = "deploy/grafana/tidelog.json"
ALERTS = "deploy/prometheus/alerts.yml"
CASES = "deploy/prometheus/alerts.test.yml"
ALERTS_DOCUMENT = "docs/operations/alerts.md"

# Who looks at a file.
CHECKS = {"deploy/kubernetes": validate.manifests, "deploy/grafana": validate.dashboard, "deploy/prometheus": validate.alerts,
          "docs/operations": validate.alerts}

# A file, what is in it, what is put there instead, and what has to be said then.
BROKEN = [
    (COMMAND, "livenessProbe:", "livenessProb:", "'livenessProb' was unexpected"),
    (COMMAND, "replicas: 2", "replicas: two", "'two' is not of type"),
    (COMMAND, "policy/v1", "policy/v1beta1", "Couldn't find schema for kind PodDisruptionBudget"),
    (COMMAND, "metadata:", "metadata: [", "command.yaml: while parsing"),
    (COMMAND, "replicas: 2", "replicas: 1", "nobody is there while it is deployed"),
    (COMMAND, "maxUnavailable: 0", "maxUnavailable: 1", "nobody is there while it is deployed"),
    (COMMAND, "minAvailable: 1", "minAvailable: 2", "no disruption budget"),
    (COMMAND, "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 15",
     "it is killed before"),
    (COMMAND, "path: /health/ready", "path: /health/live", "its readinessProbe does not ask /health/ready"),
    (COMMAND, "[serve, --role, command]", "[serve, --role, query]", "it runs ['serve', '--role', 'query']"),
    (COMMAND, "name: http, containerPort", "name: https, containerPort", "its ports are not"),
    (COMMAND, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "may write to its image"),
    (COMMAND, "runAsNonRoot: true", "runAsNonRoot: false", "it runs as root"),
    (COMMAND, "limits: { memory: 512Mi }", "limits: { cpu: 1 }", "it does not say what it needs"),
    (COMMAND, "targetPort: http", "targetPort: https", "it selects no pods with the ports ['https']"),
    (COMMAND, "secretRef: { name: tidelog-log }", "secretRef: { name: log }", "there is no Secret log"),
    (COMMAND, "name: tidelog-command\n", "name: tidelog-commands\n", "the Deployments are"),
    ("deploy/kubernetes/config.yaml", "TIDELOG_QUERY_ADDR", "TIDELOG_QUERY_ADDRESS",
     "no setting TIDELOG_QUERY_ADDRESS"),
    ("deploy/kubernetes/network.yaml", "name: tidelog } }\n  policyTypes", "name: log } }\n  policyTypes",
     "it selects no pods"),
    (DASHBOARD, '"fieldConfig"', '"fieldconfig"', "Grafana does not know .panels[1].fieldconfig"),
    (DASHBOARD, '"legendFormat"', '"legend"', "Grafana does not know .panels[1].targets[0].legend"),
    (DASHBOARD, '"colorMode"', '"colourMode"', "Grafana does not know .panels[1].options.colourMode"),
    (DASHBOARD, '"panels"', '"panels', "JSONDecodeError"),
    (DASHBOARD, '"id": 2,', '"id": 3,', "has the id or the place of another"),
    (DASHBOARD, '"x": 4,', '"x": 3,', "has the id or the place of another"),
    (DASHBOARD, "sum(max by (subscription", "sum(max by subscription", "could not parse expression"),
    (DASHBOARD, "tidelog_subscription_stalled", "tidelog_subscription_stuck", "no metric tidelog_subscription_stuck"),
    (DASHBOARD, "append_duration_seconds_bucket", "append_queue_commands_bucket",
     "no metric tidelog_append_queue_commands_bucket"),
    (ALERTS, "expr: max by (subscription, partition) (", "expr: max by (subscription, partition) ((",
     "could not parse expression"),
    (ALERTS, "annotations:", "annotation:", "field annotation not found"),
    (ALERTS, "tidelog_subscription_stalled) == 1", "tidelog_subscription_stalled) == 2", "exp:"),
    (ALERTS, "tidelog_relay_lag_events) > 10000", "tidelog_relay_lag_events) > 1", "exp:"),
    (ALERTS, "alerts.md#tidelogbusbehind", "alerts.md#bus", "exp:"),
    (CASES, "- { eval_time: 35m, alertname: TidelogBusBehind }\n", "[]\n", "alerts.yml: "),
    (CASES, "      - { eval_time: 35m, alertname: TidelogBusBehind }\n", "",
     "TidelogBusBehind: alerts.test.yml does not try both"),
    ("docs/operations.md", "| `tidelog_relay_lag_events` |", "| `tidelog_relay_lag` |", "no metric tidelog_relay_lag_events"),
    (ALERTS_DOCUMENT, "## TidelogBusBehind\n", "## The bus\n", "TidelogBusBehind: docs/operations/alerts.md has no heading"),
    (ALERTS_DOCUMENT, "## TidelogBusBehind\n", "## TidelogBusBehind\n\n## TidelogOther\n", "there is no alert TidelogOther"),
]


class Findings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        validate.load_validators()

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        for name in READ:
            copy = shutil.copytree if (validate.REPOSITORY / name).is_dir() else shutil.copy2
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            copy(validate.REPOSITORY / name, self.root / name)

    def test_what_is_in_the_repository_is_right(self):
        self.assertEqual(validate.findings(self.root), [])

    def test_each_broken_sample_is_refused(self):
        for name, right, wrong, said in BROKEN:
            with self.subTest(file=name, broken=right):
                file = self.root / name
                whole = file.read_text()
                self.assertIn(right, whole, "it is not there to be broken")
                file.write_text(whole.replace(right, wrong, 1))
                check = next(check for place, check in CHECKS.items() if name.startswith(place))
                found = list(check(self.root))
                file.write_text(whole)
                self.assertTrue(any(said in finding for finding in found), found)


if __name__ == "__main__":
    unittest.main()
