"""DAG 05 run by Airflow on a real engine: what each task says that DockerOperator does, it does."""

import json
import os
import pickle
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.docker.operators.docker import DockerOperator
from docker.errors import NotFound
from support.dag_runs import load_dag
from support.docker_engine import TASK_UID, Engine, engine, image

from course.paths import AIRFLOW_HOME

pytestmark = pytest.mark.docker

DAG_ID = "05_docker_operator_tour"
MiB = 2**20


@pytest.fixture(scope="module")
def docker_engine() -> Iterator[Engine]:
    with engine() as one, pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_STACK", one.name)
        try:
            yield one
        finally:
            for container in one.task_containers():
                container.remove(force=True)
            for volume in one.client.volumes.list(filters={"name": one.name}):  # made by a task, so without a label
                volume.remove()


class Tour:
    """One run of the DAG: what it left in Airflow's database, and its containers as docker inspect shows them."""

    def __init__(self, docker_engine: Engine) -> None:
        dag = load_dag(DAG_ID)
        for task in dag.tasks:
            if isinstance(task, DockerOperator):
                task.labels = task.labels | {"course.task_id": task.task_id}
                if task.task_group.group_id != "auto_remove":
                    task.auto_remove = "never"  # to be looked at
        dag_run = dag.test(run_conf={"task": "movielens-store"})
        self.run_id = dag_run.run_id
        self.instances = {instance.task_id: instance for instance in dag_run.get_task_instances()}
        with closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as metadata:
            xcom = "SELECT task_id, value FROM xcom WHERE run_id = ? AND key = 'return_value'"
            self.xcom = {task: json.loads(value) for task, value in metadata.execute(xcom, [self.run_id])}
            rendered = "SELECT task_id, rendered_fields FROM rendered_task_instance_fields WHERE run_id = ?"
            self.rendered = dict(metadata.execute(rendered, [self.run_id]).fetchall())
        self.containers = {}
        for container in docker_engine.task_containers():
            self.containers[container.labels["course.task_id"]] = container.attrs


@pytest.fixture(scope="module")
def tour(docker_engine: Engine, airflow_database: None) -> Tour:
    return Tour(docker_engine)


def operator(docker_engine: Engine, **arguments: Any) -> DockerOperator:
    """Make a task as the tour's are, but of no DAG, so that its execute() can be called."""
    defaults = {
        "task_id": "alone",
        "image": image("movielens-rank"),
        "entrypoint": [],
        "command": "true",
        "network_mode": "none",
        "mount_tmp_dir": False,
        "auto_remove": "force",
        "labels": {"course.stack": docker_engine.name},
    }
    return DockerOperator(**defaults | arguments)


def test_every_task_succeeds_but_the_one_that_is_skipped(tour: Tour) -> None:
    states = {task: instance.state for task, instance in tour.instances.items()}
    assert states.pop("process.skip_on_exit_code") == "skipped"
    assert set(states.values()) == {"success"}
    assert tour.containers["process.skip_on_exit_code"]["State"]["ExitCode"] == 99


# --- templates


def test_the_image_is_a_template(tour: Tour) -> None:
    assert tour.containers["templates.image"]["Config"]["Image"] == image("movielens-store")
    assert tour.xcom["templates.image"][0] == "Usage: store-rankings [OPTIONS]"


def test_a_command_in_a_text_is_a_template_and_is_split_but_not_run_by_a_shell(tour: Tour) -> None:
    assert tour.containers["templates.command"]["Config"]["Cmd"] == ["echo", "the  run", tour.run_id, "$HOME"]
    assert tour.xcom["templates.command"] == f"the  run {tour.run_id} $HOME"


def test_each_element_of_a_command_is_a_template(tour: Tour) -> None:
    assert tour.containers["templates.command_list"]["Config"]["Cmd"] == ["echo", "the  DAG", DAG_ID]
    assert tour.xcom["templates.command_list"] == f"the  DAG {DAG_ID}"


def test_a_text_that_becomes_a_list_is_a_list(tour: Tour) -> None:
    task_id = "templates.command_list_in_a_text"
    assert tour.containers[task_id]["Config"]["Cmd"] == ["echo", "the  task", task_id]
    assert tour.xcom[task_id] == f"the  task {task_id}"


def test_a_literal_with_the_name_of_a_script_is_not_read(tour: Tour) -> None:
    assert tour.xcom["templates.command_with_a_file"] == "/opt/tour.sh"


