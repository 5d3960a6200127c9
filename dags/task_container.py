"""DockerOperator as this course runs it: a retry never meets its own orphan, and a failure says what to do about it."""

from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from docker.errors import APIError, NotFound

LABELS = {
    "course.dag_id": "{{ dag.dag_id }}",
    "course.run_id": "{{ run_id }}",
    "course.task_id": "{{ task.task_id }}",
    "course.try_number": "{{ ti.try_number }}",
}


class TaskContainer(DockerOperator):
    """Runs an image as DockerOperator does, and covers what it leaves open (docker provider 4.6).

    - A killed worker leaves its container running. The labels say whose it is, and the next try removes it first.
    - A missing image, network or volume fails the task at once, with the command that mends it.
    - Exit code 2, by the contract of the images, is a wrong argument or setting: trying again would not help.
    - Exit code 137 says little: when the memory limit was the cause, so does the error.
    """

    template_fields = (*DockerOperator.template_fields, "labels")

    def __init__(self, **kwargs):
        super().__init__(labels=dict(LABELS), **kwargs)

    def execute(self, context):
        self._remove_leftovers()
        self._check_surroundings()
        # The container has to be there still when its end is looked into, so it is removed here, not by super().
        keep, self.auto_remove = self.auto_remove, "never"
        try:
            return super().execute(context)
        except DockerContainerFailedException as error:
            raise self._explained(error) from error
        except APIError as error:
            if self.container is None:  # it did not come to a container: the image could not be had
                why = f"image {self.image} is not here and cannot be pulled ({error.explanation})"
                raise AirflowFailException(f"{why}: `make images` builds it") from error
            raise
        finally:
            self.auto_remove = keep
            if keep == "force" and self.container is not None:
                self.cli.remove_container(self.container["Id"], force=True)

    def _remove_leftovers(self):
        """Remove containers of earlier tries of this task in this run."""
        mine = [f"{label}={self.labels[label]}" for label in ("course.dag_id", "course.run_id", "course.task_id")]
        for container in self.cli.containers(all=True, filters={"label": mine}):
            number = container["Labels"].get("course.try_number")
            self.log.warning("removing container %.12s, which try %s left behind", container["Id"], number)
            self.cli.remove_container(container["Id"], force=True)

    def _check_surroundings(self):
        """Raise AirflowFailException for a missing network or volume. Docker itself would make the volume."""
        try:
            if self.network_mode:
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
        state = self.cli.inspect_container(self.container["Id"])["State"]
        last_line = error.logs[-1] if error.logs else "it printed nothing"
        if state["OOMKilled"]:
            return AirflowException(f"out of memory: {self.task_id} needed more than its limit of {self.mem_limit}")
        if state["ExitCode"] == 2:
            return AirflowFailException(last_line)
        return AirflowException(f"the container ended with exit code {state['ExitCode']}: {last_line}")
