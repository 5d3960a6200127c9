# Every command of the course. `make` alone prints them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON := >=3.11,<3.15
PROJECTS := movielens-api images/movielens-fetch images/movielens-rank images/movielens-store

# uv where it is there already, else one of our own in .uv
UV := $(or $(shell command -v uv),.uv/bin/uv)
# a mirror that pip is set to use serves uv too
INDEX := $${PIP_INDEX_URL:-$$(python3 -m pip config get global.index-url 2> /dev/null || true)}
PIP_INSTALL := UV_DEFAULT_INDEX="$(INDEX)" $(UV) pip install --quiet --compile-bytecode

.PHONY: help
help: ## print these lines
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- the course

COURSE := .venv/bin/course
EMBEDDED := .venv/.run movielens-api/.venv/.run
STARTED := $(shell date +%s)

.PHONY: run top doctor bench
run: $(EMBEDDED) ## fetch, rank and store a month of ratings, here and now (MONTH=2019-01 MONTHS=1 PROFILE=100k)
	@$(COURSE) run --started $(STARTED) $(if $(MONTH),--month '$(MONTH)') $(if $(MONTHS),--months '$(MONTHS)') $(if $(PROFILE),--profile '$(PROFILE)')

top: .venv/.run ## show a stored ranking (MONTH=, default: the latest)
	@$(COURSE) top $(if $(MONTH),--month '$(MONTH)') $(if $(PROFILE),--profile '$(PROFILE)')

doctor: .venv/.run ## check what this machine has and lacks, with a fix for each
	@$(COURSE) doctor

bench: .venv/.dev $(PROJECTS:%=%/.venv/.run) ## measure the numbers of the course again (ONLY="100k 1m 25m tasks")
	@$(COURSE) bench $(ONLY)

# --- the stack: docker-compose.yaml

.PHONY: version env images offline-images push compose-up compose-down compose-clean airflow registry-check dag-run
version: .venv/.run ## print the version, which is the tag of all images (COURSE_VERSION= or a line in .env chooses another)
	@$(COURSE) version

env: .venv/.run ## make .env with passwords for this machine; change nothing that is in it
	@$(COURSE) env

images: .venv/.run ## build the images whose inputs changed, and show their sizes
	@$(COURSE) images

push: .venv/.run ## tag the task images and push them to the registry of the stack, and show their digests
	@$(COURSE) push

offline-images: .venv/.run ## build the base and the service images from Debian's packages, where no registry can be reached
	@ci/offline-images/build.sh
	@$(COURSE) env $(foreach pair,$(OFFLINE),--image $(pair))

OFFLINE := BASE_IMAGE=course/base:trixie HAPROXY_IMAGE=course/haproxy:3.0 POSTGRES_IMAGE=course/postgres:17 \
	REDIS_IMAGE=course/redis:8.0 MYSQL_IMAGE=course/mysql:11.8 REGISTRY_IMAGE=course/registry:2.8

compose-up: .venv/.run ## start the whole stack, wait until it is healthy, print the address and the login
	@$(COURSE) compose-up

compose-down: .venv/.run ## stop the stack; its data stay
	@$(COURSE) compose-down

compose-clean: .venv/.run ## remove the stack with its data, its images and .env (FORCE=1: do not ask)
	@$(COURSE) compose-clean $(if $(FORCE),--force)

airflow: .venv/.run ## run Airflow's CLI in the stack (ARGS="dags list")
	@$(COURSE) airflow $(ARGS)

registry-check: .venv/.run ## try a connection to an image registry and explain the answer (CONN=course_registry)
	@$(COURSE) registry-check '$(or $(CONN),course_registry)'

dag-run: .venv/.run ## run a DAG in the stack or on the cluster and follow it (DAG=02_docker MONTH=2019-01 CONF='{}' ON=stack)
	@$(COURSE) dag-run --dag '$(or $(DAG),02_docker)' $(if $(MONTH),--month '$(MONTH)') \
	  $(if $(CONF),--conf '$(CONF)') $(if $(ON),--on '$(ON)') $(if $(CONTEXT),--context '$(CONTEXT)')

# --- the cluster: k8s/

.PHONY: k8s-up k8s-down
k8s-up: .venv/.run ## put the pipeline and Airflow on the current local cluster, and wait until all is ready (CONTEXT=)
	@$(COURSE) k8s-up $(if $(CONTEXT),--context '$(CONTEXT)')

