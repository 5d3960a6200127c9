# Airflow for the cluster: the lean image with the DAGs in it, since no folder of the learner's is on a node.
# The build context is dags/: docker build -f images/airflow/kubernetes.Dockerfile dags
ARG AIRFLOW_IMAGE=course/airflow-lean:0.1.0
FROM ${AIRFLOW_IMAGE}
# All settings come from the environment. Where this file is missing, Airflow writes one, and on the cluster it may not write here.
RUN touch /opt/airflow/airflow.cfg
# kubernetes.Dockerfile.dockerignore says which
COPY . /opt/airflow/dags/
# The executor, and the official chart too, give the whole command: `python -m ...`, `airflow scheduler`.
ENTRYPOINT []
CMD ["airflow", "--help"]
LABEL org.opencontainers.image.title="course/airflow kubernetes" \
      org.opencontainers.image.description="Airflow that only starts pods, with its DAGs" \
      org.opencontainers.image.licenses="Apache-2.0"
