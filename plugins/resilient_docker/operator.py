"""`ResilientDockerOperator`: a retry never meets its own orphan, and a failure says what to do about it.

The members it overrides, in the order in which they are called (docker provider 4.6.1):

    execute(context)   by Airflow. The provider's pulls the image if it is missing, or if force_pull is set, then calls
      _run_image()       which creates the container, starts it, copies its log and waits for its end
    on_kill()          by Airflow's signal handler, at any moment of the above
"""

from contextlib import suppress
from typing import Any

from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from docker.errors import APIError, NotFound  # type: ignore[import-untyped] # ships no types
from requests.exceptions import RequestException

# Whose container it is. All but the last are the same for every try of a task.
LABELS = {
    "course.dag_id": "{{ dag.dag_id }}",
    "course.run_id": "{{ run_id }}",
    "course.task_id": "{{ task.task_id }}",
    "course.map_index": "{{ ti.map_index }}",
    "course.try_number": "{{ ti.try_number }}",
}


class ResilientDockerOperator(DockerOperator):
    """Runs an image as DockerOperator does, and covers what that leaves open.

    - A killed worker leaves its container running. The labels say whose it is, and the next try removes it first.
    - A killed task fails, whatever exit code its container ends with.
    - A missing image, network or volume, or a refused login, fails the task at once, and the error says how to fix it.
    - Exit code 2, by the contract of the images, is a wrong argument or setting: another try would not help.
    - A local image that is named by its digest cannot have changed: it needs no pull, and no registry that is up.
    - Exit code 137 says little: when the memory limit was the cause, the error says so.

    :param labels: more labels of the container. Where several Airflows share an engine, one of them has to name the
        Airflow: another may have a run of the same name.
    """

    labels: dict[str, str]
    template_fields = (*DockerOperator.template_fields, "labels")  # the labels name the run

    def __init__(self, *, labels: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(labels={**(labels or {}), **LABELS}, **kwargs)
        self.killed = False

    def execute(self, context: Context) -> list[str] | str | None:
        """Check and clean up first, then run the container and explain how it failed."""
        self._normalize_mounts()
        if not self._is_pinned_and_local():
            self._log_in()
        self._remove_leftovers()
        self._check_surroundings()
        # The container must still exist when its end is looked into, so it is removed here and not by the provider.
        auto_remove, self.auto_remove = self.auto_remove, "never"
        try:
            result = super().execute(context)
        except DockerContainerFailedException as error:
            raise self._explained(error) from error
        except APIError as error:
            if self.container is None and not self.cli.images(name=self.image):
                why = f"image {self.image} is not here and cannot be pulled ({error.explanation})"
                raise AirflowFailException(f"{why}: `make images` builds those of the course") from error
            raise
        finally:
            self.auto_remove = auto_remove
            if auto_remove != "never" and self.container is not None:
                try:
                    self._remove(self.container)
                except (APIError, RequestException) as error:  # must not hide how the task ended
                    self.log.warning("container %.12s stays: %s", self.container["Id"], error)
        if self.killed:  # a container may handle SIGTERM and exit with 0
            raise AirflowException(self._killed_message())
        return result

    def _run_image(self) -> list[str] | str | None:
        """Start no container for a task that was killed while there was none to stop."""
        if self.killed:
            raise AirflowException(self._killed_message())
        return super()._run_image()

    def on_kill(self) -> None:
        """Remember the kill. Airflow goes on with execute() after its signal handler: the container is then stopped."""
        self.killed = True
        with suppress(NotFound):  # after a timeout the container is already removed
            super().on_kill()

    # --- before the container

    def _is_pinned_and_local(self) -> bool:
        """Return whether the image is named by its digest and on the engine. If so, do without the registry."""
        if "@" not in self.image:
            return False
        registry, self.docker_conn_id = self.docker_conn_id, None
        if self.cli.images(name=self.image):
            self.force_pull = False
            return True
        self.docker_conn_id = registry
        del self.hook  # cached, and connected without a login
        return False

    def _log_in(self) -> None:
        """Connect to the engine and log in to the registry. Raises an exception that names the connection."""
        try:
            self.hook.api_client  # noqa: B018 (connects when it is first read)
        except APIError as error:
            if not self.docker_conn_id:
                raise
            why = f"no login with the connection {self.docker_conn_id} ({error.explanation})"
            if "unauthorized" in error.explanation.lower():
                raise AirflowFailException(f"{why}: check its host, port, login and password") from None
            raise AirflowException(f"{why}: check its host and port, and that the registry is up") from None

    def _remove_leftovers(self) -> None:
        """Remove containers that earlier tries of this task left in this run."""
        labels = [f"{name}={value}" for name, value in self.labels.items() if name != "course.try_number"]
        for container in self.cli.containers(all=True, filters={"label": labels}):
            number = container["Labels"].get("course.try_number")
            self.log.warning("removing container %.12s, which try %s left behind", container["Id"], number)
            self._remove(container)

    def _remove(self, container: dict[str, Any]) -> None:
        with suppress(NotFound):  # it is gone already
            self.cli.remove_container(container["Id"], force=True)

    def _check_surroundings(self) -> None:
        """Raise AirflowFailException for a missing network or volume. Docker itself would create the volume."""
        try:
            if self.network_mode and not self.network_mode.startswith("container:"):
                missing = f"network {self.network_mode}"
                self.cli.inspect_network(self.network_mode)
            for mount in self.mounts:
                if mount["Type"] == "volume":
                    missing = f"volume {mount['Source']}"
                    self.cli.inspect_volume(mount["Source"])
        except NotFound:
            raise AirflowFailException(f"{missing} does not exist: `make compose-up` makes it") from None

    # --- after the container

    def _explained(self, error: DockerContainerFailedException) -> AirflowException:
        """Return the exception that says why the container failed, final if another try would fail too."""
        if self.killed:
            return AirflowException(self._killed_message())
        try:
            state = self.cli.inspect_container(self.container["Id"])["State"]
        except NotFound:
            return AirflowException("somebody removed the container while it ran")
        last_line = str(error.logs[-1]) if error.logs else "it printed nothing"
        if state["OOMKilled"]:
            limit = f"its limit of {self.mem_limit}" if self.mem_limit else "the machine has"
            return AirflowException(f"out of memory: {self.task_id} needed more than {limit}")
        if state["ExitCode"] == 2:
            return AirflowFailException(last_line)
        return AirflowException(f"the container ended with exit code {state['ExitCode']}: {last_line}")

    def _killed_message(self) -> str:
        return f"{self.task_id} was killed, and its container stopped"