k8s-down: .venv/.run ## remove from the cluster what k8s-up put there, with its data (CONTEXT=)
	@$(COURSE) k8s-down $(if $(CONTEXT),--context '$(CONTEXT)')

# --- the tests

.PHONY: test lint types
test: .venv/.dev $(PROJECTS:%=%/.venv/.dev) ## run every check and every suite (REQUIRE=docker,kubernetes: what cannot run is a failure)
	@.venv/bin/python tests/run.py $(PROJECTS)

lint: .venv/.dev
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .
	@.venv/bin/hadolint $$(git ls-files --cached --others --exclude-standard '*Dockerfile')
	@.venv/bin/shellcheck $$(git ls-files --cached --others --exclude-standard '*.sh' .ci/run)
	@.venv/bin/yamllint --strict $$(git ls-files --cached --others --exclude-standard '*.yaml' '*.yml')
	@.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yaml
	@workflows=$$(git ls-files --cached --others --exclude-standard '.github/workflows/*.yml'); \
	if [ -n "$$workflows" ]; then \
	  .venv/bin/check-jsonschema --builtin-schema vendor.github-workflows $$workflows && \
	  .venv/bin/zizmor --offline --quiet --no-progress $$workflows; \
	fi

types: .venv/.dev $(PROJECTS:%=%/.venv/.dev)
	@.venv/bin/mypy course
	@MYPYPATH=plugins .venv/bin/mypy plugins
	@for project in $(PROJECTS); do .venv/bin/mypy --python-executable $$project/.venv/bin/python $$project/src; done

# --- environments: one for Airflow and the course, one for each project. A stamp file says what is installed.

.uv/bin/uv: requirements-uv.txt
	@echo "getting uv, which installs the rest" >&2
	@python3 -m venv .uv
	@.uv/bin/pip install --quiet --require-hashes -r $<
	@touch $@

.venv/.run: requirements.txt pyproject.toml images/movielens-rank/pyproject.toml | $(UV)
	@echo "installing Airflow and what the mixed version needs (once)" >&2
	@$(UV) venv --quiet --allow-existing --python "$(PYTHON)" .venv
	@$(PIP_INSTALL) --python .venv --require-hashes -r requirements.txt
	@$(PIP_INSTALL) --python .venv --no-deps -e . -e images/movielens-rank
	@touch $@

.venv/.dev: requirements-dev.txt .venv/.run
	@echo "installing the development tools (once)" >&2
	@$(PIP_INSTALL) --python .venv --require-hashes -r $<
	@touch $@

%/.venv/.run: %/requirements.txt %/pyproject.toml | $(UV)
	@echo "installing $* (once)" >&2
	@$(UV) venv --quiet --allow-existing --python "$(PYTHON)" $*/.venv
	@$(PIP_INSTALL) --python $*/.venv --require-hashes -r $<
	@$(PIP_INSTALL) --python $*/.venv --no-deps -e $*
	@touch $@

%/.venv/.dev: %/requirements-test.txt %/.venv/.run
	@$(PIP_INSTALL) --python $*/.venv --require-hashes -r $<
	@touch $@

# --- locks: versions and hashes in pip's format, without any index's address

RANK := images/movielens-rank/pyproject.toml
AIRFLOW := images/airflow/pyproject.toml
COMPILE := UV_DEFAULT_INDEX="$(INDEX)" $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-annotate --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

.PHONY: lock
lock: | $(UV) ## renew every lock file from its pyproject.toml (UPGRADE=1: to the newest versions)
	echo uv | $(COMPILE) --python-version 3.11 - -o requirements-uv.txt
	$(COMPILE) --python-version 3.11 pyproject.toml $(RANK) -o requirements.txt
	$(COMPILE) --python-version 3.11 pyproject.toml $(RANK) --extra dev -c requirements.txt -o requirements-dev.txt
	for project in $(PROJECTS); do \
	  $(COMPILE) --python-version 3.11 $$project/pyproject.toml -o $$project/requirements.txt; \
	  $(COMPILE) --python-version 3.11 $$project/pyproject.toml --extra test -c $$project/requirements.txt -o $$project/requirements-test.txt; \
	done
	$(COMPILE) --python-version 3.13 $(AIRFLOW) -o images/airflow/requirements.txt
	$(COMPILE) --python-version 3.13 $(AIRFLOW) $(RANK) --extra mixed -c images/airflow/requirements.txt -o images/airflow/requirements-mixed.txt
