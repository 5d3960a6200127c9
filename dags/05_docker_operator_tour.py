"""A tour of DockerOperator (docker provider 4.6): one small task for each thing that people ask about it.

Trigger it by hand. Then read each task here beside its log, its XCom and its rendered template in Airflow. The comments
say what `docker run` would. No task needs another one, except where an arrow says so.
"""

import docker
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import DAG, Param, TaskGroup, literal, task
from docker.types import Mount
from movie_ratings import STACK, image

VOLUME = f"{STACK}-tour"
# They find what a killed worker leaves: docker ps --all --filter label=course.dag_id=05_docker_operator_tour
LABELS = {"course.stack": STACK, "course.dag_id": "05_docker_operator_tour"}


@task
def remove_container(container_id: str) -> str:
    """Remove a container, even a running one, and return the state it was in."""
    [container] = docker.from_env().containers.list(all=True, filters={"id": container_id})
    container.remove(force=True)
    return container.status


with DAG(
    "05_docker_operator_tour",
    schedule=None,
    params={"task": Param("movielens-fetch", enum=["movielens-fetch", "movielens-rank", "movielens-store"])},
    default_args={
        "owner": "course",
        "image": image("movielens-rank"),
        "entrypoint": [],  # --entrypoint '': the image's own is rank-movies, and the tour is not about that
        "network_mode": "none",
        "mount_tmp_dir": False,  # its default mounts a folder of the worker, which the engine may not see
        "auto_remove": "force",
        "labels": LABELS,
    },
    tags=["docker", "tour"],
    doc_md=__doc__,
):
    # Templates are filled in when the task runs. Other arguments than these five are not templates, but for env_file
    # and docker_conn_id.
    with TaskGroup("templates"):
        # docker run course/movielens-fetch:$COURSE_VERSION --help, or the image that was chosen at the trigger
        DockerOperator(
            task_id="image", image=image("{{ params.task }}"), entrypoint=None, command="--help", xcom_all=True
        )

        # A text is split into words as by a shell. But no shell runs it: no variables, no pipes, no `&&`.
        DockerOperator(task_id="command", command="echo 'the  run' {{ run_id }} $HOME")
        # Each element of a list is a template. A text that becomes a list, such as one from XCom, works too.
        DockerOperator(task_id="command_list", command=["echo", "the  DAG", "{{ dag.dag_id }}"])
        DockerOperator(task_id="command_list_in_a_text", command="{{ ['echo', 'the  task', task.task_id] }}")
        # What ends with .sh, .bash or .env is taken for a file beside the DAG, with a template in it; not a literal().
        DockerOperator(task_id="command_with_a_file", command=["echo", literal("/opt/tour.sh")])

        # --env
        DockerOperator(task_id="environment", environment={"RUN": "{{ run_id }}"}, command="printenv RUN")

        # --name. No two containers may share one, so it has to differ from run to run, and from try to try.
        DockerOperator(task_id="container_name", container_name="tour-{{ ti.id }}", command="true")

        # --mount type=tmpfs,target=/scratch/05_docker_operator_tour
        DockerOperator(
            task_id="mounts",
            mounts=[Mount(target="/scratch/{{ dag.dag_id }}", source=None, type="tmpfs")],
            command="grep /scratch /proc/mounts",
        )

    # What a container finds at a path. Texts such as "/here:/there" are an error today.
    with TaskGroup("mounts"):
        # --mount type=bind,source=/tmp,target=/seen,readonly: a folder of the machine of the engine, not of the worker
        DockerOperator(
            task_id="bind",
            mounts=[Mount(target="/seen", source="/tmp", type="bind", read_only=True)],  # noqa: S108 (every machine has it)
            command="grep /seen /proc/mounts",
        )

        # --mount type=volume,source=course-tour,target=/data. Docker makes a volume that is missing. It outlives the
        # containers, until docker volume rm. A new one takes the owner of the folder in the image.
        volume = DockerOperator(
            task_id="volume",
            mounts=[Mount(target="/data", source=VOLUME, type="volume")],
            command="sh -c 'echo {{ run_id }} > /data/note && stat --format %U /data'",
        )
        # the same volume in another container; a dict holds the arguments of Mount
        volume >> DockerOperator(
            task_id="dict_form",
            mounts=[{"target": "/data", "source": VOLUME, "type": "volume", "read_only": True}],
            command="cat /data/note",
        )

        # --mount type=tmpfs,target=/scratch,tmpfs-size=16m: memory, which goes with the container
        DockerOperator(
            task_id="tmpfs",
            mounts=[Mount(target="/scratch", source=None, type="tmpfs", tmpfs_size="16m")],
            command="grep /scratch /proc/mounts",
        )

    # What a task passes on, besides files.
    with TaskGroup("xcom"):
        # the last line of the output, as a text
        DockerOperator(task_id="last_line", command="sh -c 'echo one; echo two; echo three'")
        # all lines, as a list; it goes into Airflow's database, so not for much output
        DockerOperator(task_id="all_lines", command="sh -c 'echo one; echo two; echo three'", xcom_all=True)
        # stderr is in the same stream, and so in the log and in XCom: what is passed on here is the warning
        DockerOperator(task_id="stderr_comes_last", command="sh -c 'echo result; sleep 0.5; echo warning >&2'")

        # To be preferred: one line of JSON, printed last, and read where it is needed.
        json_line = DockerOperator(task_id="json_line", command=["echo", '{"path": "/data/rankings.csv", "rows": 3}'])
        json_line >> DockerOperator(
            task_id="json_reader",
            command=["echo", "{{ macros.json.loads(ti.xcom_pull('xcom.json_line')).rows }}"],
        )

        # A file of the container, which the worker unpickles. To be avoided, for two reasons. To unpickle is to run
        # what the file says: an image that you do not trust gets the worker, with its connections. And when there is no
        # such file, or the engine does not give it, the result is None and the task a success. So it is in the stack of
        # this course: its proxy lets a worker take no files out of containers, since it cannot tell whose they are.
        DockerOperator(
            task_id="retrieve_output",
            command=["python3", "-c", "import pickle; pickle.dump({'rows': 3}, open('/tmp/result', 'wb'))"],
            retrieve_output=True,
            retrieve_output_path="/tmp/result",  # noqa: S108 (of the container)
        )

        # A function, run in a container. It sees nothing else of this file: its source and its arguments travel in
        # environment variables. Its result comes back as a pickle, so all that was said above holds for it. The image
        # needs bash and python3, and no entrypoint in their way.
        @task.docker
        def function(numbers: list[int]) -> dict:
            import sys

            return {"sum": sum(numbers), "prefix": sys.prefix}

        function([1, 2, 3])

    # How the command runs.
    with TaskGroup("process"):
        # --env, kept out of the rendered template. But docker inspect shows it, and a value that stands in a DAG file,
        # as here, is under Code. It is not a template either. Better is a file on a volume, as in DAG 02.
        DockerOperator(
            task_id="private_environment",
            private_environment={"CODE_WORD": "swordfish", "RUN": "{{ run_id }}"},
            command="sh -c 'printenv CODE_WORD | tr a-z x; printenv RUN'",
            xcom_all=True,
        )

        # --workdir /opt/venv
        DockerOperator(task_id="working_dir", working_dir="/opt/venv", command="pwd")
        # --entrypoint python3: the command is what follows it
        DockerOperator(task_id="entrypoint", entrypoint=["python3", "-c"], command=["print(6 * 7)"])
        # --user 65534:10001
        DockerOperator(task_id="user", user="65534:10001", command="id")
        # --tty, a terminal: for programs that hide or hold back what they print when they have none
        DockerOperator(task_id="tty", tty=True, command="sh -c '[ -t 1 ] && echo a terminal'")
        # an exit code by which the command says that there is nothing to do: the task is skipped, not failed
        DockerOperator(task_id="skip_on_exit_code", command="sh -c 'exit 99'", skip_on_exit_code=99)

    with TaskGroup("limits"):
        # --cpu-shares 512, and not --cpus: half a share when others want the processors too. All are there.
        DockerOperator(task_id="cpus", cpus=0.5, command="nproc")
        # --memory 64m: who needs more is killed, with exit code 137 (the file has another name in cgroup v1)
        DockerOperator(
            task_id="mem_limit",
            mem_limit="64m",
            command="sh -c 'cd /sys/fs/cgroup; cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes'",
        )
        # --shm-size 128m, here in bytes: /dev/shm, by which processes share data
        DockerOperator(task_id="shm_size", shm_size=128 << 20, command="grep /dev/shm /proc/mounts")

    with TaskGroup("network"):
        # --network none: nothing to talk to but itself
        DockerOperator(task_id="none", network_mode="none", command="ls /sys/class/net", xcom_all=True)
        # --network bridge, Docker's default. On a network of your own, as in DAG 02, containers have names too.
        DockerOperator(task_id="bridge", network_mode="bridge", command="ls /sys/class/net", xcom_all=True)
        # --add-host ratings.example:192.0.2.80
        DockerOperator(
            task_id="extra_hosts",
            extra_hosts={"ratings.example": "192.0.2.80"},
            command="getent hosts ratings.example",
        )
        # --dns 192.0.2.53 --dns-search course.example
        DockerOperator(
            task_id="dns",
            network_mode="bridge",
            dns=["192.0.2.53"],
            dns_search=["course.example"],
            command="cat /etc/resolv.conf",
            xcom_all=True,
        )

    # What happens to the container at its end. A container's host name is its id.
    with TaskGroup("auto_remove"):
        # The default: it stays, with its files and its log, until somebody removes it.
        never = DockerOperator(task_id="never", auto_remove="never", command="hostname")
        remove_container(never.output)
        # --rm: it is removed at its end, success or failure. But one that still runs when the task times out runs on.
        DockerOperator(task_id="success", auto_remove="success", command="hostname")
        # That one is removed too.
        DockerOperator(task_id="force", auto_remove="force", command="hostname")

    # DockerOperator cannot be deferred: until the container ends, it holds a slot of the worker. For the work of hours,
    # start the container and leave, then look in now and then; no slot is held in between. The price: nobody
    # writes what the container prints into Airflow's log.
    with TaskGroup("instead_of_deferring"):

        @task
        def start() -> str:
            """Start a container, as docker run --detach, and return its id."""
            container = docker.from_env().containers.run(
                image("movielens-rank"),
                ["sleep", "3"],
                entrypoint=[],
                network_mode="none",
                labels=LABELS,
                detach=True,
            )
            return container.id

        @task.sensor(mode="reschedule", poke_interval=2, timeout=600)
        def ended(container_id: str) -> bool:
            """Return whether the container has ended. Raises RuntimeError when it failed."""
            state = docker.from_env().containers.get(container_id).attrs["State"]
            if state["Status"] == "exited" and state["ExitCode"] != 0:
                raise RuntimeError(f"the container ended with exit code {state['ExitCode']}")
            return state["Status"] == "exited"

        started = start()
        # a teardown runs however the rest ended
        ended(started) >> remove_container(started).as_teardown(setups=started)
