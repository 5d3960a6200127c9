"""DockerOperator for tasks that may be killed and tried again at any moment."""

from resilient_docker.operator import ResilientDockerOperator

__all__ = ["ResilientDockerOperator"]
