# Every image of the course, for `docker buildx bake --file images/docker-bake.hcl`, from the top folder of the repo.
# `make images` does that with the settings of .env. It is the one list: what else needs the images asks bake for them.

# --- settings, from the environment

variable "COURSE_VERSION" {} # the tag of all images: `make version` prints it
variable "BASE_IMAGE" { default = "python:3.13-slim-trixie" }
variable "HAPROXY_IMAGE" { default = "haproxy:3.0" }
variable "BUILD_CA" { default = "" }       # a file with a certificate authority of the network
variable "BUILD_PIP_CONF" { default = "" } # a file with settings for pip
variable "HTTP_PROXY" { default = null }
variable "HTTPS_PROXY" { default = null }
variable "NO_PROXY" { default = null }

# --- groups

group "default" { targets = ["tasks", "movielens-api", "docker-proxy", "airflow"] }

# what the nodes of a cluster need
group "cluster" { targets = ["tasks", "movielens-api", "airflow-kubernetes"] }

# --- images

target "_python" {
  args = { BASE_IMAGE = BASE_IMAGE, HTTP_PROXY = HTTP_PROXY, HTTPS_PROXY = HTTPS_PROXY, NO_PROXY = NO_PROXY }
  # build secrets are in no layer
  secret = concat(
    BUILD_CA == "" ? [] : ["id=ca,src=${BUILD_CA}"],
    BUILD_PIP_CONF == "" ? [] : ["id=pip.conf,src=${BUILD_PIP_CONF}"],
  )
}

# One image per task of the pipeline, each from its folder in images/. `make push` pushes these.
target "tasks" {
  inherits = ["_python"]
  matrix   = { task = ["movielens-fetch", "movielens-rank", "movielens-store"] }
  name     = task
  context  = "images/${task}"
  tags     = ["course/${task}:${COURSE_VERSION}"]
  labels   = { "course.image" = task }
}

target "movielens-api" {
  inherits = ["_python"]
  context  = "movielens-api"
  tags     = ["course/movielens-api:${COURSE_VERSION}"]
  labels   = { "course.image" = "movielens-api" }
}

target "docker-proxy" {
  context = "images/docker-proxy"
  args    = { HAPROXY_IMAGE = HAPROXY_IMAGE }
  tags    = ["course/docker-proxy:${COURSE_VERSION}"]
  labels  = { "course.image" = "docker-proxy" }
}

# Airflow: three targets of one Dockerfile.
target "airflow" {
  inherits   = ["_python"]
  matrix     = { kind = ["lean", "mixed", "kubernetes"] }
  name       = "airflow-${kind}"
  context    = "."
  dockerfile = "images/airflow/Dockerfile"
  target     = kind
  tags       = ["course/airflow-${kind}:${COURSE_VERSION}"]
  labels     = { "course.image" = "airflow-${kind}" }
}
