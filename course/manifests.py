"""k8s/ as it is applied to a cluster: with the image names of this machine, and the Secrets, which are in no file."""

from typing import Any

import yaml

from course.settings import setting, version

NAMESPACE = "airflow"
OURS = "app.kubernetes.io/part-of=airflow-in-containers"  # a label of everything that is made here
# the names in the manifests, and the settings that may name another image
SERVICES = {"mysql": "MYSQL_IMAGE", "postgres": "POSTGRES_IMAGE"}


def with_local_images(built: str) -> str:
    """Return what kustomize built, YAML, with the image names of this machine: version, registry, service images."""
    registry = f"{setting('REGISTRY').rstrip('/')}/" if setting("REGISTRY") else ""
    resources = list(yaml.safe_load_all(built))
    for resource in resources:
        template = resource.get("spec", {}).get("template", {}).get("spec", {})
        for container in template.get("initContainers", []) + template.get("containers", []):
            _set_image(container, registry)
        if resource["kind"] == "ConfigMap":
            _set_worker_image(resource["data"], registry)
    return yaml.safe_dump_all(resources)


def _set_image(container: dict[str, Any], registry: str) -> None:
    name = container["image"].partition(":")[0]
    if name.startswith("course/"):
        container["image"] = f"{registry}{name}:{version()}"
        if registry:  # where a tag may move; a node that was given its images may only use those
            container["imagePullPolicy"] = "Always"
    else:
        container["image"] = setting(SERVICES.get(name, "")) or container["image"]


def _set_worker_image(data: dict[str, str], registry: str) -> None:
    """Set the image of the worker pods, which the scheduler makes from its settings and a template.

    The template is a file in a ConfigMap. Kustomize cannot change what is inside a file, so it is done here.
    """
    repository = "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY"
    if repository in data:
        data |= {"AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG": version(), "COURSE_VERSION": version()}
        data |= {repository: registry + data[repository], "COURSE_REGISTRY": registry}
    if registry and "worker-pod.yaml" in data:
        pod = yaml.safe_load(data["worker-pod.yaml"])
        for container in pod["spec"]["containers"]:
            container["imagePullPolicy"] = "Always"
        data["worker-pod.yaml"] = yaml.safe_dump(pod)


def secrets() -> dict[str, Any]:
    """Return the Secrets of k8s/README.md, made from .env."""
    postgres, mysql = setting("POSTGRES_PASSWORD"), setting("MYSQL_PASSWORD")
    contents = {
        "movielens-login": {"password": setting("MOVIELENS_PASSWORD")},
        "mysql": {"password": mysql},
        "database-login": {"url": f"mysql://course:{mysql}@mysql/movies"},
        "postgres": {"password": postgres},
        "airflow-admin": {"password": setting("AIRFLOW_PASSWORD")},
        "airflow": {
            "database-url": f"postgresql+psycopg2://airflow:{postgres}@postgres/airflow",
            "fernet-key": setting("FERNET_KEY"),
            "api-secret-key": setting("API_SECRET_KEY"),
            "jwt-secret": setting("JWT_SECRET"),
        },
    }
    label, value = OURS.split("=")
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": {label: value}},
                "stringData": content,
            }
            for name, content in contents.items()
        ],
    }
