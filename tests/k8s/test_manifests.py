"""k8s/ as an operator would apply it: valid for three Kubernetes versions, free of the faults of faults.py, and each of those
checks notices what it is there for."""

import copy
import json
import re
import tomllib
import unittest

import kubernetes_validate
import yaml

from faults import CHECKS, faults
from render import APPLIED, K8S, ROOT, Objects, rendered
from rules import OPERATOR, operators_form

# The first version with `sleep` on by default, the one in which it is stable, and the newest with a schema.
VERSIONS = ("1.30", "1.34", "1.37")

# The kinds of the Prometheus operator have no schema in the package: what of them is allowed, and what must be there.
MONITOR = {"jobLabel", "selector", "endpoints"}
ENDPOINT = {"port", "path", "interval", "scrapeTimeout", "authorization"}
RULE = {"alert", "expr", "for", "keep_firing_for", "labels", "annotations"}


class Schemas(unittest.TestCase):
    def test_every_object_is_valid(self):
        for name in APPLIED:
            for item in rendered(name):
                for version in VERSIONS:
                    with self.subTest(kustomization=name, kind=item["kind"], version=version):
                        check(item, version)

    def test_the_page_names_the_versions(self):
        *most, last = VERSIONS
        self.assertIn(f"**{', '.join(most)} and {last}**", (ROOT / "docs" / "kubernetes.md").read_text())

    def test_the_example_of_a_secret_is_valid(self):
        (secret,) = yaml.safe_load_all((K8S / "overlays/example/secret.example.yaml").read_text())
        for version in VERSIONS:
            check(secret, version)
        placeholders = secret["stringData"].values()
        self.assertTrue(all(value.startswith("REPLACE-ME") for value in placeholders), "something that looks like a real secret")
        self.assertEqual(secret["metadata"]["name"], rendered("base").container()["envFrom"][0]["secretRef"]["name"])

    def test_a_misspelt_key_is_no_valid_object(self):
        deployment = rendered("base").one("Deployment")
        deployment["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
        for version in VERSIONS:
            with self.assertRaises(kubernetes_validate.ValidationError):
                check(deployment, version)

    def test_sleep_is_why_older_versions_are_not_named(self):
        with self.assertRaises(kubernetes_validate.ValidationError):
            check(rendered("base").one("Deployment"), "1.28")


def check(item, version):
    if item["apiVersion"] == "monitoring.coreos.com/v1":
        return operators(item)
    validated = kubernetes_validate.validate(item, version, strict=True)
    assert validated == version, f"validated against {validated} instead of {version}"


def operators(item):
    spec = item["spec"]
    if item["kind"] == "ServiceMonitor":
        assert spec.keys() <= MONITOR and {"selector", "endpoints"} <= spec.keys(), spec.keys()
        for endpoint in spec["endpoints"]:
            assert endpoint.keys() <= ENDPOINT, endpoint.keys()
            assert endpoint["authorization"].keys() <= {"type", "credentials"}
    else:
        assert item["kind"] == "PrometheusRule" and spec.keys() == {"groups"}
        for group in spec["groups"]:
            assert group.keys() <= {"name", "interval", "rules"} and group["rules"], group.keys()
            for rule in group["rules"]:
                assert rule.keys() == {"record", "expr"} or {"alert", "expr"} <= rule.keys() <= RULE, rule.keys()
                assert isinstance(rule["expr"], str)


class Fit(unittest.TestCase):
    def test_nothing_is_amiss(self):
        for name in APPLIED:
            if name != "rollout":
                with self.subTest(kustomization=name):
                    self.assertEqual(faults(rendered(name)), [])

    def test_the_number_begins_at_zero(self):
        (number,) = rendered("rollout")
        self.assertEqual(number["metadata"]["name"], "cutover-rollout")
        self.assertEqual(number["data"], {"V2_ROLLOUT_PERCENTAGE": "0"})
        self.assertNotIn("annotations", number["metadata"], "the epoch is Cutover's to write")

    def test_every_file_is_used(self):
        """A manifest that no kustomization names would be applied by nobody."""
        for path in K8S.rglob("*"):
            if path.is_dir() or path.name in ("kustomization.yaml", "secret.example.yaml"):
                continue
            named = (path.parent / "kustomization.yaml").read_text()
            self.assertIn(path.name, named, f"{path.relative_to(ROOT)} is named by no kustomization")

    def test_one_kind_in_each_file(self):
        for path in K8S.rglob("*.yaml"):
            self.assertEqual(len(list(yaml.safe_load_all(path.read_text()))), 1, path)

    def test_the_operators_rules_are_the_plain_ones(self):
        self.assertEqual(OPERATOR.read_text(), operators_form(), "rules.yml has changed: run `make rules`")


class Image(unittest.TestCase):
    """The Dockerfile, which nothing here can run, says what the manifests and the pinned toolchain say."""

    def setUp(self):
        lines = (ROOT / "Dockerfile").read_text().splitlines()
        self.said = [line.split(maxsplit=1) for line in lines if re.match("[A-Z]+ ", line)]

    def last(self, instruction):
        return [rest for word, rest in self.said if word == instruction][-1]

    def test_it_builds_with_the_pinned_toolchain(self):
        channel = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
        self.assertEqual(self.said[0], ["FROM", f"rust:{channel}-bookworm AS build"])
        self.assertEqual(self.last("FROM"), "scratch")

    def test_it_is_what_the_deployment_runs(self):
        objects = rendered("base")
        security = objects.pod()["securityContext"]
        self.assertEqual(self.last("USER"), f"{security['runAsUser']}:{security['runAsGroup']}")
        self.assertEqual(self.last("EXPOSE").split(), [str(port["containerPort"]) for port in objects.container()["ports"]])
        self.assertEqual(json.loads(self.last("CMD")), objects.container()["args"])
        version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
        self.assertEqual(objects.container()["image"], f"cutover:{version}")

    def test_the_context_holds_what_the_build_reads(self):
        allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        for path in allowed:
            self.assertTrue((ROOT / path).exists(), path)
        self.assertLessEqual({"Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "src"}, set(allowed))


def edit(kind, path, value, name=None):
    """A change of one object; `path` is separated by slashes, and a value of None takes the key away."""

    def change(objects):
        at = objects.one(kind, name)
        *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        for part in parents:
            at = at[part]
        if value is None:
            del at[last]
        else:
            at[last] = value

    return change


def settings(old, new):
    def change(objects):
        for item in objects.of("ConfigMap"):
            for key, text in item.get("data", {}).items():
                if key == "config.toml":
                    assert old in text, f"no {old} in the settings"
                    item["data"][key] = text.replace(old, new)

    return change


def add(item):
    return lambda objects: objects.append(item)


POD = "spec/template/spec"
CONTAINER = f"{POD}/containers/0"
ROLE = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "x", "namespace": "cutover"}}
NUMBER = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cutover-rollout", "namespace": "cutover"}, "data": {}}
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cutover-keys", "namespace": "cutover"}}

# What somebody might break, and the check that has to say so.
BROKEN = [
    ("labels_match", edit("Service", "spec/selector", {"app": "cutover"}, "cutover")),
    ("labels_match", edit("PodDisruptionBudget", "spec/selector/matchLabels", {"app.kubernetes.io/name": "other"})),
    ("labels_match", edit("NetworkPolicy", "spec/podSelector/matchLabels", {})),
    ("labels_match", edit("Deployment", f"{POD}/topologySpreadConstraints/0/labelSelector/matchLabels", {"app": "x"})),
    ("services_are_selected", edit("ServiceMonitor", "spec/selector/matchLabels", {"app.kubernetes.io/name": "cutover"})),
    ("services_are_selected", edit("ServiceMonitor", "spec/endpoints/0/port", "http")),
    ("services_are_selected", edit("ServiceMonitor", "spec/endpoints/0/authorization", None)),
    ("ports_have_names", edit("Deployment", f"{CONTAINER}/readinessProbe/httpGet/port", "http")),
    ("ports_have_names", edit("Deployment", f"{CONTAINER}/ports/1/name", "metrics")),
    ("ports_have_names", edit("Service", "spec/ports/0/targetPort", "web", "cutover")),
    ("ports_have_names", settings('"0.0.0.0:8001"', '"127.0.0.1:8001"')),
    ("probes_ask_the_right_things", edit("Deployment", f"{CONTAINER}/livenessProbe/httpGet/path", "/readyz")),
    ("probes_ask_the_right_things", edit("Deployment", f"{CONTAINER}/startupProbe", None)),
    ("stopping_has_time", edit("Deployment", f"{POD}/terminationGracePeriodSeconds", 30)),
    ("stopping_has_time", edit("Deployment", f"{CONTAINER}/lifecycle", None)),
    ("stopping_has_time", settings('drain_timeout = "30s"', 'drain_timeout = "90s"')),
    ("nothing_is_privileged", edit("Deployment", f"{CONTAINER}/securityContext/readOnlyRootFilesystem", False)),
    ("nothing_is_privileged", edit("Deployment", f"{CONTAINER}/securityContext/capabilities", {"drop": ["ALL"], "add": ["NET_ADMIN"]})),
    ("nothing_is_privileged", edit("Deployment", f"{CONTAINER}/securityContext/allowPrivilegeEscalation", None)),
    ("nothing_is_privileged", edit("Deployment", f"{POD}/securityContext/seccompProfile", None)),
    ("nothing_is_privileged", edit("Deployment", f"{POD}/securityContext/runAsUser", 0)),
    ("nothing_is_privileged", edit("Deployment", f"{POD}/hostNetwork", True)),
    ("nothing_is_privileged", lambda objects: objects.pod()["volumes"].append({"name": "root", "hostPath": {"path": "/"}})),
    ("the_role_is_narrow", edit("Role", "rules/0/resourceNames", None)),
    ("the_role_is_narrow", edit("Role", "rules/0/resourceNames", ["cutover-config"])),
    ("the_role_is_narrow", edit("Role", "rules/0/verbs", ["*"])),
    ("the_role_is_narrow", edit("Role", "rules/0/verbs", ["get", "list"])),
    ("the_role_is_narrow", edit("Role", "rules/0/resources", ["configmaps", "secrets"])),
    ("the_role_is_narrow", edit("RoleBinding", "subjects/0/name", "default")),
    ("the_role_is_narrow", edit("Deployment", f"{POD}/automountServiceAccountToken", False)),
    ("the_role_is_narrow", edit("Deployment", f"{POD}/serviceAccountName", "default")),
    ("the_role_is_narrow", add(ROLE)),
    ("settings_fit_the_cluster", settings('audit_file = ""', 'audit_file = "audit.jsonl"')),
    ("settings_fit_the_cluster", settings("workers", "# workers")),
    ("settings_fit_the_cluster", settings("[projects.new]", '[projects.new]\nanon_key = "x"')),
    ("settings_fit_the_cluster", settings("[rollout]", "[rollout]\npercentage = 10")),
    ("settings_fit_the_cluster", settings('configmap = "cutover-rollout"', 'configmap = "rollout"')),
    ("settings_fit_the_cluster", settings('peers = "cutover-replicas:8001"', 'peers = "cutover:8001"')),
    ("settings_fit_the_cluster", edit("Service", "spec/clusterIP", None, "cutover-replicas")),
    ("settings_fit_the_cluster", edit("Deployment", f"{CONTAINER}/env", [{"name": "CUTOVER_KUBERNETES__CONFIGMAP", "value": ""}])),
    ("replicas_are_many", edit("HorizontalPodAutoscaler", "spec/minReplicas", 1)),
    ("replicas_are_many", edit("HorizontalPodAutoscaler", "spec/scaleTargetRef/name", "other")),
    ("replicas_are_many", edit("Deployment", "spec/replicas", 3)),
    ("replicas_are_many", edit("PodDisruptionBudget", "spec/maxUnavailable", "50%")),
    ("the_number_is_not_reset", add(NUMBER)),
    ("the_policy_is_narrow", edit("NetworkPolicy", "spec/policyTypes", ["Ingress"])),
    ("the_policy_is_narrow", edit("NetworkPolicy", "spec/ingress/1/from", None)),
    ("the_policy_is_narrow", edit("NetworkPolicy", "spec/egress/1/ports", None)),
    ("kinds_are_stable", edit("HorizontalPodAutoscaler", "apiVersion", "autoscaling/v2beta2")),
    ("kinds_are_stable", edit("Service", "metadata/namespace", "default", "cutover")),
    ("kinds_are_stable", add(SECRET)),
]


class Checks(unittest.TestCase):
    """A check that can't fail is none."""

    def test_each_notices_what_it_is_there_for(self):
        for number, (check_name, change) in enumerate(BROKEN):
            with self.subTest(check=check_name, number=number):
                objects = Objects(copy.deepcopy(rendered("overlays/example")))
                change(objects)
                self.assertTrue(
                    any(fault.startswith(f"{check_name}: ") for fault in faults(objects)),
                    f"change {number} is not noticed by {check_name}: {faults(objects)}",
                )

    def test_each_has_something_to_notice(self):
        self.assertEqual({name for name, _ in BROKEN}, {check.__name__ for check in CHECKS})


if __name__ == "__main__":
    unittest.main()