def test_without_literal_the_name_of_a_script_is_taken_for_a_template_and_fails(
    airflow_database: None, capsys: pytest.CaptureFixture[str]
) -> None:
    dag = load_dag(DAG_ID).partial_subset("templates.command_with_a_file")
    dag.get_task("templates.command_with_a_file").command = ["echo", "/opt/tour.sh"]
    assert dag.test().state == "failed"
    assert "TemplateNotFound: '/opt/tour.sh'" in "".join(capsys.readouterr())


def test_the_environment_is_a_template(tour: Tour) -> None:
    assert tour.xcom["templates.environment"] == tour.run_id


def test_the_name_of_the_container_is_a_template(tour: Tour) -> None:
    assert (
        tour.containers["templates.container_name"]["Name"] == f"/tour-{tour.instances['templates.container_name'].id}"
    )


def test_mounts_are_templates(tour: Tour) -> None:
    assert tour.xcom["templates.mounts"].startswith(f"tmpfs /scratch/{DAG_ID} tmpfs rw")


# --- mounts


def mounted(line: str) -> tuple[str, str, list[str]]:
    """Read a line of /proc/mounts: path, kind, options."""
    _, path, kind, options, *_ = line.split()
    return path, kind, options.split(",")


def test_a_bind_mount_shows_a_folder_of_the_engine_s_machine_read_only(tour: Tour) -> None:
    path, _, options = mounted(tour.xcom["mounts.bind"])
    assert path == "/seen"
    assert "ro" in options
    [mount] = tour.containers["mounts.bind"]["Mounts"]
    assert (mount["Type"], mount["Source"], mount["RW"]) == ("bind", "/tmp", False)  # noqa: S108 (what the DAG says)


def test_a_volume_is_made_belongs_to_the_task_and_outlives_its_container(tour: Tour, docker_engine: Engine) -> None:
    [mount] = tour.containers["mounts.volume"]["Mounts"]
    assert (mount["Type"], mount["Name"], mount["RW"]) == ("volume", f"{docker_engine.name}-tour", True)
    assert tour.xcom["mounts.volume"] == "task"
    assert docker_engine.client.volumes.get(f"{docker_engine.name}-tour").attrs["Scope"] == "local"


def test_a_dict_mounts_the_same_volume(tour: Tour, docker_engine: Engine) -> None:
    [mount] = tour.containers["mounts.dict_form"]["Mounts"]
    assert (mount["Type"], mount["Name"], mount["RW"]) == ("volume", f"{docker_engine.name}-tour", False)
    assert tour.xcom["mounts.dict_form"] == tour.run_id


def test_a_tmpfs_is_memory_of_the_given_size(tour: Tour) -> None:
    path, kind, options = mounted(tour.xcom["mounts.tmpfs"])
    assert (path, kind) == ("/scratch", "tmpfs")
    assert "size=16384k" in options


def test_a_text_is_no_mount(docker_engine: Engine) -> None:
    with pytest.raises(TypeError, match="must be a mapping, not str"):
        operator(docker_engine, mounts=["/here:/there"]).execute({})


# --- XCom


def test_xcom_is_the_last_line(tour: Tour) -> None:
    assert tour.xcom["xcom.last_line"] == "three"


def test_xcom_all_is_all_lines(tour: Tour) -> None:
    assert tour.xcom["xcom.all_lines"] == ["one", "two", "three"]


def test_stderr_that_comes_last_is_the_xcom(tour: Tour) -> None:
    assert tour.xcom["xcom.stderr_comes_last"] == "warning"


def test_a_line_of_json_is_read_where_it_is_needed(tour: Tour) -> None:
    assert json.loads(tour.xcom["xcom.json_line"]) == {"path": "/data/rankings.csv", "rows": 3}
    assert tour.xcom["xcom.json_reader"] == "3"


def test_retrieve_output_is_the_object_in_the_file(tour: Tour) -> None:
    assert tour.xcom["xcom.retrieve_output"] == {"rows": 3}


