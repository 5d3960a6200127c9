"""What the Pod Security Standard `restricted` asks of a pod, as arguments of KubernetesPodOperator."""

from typing import Any

from kubernetes.client import models as k8s

# 10001 is the user of the images. The Kubernetes API is not their concern, so they get no token for it either.
RESTRICTED: dict[str, Any] = {
    "automount_service_account_token": False,
    "security_context": k8s.V1PodSecurityContext(
        run_as_non_root=True,
        run_as_user=10001,
        run_as_group=10001,
        fs_group=10001,
        seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
    ),
    "container_security_context": k8s.V1SecurityContext(
        allow_privilege_escalation=False,
        capabilities=k8s.V1Capabilities(drop=["ALL"]),
        read_only_root_filesystem=True,
    ),
}
