"""KubernetesPodOperator for tasks that may be killed and tried again at any moment."""

from resilient_kubernetes.operator import ResilientKubernetesPodOperator

__all__ = ["ResilientKubernetesPodOperator"]
