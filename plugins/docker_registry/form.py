"""What Airflow's connection form shows for the type `docker_registry`.

Airflow learns of connection types from packages only, by the entry point `apache_airflow_provider`; a plugin cannot
register one. The folder course_docker_registry-1.0.dist-info makes this folder a package, without an installation.
"""

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Describe the connection type. Airflow calls this in every process, so it is apart from the hook's imports."""
    return {
        "package-name": "course-docker-registry",
        "name": "Docker Registry",
        "description": "An image registry: its repositories, tags and digests.",
        "connection-types": [
            {
                "connection-type": "docker_registry",
                "hook-class-name": "docker_registry.hook.DockerRegistryHook",
                "hook-name": "Docker Registry",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {"host": "Registry URL", "login": "Username"},
                    "placeholders": {
                        "host": "registry.example.org, or http://127.0.0.1:5000",
                        "login": "_json_key for a JSON key",
                    },
                },
                "conn-fields": {
                    "api_url": _field("API URL", "Where Airflow reaches the registry, if not at the engine's address."),
                    "ca_cert": _field("CA certificates", "File in PEM format to verify the registry with."),
                    "insecure": _field("Insecure", "Do not verify the certificate of the registry.", "boolean"),
                    "email": _field("Email", "For DockerHook's login."),
                    "reauth": _field("Reauthenticate", "Whether DockerHook logs in anew each time.", "boolean"),
                },
            }
        ],
    }


def _field(label: str, description: str, kind: str = "string") -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"]}}
