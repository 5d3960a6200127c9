"""DockerOperator as this course runs it: a retry never meets its own orphan, and a failure says what to do about it."""

from contextlib import suppress

from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from docker.errors import APIError, NotFound
from movie_ratings import STACK
from requests.exceptions import RequestException

# Whose container it is. All but the last are the same for every try of a task.
LABELS = {
    "course.stack": STACK,  # another stack on this engine may have a run of the same name
    "course.dag_id": "{{ dag.dag_id }}",
    "course.run_id": "{{ run_id }}",
    "course.task_id": "{{ task.task_id }}",
    "course.map_index": "{{ ti.map_index }}",
    "course.try_number": "{{ ti.try_number }}",
}


class TaskContainer(DockerOperator):
    """Runs an image as DockerOperator does, and covers what it leaves open (docker provider 4.6).

    - A killed worker leaves its container running. The labels say whose it is, and the next try removes it first.
    - A killed task fails, whatever exit code its container ends with.
    - A missing image, network or volume, or a refused login, fails the task at once, and the error says what mends it.
    - Exit code 2, by the contract of the images, is a wrong argument or setting: trying again would not help.
    - An image that is here and named by its digest is what it was: it needs no pull, and no registry that is up.
    - Exit code 137 says little: when the memory limit was the cause, so does the error.
    """

    template_fields = (*DockerOperator.template_fields, "labels")

    def __init__(self, **kwargs):
        super().__init__(labels=dict(LABELS), **kwargs)
        self.killed = False

    def execute(self, context):
        self._normalize_mounts()
        if not self._is_here_for_good():
            self._log_in()
        self._remove_leftovers()
        self._check_surroundings()
        # The container has to be there still when its end is looked into, so it is removed here, not by super().
        keep, self.auto_remove = self.auto_remove, "never"
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
            self.auto_remove = keep
            if keep != "never" and self.container is not None:
                try:
                    self._remove(self.container)
                except (APIError, RequestException) as error:  # must not hide how the task ended
                    self.log.warning("container %.12s stays: %s", self.container["Id"], error)
        if self.killed:  # a container may take a SIGTERM for a good reason to end
            raise AirflowException(self._killed_message())
        return result

    def on_kill(self):
        # Airflow calls this in a signal handler; the task goes on afterwards, and finds its container stopped.
        self.killed = True
        with suppress(NotFound):  # after a timeout it is removed already
            super().on_kill()

    def _run_image(self):
        if self.killed:  # while there was no container to stop yet
            raise AirflowException(self._killed_message())
        return super()._run_image()

    def _is_here_for_good(self):
        """Tell whether the image is named by its digest and here; then forget the registry."""
        if "@" not in self.image:
            return False
        registry, self.docker_conn_id = self.docker_conn_id, None
        if self.cli.images(name=self.image):
            self.force_pull = False
            return True
        self.docker_conn_id = registry
        del self.hook  # it has connected, without a login
        return False

    def _log_in(self):
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

    def _remove_leftovers(self):
        """Remove containers of earlier tries of this task in this run."""
        mine = [f"{name}={value}" for name, value in self.labels.items() if name != "course.try_number"]
        for container in self.cli.containers(all=True, filters={"label": mine}):
            number = container["Labels"].get("course.try_number")
            self.log.warning("removing container %.12s, which try %s left behind", container["Id"], number)
            self._remove(container)

    def _remove(self, container):
        with suppress(NotFound):  # somebody else did
            self.cli.remove_container(container["Id"], force=True)

    def _check_surroundings(self):
        """Raise AirflowFailException for a missing network or volume. Docker itself would make the volume."""
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

    def _explained(self, error):
        """Turn the failure of the container into the exception that says why, and whether another try makes sense."""
        if self.killed:
            return AirflowException(self._killed_message())
        try:
            state = self.cli.inspect_container(self.container["Id"])["State"]
        except NotFound:
            return AirflowException("somebody removed the container while it ran")
        last_line = error.logs[-1] if error.logs else "it printed nothing"
        if state["OOMKilled"]:
            limit = f"its limit of {self.mem_limit}" if self.mem_limit else "the machine has"
            return AirflowException(f"out of memory: {self.task_id} needed more than {limit}")
        if state["ExitCode"] == 2:
            return AirflowFailException(last_line)
        return AirflowException(f"the container ended with exit code {state['ExitCode']}: {last_line}")

    def _killed_message(self):
        return f"{self.task_id} was killed, and its container stopped"