class RunsOnTheWorker:
    """A pickle of this makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_retrieve_output_runs_on_the_worker_what_the_container_wrote(docker_engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "the container was here"
    written = pickle.dumps(RunsOnTheWorker(trace)).hex()
    write = f"open('/tmp/result', 'wb').write(bytes.fromhex('{written}'))"
    command = ["python3", "-c", write]
    task = operator(docker_engine, command=command, retrieve_output=True, retrieve_output_path="/tmp/result")  # noqa: S108
    assert not trace.exists()
    task.execute({})
    assert trace.is_dir()


def test_retrieve_output_of_a_missing_file_is_none_and_no_failure(docker_engine: Engine) -> None:
    task = operator(docker_engine, retrieve_output=True, retrieve_output_path="/tmp/missing")  # noqa: S108
    assert task.execute({}) is None


def test_a_function_runs_in_the_container_s_python(tour: Tour) -> None:
    assert tour.xcom["xcom.function"] == {"sum": 6, "prefix": "/opt/venv"}


# --- the process


def test_a_private_environment_is_in_docker_inspect_but_not_in_the_rendered_template(tour: Tour) -> None:
    task_id = "process.private_environment"
    assert tour.xcom[task_id] == ["xxxxxxxxx", "{{ run_id }}"]
    assert "CODE_WORD=swordfish" in tour.containers[task_id]["Config"]["Env"]
    assert "printenv CODE_WORD" in tour.rendered[task_id]
    assert "swordfish" not in tour.rendered[task_id]
    assert tour.run_id in tour.rendered["templates.environment"]


def test_working_dir_is_where_the_command_runs(tour: Tour) -> None:
    assert tour.xcom["process.working_dir"] == "/opt/venv"


def test_the_command_follows_the_entrypoint(tour: Tour) -> None:
    assert tour.xcom["process.entrypoint"] == "42"
    assert tour.containers["process.entrypoint"]["Config"]["Entrypoint"] == ["python3", "-c"]


def test_user_is_who_the_command_runs_as(tour: Tour) -> None:
    assert tour.xcom["process.user"].startswith(f"uid=65534(nobody) gid={TASK_UID}(task)")


def test_tty_is_a_terminal(tour: Tour) -> None:
    assert tour.xcom["process.tty"] == "a terminal"
    assert tour.containers["process.tty"]["Config"]["Tty"]
    assert not tour.containers["process.user"]["Config"]["Tty"]


# --- limits


def test_cpus_is_a_share_and_hides_no_processor(tour: Tour, docker_engine: Engine) -> None:
    limits = tour.containers["limits.cpus"]["HostConfig"]
    assert (limits["CpuShares"], limits["NanoCpus"], limits["CpuQuota"]) == (512, 0, 0)
    assert int(tour.xcom["limits.cpus"]) == docker_engine.client.info()["NCPU"]


def test_mem_limit_is_what_the_kernel_allows(tour: Tour) -> None:
    assert int(tour.xcom["limits.mem_limit"]) == 64 * MiB


def test_more_than_mem_limit_ends_with_137(docker_engine: Engine) -> None:
    # the limit, as much swap again, and more
    hungry = operator(
        docker_engine, mem_limit="64m", command=["python3", "-c", "b'x' * (1 << 28)"], auto_remove="never"
    )
    with pytest.raises(Exception, match="'StatusCode': 137"):
        hungry.execute({})
    container = docker_engine.client.containers.get(hungry.container["Id"])
    container.remove()
    assert container.attrs["State"]["OOMKilled"]


def test_shm_size_is_the_size_of_dev_shm(tour: Tour) -> None:
    path, kind, options = mounted(tour.xcom["limits.shm_size"])
    assert (path, kind) == ("/dev/shm", "tmpfs")  # noqa: S108 (of the container)
    assert f"size={128 * 1024}k" in options


# --- the network


def test_network_none_is_loopback_alone(tour: Tour) -> None:
    assert tour.xcom["network.none"] == ["lo"]


def test_network_bridge_has_a_way_out(tour: Tour) -> None:
    assert tour.xcom["network.bridge"] == ["eth0", "lo"]


def test_extra_hosts_are_known_by_name(tour: Tour) -> None:
    assert tour.xcom["network.extra_hosts"].split() == ["192.0.2.80", "ratings.example"]


def test_dns_is_who_is_asked_for_names(tour: Tour) -> None:
    assert {"nameserver 192.0.2.53", "search course.example"} <= set(tour.xcom["network.dns"])


# --- what becomes of the container


@pytest.mark.parametrize("value", ["success", "force"])
def test_auto_remove_leaves_nothing_of_a_success(tour: Tour, docker_engine: Engine, value: str) -> None:
    with pytest.raises(NotFound):
        docker_engine.client.containers.get(tour.xcom[f"auto_remove.{value}"])


def test_without_auto_remove_the_container_stays_until_somebody_removes_it(tour: Tour, docker_engine: Engine) -> None:
    assert tour.xcom["auto_remove.remove_container"] == "exited"
    with pytest.raises(NotFound):
        docker_engine.client.containers.get(tour.xcom["auto_remove.never"])


@contextmanager
def out_of_time_when_ready(docker_engine: Engine) -> Iterator[None]:
    """Let the time of each task be over, by the signal of its timer, once its container says that it is ready."""
    over, late = threading.Event(), set()

    def look() -> None:
        while not over.wait(0.05):
            for container in docker_engine.client.containers.list(filters={"name": docker_engine.name}):
                if container.id not in late and container.logs() == b"ready\n":
                    late.add(container.id)
                    os.kill(os.getpid(), signal.SIGALRM)

    before, looking = signal.getsignal(signal.SIGALRM), threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def left(docker_engine: Engine, airflow_database: None) -> dict[str, str]:
    """What two runs leave: one whose containers fail, and one whose tasks run out of time. Name to state."""
    for end, command in (("failed", "sh -c 'exit 3'"), ("late", "sh -c 'trap exit TERM; echo ready; sleep 60 & wait'")):
        dag = load_dag(DAG_ID).partial_subset(["auto_remove.never", "auto_remove.success", "auto_remove.force"])
        for task in dag.tasks:
            task.command, task.container_name = command, f"{docker_engine.name}-{task.auto_remove}-{end}"
            task.execution_timeout = timedelta(minutes=1)
        with out_of_time_when_ready(docker_engine):
            dag_run = dag.test()
        assert [instance.state for instance in dag_run.get_task_instances()] == ["failed"] * 3
    found = {}
    for container in docker_engine.client.containers.list(all=True, filters={"name": docker_engine.name}):
        found[container.name.removeprefix(f"{docker_engine.name}-")] = container.status
        container.remove(force=True)
    return found


def test_auto_remove_of_a_failed_container_spares_it_only_with_never(left: dict[str, str]) -> None:
    assert {name: state for name, state in left.items() if "failed" in name} == {"never-failed": "exited"}


def test_auto_remove_of_a_container_that_still_runs_needs_force(left: dict[str, str]) -> None:
    states = {name: state for name, state in left.items() if "late" in name}
    assert states == {"never-late": "exited", "success-late": "running"}


@pytest.mark.parametrize("value", [True, False])
def test_auto_remove_is_no_yes_or_no_any_more(docker_engine: Engine, value: bool) -> None:
    with pytest.raises(ValueError, match="expected one of 'never', 'success', or 'force'"):
        operator(docker_engine, auto_remove=value)


# --- instead of deferring


def test_docker_operator_cannot_be_deferred(docker_engine: Engine) -> None:
    with pytest.raises(TypeError, match="deferrable"):
        operator(docker_engine, deferrable=True)


def test_a_detached_container_is_waited_for_and_removed(tour: Tour, docker_engine: Engine) -> None:
    with pytest.raises(NotFound):
        docker_engine.client.containers.get(tour.xcom["instead_of_deferring.start"])
    assert tour.xcom["instead_of_deferring.remove_container"] == "exited"


def test_the_sensor_holds_no_slot_while_the_container_runs(docker_engine: Engine) -> None:
    sensor = load_dag(DAG_ID).get_task("instead_of_deferring.ended")
    assert sensor.mode == "reschedule"
    # it needs input to end
    container = docker_engine.create(image("movielens-rank"), "cat", entrypoint=[], stdin_open=True)
    container.start()
    assert sensor.python_callable(container.id) is False
    container.remove(force=True)


def test_a_detached_container_that_fails_fails_the_run_and_is_removed(
    docker_engine: Engine, airflow_database: None, capsys: pytest.CaptureFixture[str]
) -> None:
    dag = load_dag(DAG_ID).partial_subset("instead_of_deferring.")
    sensor = dag.get_task("instead_of_deferring.ended")
    look, seen = sensor.python_callable, []

    def look_after_a_kill(container_id: str) -> bool:
        container = docker_engine.client.containers.get(container_id)
        seen.append(container)
        container.kill()
        container.wait()
        return look(container_id)

    sensor.python_callable = look_after_a_kill
    dag_run = dag.test()
    states = {instance.task_id.split(".")[1]: instance.state for instance in dag_run.get_task_instances()}
    assert states == {"start": "success", "ended": "failed", "remove_container": "success"}
    assert dag_run.state == "failed"
    assert "RuntimeError: the container ended with exit code 137" in "".join(capsys.readouterr())
    with pytest.raises(NotFound):
        seen[0].reload()
