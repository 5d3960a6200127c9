"""k8s/ as it goes to a cluster: with the names that the images have here, and the Secrets, which are in no file."""

from typing import Any

import yaml

from course.settings import setting

NAMESPACE = "airflow"
OURS = "app.kubernetes.io/part-of=airflow-in-containers"  # a label of everything that is made here
# the names in the manifests, and the settings that may name another image
SERVICES = {"mysql": "MYSQL_IMAGE", "postgres": "POSTGRES_IMAGE"}


def named_here(built: str) -> str:
    """Give what kustomize built, YAML, with the names that the images have here."""
    return yaml.safe_dump_all(_renamed(one) for one in yaml.safe_load_all(built))


def _renamed(resource: dict[str, Any]) -> dict[str, Any]:
    """Give a resource the names that the images have here."""
    registry = f"{setting('REGISTRY').rstrip('/')}/" if setting("REGISTRY") else ""
    template = resource.get("spec", {}).get("template", {}).get("spec", {})
    for container in template.get("initContainers", []) + template.get("containers", []):
        name = container["image"].partition(":")[0]
        container["image"] = setting(SERVICES.get(name, "")) or container["image"]
        if container["image"].startswith("course/"):
            container["image"] = registry + container["image"]
            if registry:  # where a tag may move; a node that was given its images may only take those
                container["imagePullPolicy"] = "Always"
    if resource["kind"] == "ConfigMap" and registry:
        repository, template = "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY", "worker-pod.yaml"
        if repository in resource["data"]:
            resource["data"] |= {repository: registry + resource["data"][repository], "COURSE_REGISTRY": registry}
        if template in resource["data"]:
            pod = yaml.safe_load(resource["data"][template])
            for container in pod["spec"]["containers"]:
                container["imagePullPolicy"] = "Always"
            resource["data"][template] = yaml.safe_dump(pod)
    return resource


def secrets() -> dict[str, Any]:
    """Make the Secrets of k8s/README.md from .env."""
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
