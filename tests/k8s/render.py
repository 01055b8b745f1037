"""What an operator would apply: the kustomizations of k8s/, rendered by kubectl."""

import os
import subprocess
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"

# Every kustomization that is applied as it stands; components are rendered through the example.
APPLIED = ("base", "rollout", "overlays/example", "overlays/git")


@cache
def _text(name):
    done = subprocess.run([os.environ["KUBECTL"], "kustomize", str(K8S / name)], capture_output=True, text=True)
    if done.returncode != 0 or done.stderr:
        raise AssertionError(f"k8s/{name} does not render, or not without a warning:\n{done.stderr}")
    return done.stdout


def rendered(name):
    """The objects of one kustomization, fresh ones at every call."""
    return Objects(yaml.safe_load_all(_text(name)))


class Objects(list):
    def of(self, kind):
        return [item for item in self if item["kind"] == kind]

    def one(self, kind, name=None):
        found = [item for item in self.of(kind) if name is None or item["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} of kind {kind} named {name or 'anything'}, one was expected"
        return found[0]

    def pod(self):
        return self.one("Deployment")["spec"]["template"]["spec"]

    def container(self):
        (container,) = self.pod()["containers"]
        return container
