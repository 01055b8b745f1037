"""What no schema knows: whether the objects fit each other, and whether they are as narrow as they claim to be.

Each check takes the rendered objects of one kustomization and yields its faults as text.
"""

import re
import tomllib

UNSTABLE = ("alpha", "beta")


def labels_match(objects):
    """Whatever selects the pods selects the Deployment's."""
    deployment = objects.one("Deployment")
    pods = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = {"Deployment": deployment["spec"]["selector"]["matchLabels"]}
    for service in objects.of("Service"):
        selectors[f"Service {service['metadata']['name']}"] = service["spec"]["selector"]
    for budget in objects.of("PodDisruptionBudget"):
        selectors["PodDisruptionBudget"] = budget["spec"]["selector"]["matchLabels"]
    for policy in objects.of("NetworkPolicy"):
        selectors["NetworkPolicy"] = policy["spec"]["podSelector"]["matchLabels"]
    for spread in objects.pod().get("topologySpreadConstraints", []):
        selectors[f"spread over {spread['topologyKey']}"] = spread["labelSelector"]["matchLabels"]
    for what, selector in selectors.items():
        if not selector or not selector.items() <= pods:
            yield f"{what} selects {selector}, the pods are {dict(pods)}"


def services_are_selected(objects):
    """The monitor finds exactly the headless Service, and its port."""
    for monitor in objects.of("ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        found = [item for item in objects.of("Service") if selector.items() <= item["metadata"]["labels"].items()]
        if [item["metadata"]["name"] for item in found] != ["cutover-replicas"]:
            yield f"ServiceMonitor selects {[item['metadata']['name'] for item in found]}"
            continue
        ports = {port["name"] for port in found[0]["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in ports:
                yield f"ServiceMonitor scrapes port {endpoint['port']}, the Service has {ports}"
            if not endpoint["path"] == "/metrics":
                yield f"ServiceMonitor scrapes {endpoint['path']}"
            credentials = endpoint.get("authorization", {}).get("credentials", {})
            if credentials != {"name": secret_name(objects), "key": "CUTOVER_ADMIN_TOKEN"}:
                yield f"ServiceMonitor presents {credentials}: the admin port wants its token"


def secret_name(objects):
    (source,) = objects.container()["envFrom"]
    return source["secretRef"]["name"]


def ports_have_names(objects):
    """Probes, Services and policies name ports that the container has; and the settings listen there."""
    ports = {port["name"]: port["containerPort"] for port in objects.container()["ports"]}
    used = {}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        used[probe] = objects.container().get(probe, {}).get("httpGet", {}).get("port")
        if used[probe] != "admin":
            yield f"{probe} asks port {used[probe]}, not admin"
    for service in objects.of("Service"):
        for port in service["spec"]["ports"]:
            used[f"Service {service['metadata']['name']}"] = port["targetPort"]
    for policy in objects.of("NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            for port in rule["ports"]:
                used[f"NetworkPolicy {port['port']}"] = port["port"]
    for what, port in used.items():
        if port not in ports:
            yield f"{what} uses port {port}, the container has {sorted(ports)}"
    settings = config(objects)
    for name, listen in (("http", settings["listen"]), ("admin", settings["admin"]["listen"])):
        if listen != f"0.0.0.0:{ports.get(name)}":
            yield f"the settings listen on {listen}, port {name} is {ports.get(name)}"


def probes_ask_the_right_things(objects):
    container = objects.container()
    for probe, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        asked = container.get(probe, {}).get("httpGet", {}).get("path")
        if asked != path:
            yield f"{probe} asks {asked}, not {path}"


def stopping_has_time(objects):
    """The pod leaves the Services, then drains, and only then its time is over."""
    pause = objects.container().get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    drain = config(objects).get("drain_timeout", "30s")
    grace = objects.pod().get("terminationGracePeriodSeconds", 30)
    if pause < 5:
        yield f"preStop waits {pause} s: nodes that have not heard yet still send clients here"
    if grace < pause + int(drain.removesuffix("s")) + 5:
        yield f"{grace} s of grace for preStop ({pause} s) and drain_timeout ({drain})"


def nothing_is_privileged(objects):
    """What the Pod Security Standard `restricted` asks for, and a read-only root."""
    pod, container = objects.pod(), objects.container()
    of_pod, of_container = pod.get("securityContext", {}), container.get("securityContext", {})
    wanted = {
        "runAsNonRoot": of_pod.get("runAsNonRoot") is True,
        "runAsUser": of_pod.get("runAsUser", 0) > 0 and "runAsUser" not in of_container,
        "seccompProfile": of_pod.get("seccompProfile") == {"type": "RuntimeDefault"} and "seccompProfile" not in of_container,
        "allowPrivilegeEscalation": of_container.get("allowPrivilegeEscalation") is False,
        "readOnlyRootFilesystem": of_container.get("readOnlyRootFilesystem") is True,
        "capabilities": of_container.get("capabilities") == {"drop": ["ALL"]},
        "privileged": not of_container.get("privileged", False),
        "host": not [key for key in pod if key.startswith("host")],
        "hostPort": not [port for port in container["ports"] if "hostPort" in port],
        "volumes": all(set(volume) - {"name"} <= {"configMap", "secret", "emptyDir", "projected"} for volume in pod["volumes"]),
        "initContainers": "initContainers" not in pod,
    }
    for what, holds in wanted.items():
        if not holds:
            yield f"the pod is not restricted: {what}"


def the_role_is_narrow(objects):
    """The account may touch one ConfigMap, and holds a token only if it may."""
    rules = [rule for role in objects.of("Role") for rule in role["rules"]]
    if objects.of("ClusterRole") or objects.of("ClusterRoleBinding"):
        yield "a right in the whole cluster"
    for rule in rules:
        if rule.get("apiGroups") != [""] or rule.get("resources") != ["configmaps"] or rule.get("resourceNames") != [number_name(objects)]:
            yield f"the Role grants more than the ConfigMap with the number: {rule}"
        if extra := set(rule["verbs"]) - {"get", "list", "watch", "patch"}:
            yield f"the Role grants {sorted(extra)}"
        if missing := {"get", "list", "watch", "patch"} - set(rule["verbs"]):
            yield f"the Role lacks {sorted(missing)}"
    if len(objects.of("RoleBinding")) != len(objects.of("Role")):
        yield "a Role for nobody, or a RoleBinding to nothing"
    for binding in objects.of("RoleBinding"):
        if binding["roleRef"]["name"] != objects.one("Role")["metadata"]["name"]:
            yield "the RoleBinding names another Role"
        account = objects.one("ServiceAccount")["metadata"]
        subject = {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
        if binding["subjects"] != [subject]:
            yield f"the RoleBinding is for {binding['subjects']}"
    if objects.pod()["serviceAccountName"] != objects.one("ServiceAccount")["metadata"]["name"]:
        yield "the pods run under another account"
    if objects.one("ServiceAccount").get("automountServiceAccountToken") is not False:
        yield "whoever uses the account is given its token"
    if objects.pod().get("automountServiceAccountToken") is not bool(rules):
        yield f"the token is mounted: {objects.pod().get('automountServiceAccountToken')}, there is something to use it for: {bool(rules)}"


def number_name(objects):
    """The ConfigMap that is mounted as the watched directory."""
    watched = config(objects)["rollout"]["watch_dir"]
    mounts = {mount["mountPath"]: mount["name"] for mount in objects.container()["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in objects.pod()["volumes"]}
    return volumes[mounts[watched]]["configMap"]["name"]


def config(objects):
    """config.toml, found as the pod finds it."""
    container = objects.container()
    path = container["args"][container["args"].index("--config") + 1]
    folder, _, file = path.rpartition("/")
    (volume,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == folder]
    (source,) = [item["configMap"]["name"] for item in objects.pod()["volumes"] if item["name"] == volume]
    return tomllib.loads(objects.one("ConfigMap", source)["data"][file])


def settings_fit_the_cluster(objects):
    settings = config(objects)
    if not re.fullmatch(r"cutover-config-[a-z0-9]{10}", objects.pod()["volumes"][0]["configMap"]["name"]):
        yield "the settings' ConfigMap has no hash in its name: changed settings would not be a rolling update"
    if settings["rollout"]["audit_file"] != "":
        yield "the audit file needs a disk that can be written to"
    if not 1 <= settings.get("workers", 0) <= 16:
        yield "workers is not set: there would be one per core of the node"
    for project in ("old", "new"):
        keys = set(settings["projects"][project]) - {"url", "issuer", "jwks_url", "host", "ca"}
        if keys:
            yield f"secrets in the settings of {project}: {sorted(keys)}"
    if "token" in settings["admin"] or "override_token" in settings["rollout"]:
        yield "a token in the settings"
    if settings["kubernetes"]["configmap"] != number_name(objects):
        yield f"the API's ConfigMap is {settings['kubernetes']['configmap']}, the mounted one {number_name(objects)}"
    replicas = objects.one("Service", "cutover-replicas")
    if settings["kubernetes"]["peers"] != f"cutover-replicas:{replicas['spec']['ports'][0]['port']}":
        yield f"the replicas are looked for at {settings['kubernetes']['peers']}"
    if replicas["spec"].get("clusterIP") != "None" or not replicas["spec"].get("publishNotReadyAddresses"):
        yield "the Service of the replicas does not list each of them"
    switched_off = {"name": "CUTOVER_KUBERNETES__CONFIGMAP", "value": ""} in objects.container().get("env", [])
    if switched_off == bool(objects.of("Role")):
        yield f"the API is switched off: {switched_off}, the pods may use it: {bool(objects.of('Role'))}"
    if "percentage" in settings["rollout"]:
        yield "a percentage in the settings, which the ConfigMap's outranks: two numbers to read at night"


def replicas_are_many(objects):
    scalers = objects.of("HorizontalPodAutoscaler")
    deployment = objects.one("Deployment")
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]
        if (target["kind"], target["name"]) != ("Deployment", deployment["metadata"]["name"]):
            yield f"the autoscaler scales {target}"
        if not 2 <= scaler["spec"]["minReplicas"] <= scaler["spec"]["maxReplicas"]:
            yield "the autoscaler goes below two replicas"
        if "replicas" in deployment["spec"]:
            yield "an autoscaler, and a number of replicas: applying it again would take replicas away"
        if "cpu" not in objects.container()["resources"]["requests"]:
            yield "the autoscaler measures CPU against a request that is not there"
    if not scalers and deployment["spec"].get("replicas", 1) < 2:
        yield "less than two replicas"
    for budget in objects.of("PodDisruptionBudget"):
        if budget["spec"].get("maxUnavailable") != 1 or "minAvailable" in budget["spec"]:
            yield "the budget does not let one replica go at a time"


def the_number_is_not_reset(objects):
    """Applying an overlay again must not move users: the number's ConfigMap is made once, except where git is its only source."""
    present = [item for item in objects.of("ConfigMap") if item["metadata"]["name"] == number_name(objects)]
    if present and objects.of("Role"):
        yield "the ConfigMap with the number is applied with the rest: that would put an old number back"


def the_policy_is_narrow(objects):
    policy = objects.one("NetworkPolicy")["spec"]
    if policy["policyTypes"] != ["Ingress", "Egress"]:
        yield f"the policy covers {policy['policyTypes']}"
    for rule in policy["ingress"]:
        ports = [port["port"] for port in rule.get("ports", [])]
        if not ports:
            yield "a rule that lets anybody in by every port"
        if "admin" in ports and (not rule.get("from") or "http" in ports):
            yield "the admin port is open to everybody"
    for rule in policy["egress"]:
        if not rule.get("ports"):
            yield "a rule that lets the pods out to every port"


def kinds_are_stable(objects):
    """Nothing that only works while a feature gate is in alpha or beta, and one namespace for all."""
    for item in objects:
        if any(stage in item["apiVersion"].rpartition("/")[2] for stage in UNSTABLE):
            yield f"{item['kind']} is {item['apiVersion']}"
        if item["kind"] != "Namespace" and item["metadata"].get("namespace") != "cutover":
            yield f"{item['kind']} {item['metadata']['name']} is in namespace {item['metadata'].get('namespace')}"
        if item["kind"] == "Secret":
            yield "a Secret among what is applied"


CHECKS = (
    labels_match,
    services_are_selected,
    ports_have_names,
    probes_ask_the_right_things,
    stopping_has_time,
    nothing_is_privileged,
    the_role_is_narrow,
    settings_fit_the_cluster,
    replicas_are_many,
    the_number_is_not_reset,
    the_policy_is_narrow,
    kinds_are_stable,
)


def faults(objects):
    return [f"{check.__name__}: {fault}" for check in CHECKS for fault in check(objects)]
