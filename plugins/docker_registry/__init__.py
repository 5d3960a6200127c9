"""A hook for image registries, and the connection type `docker_registry` with its form and its check.

This file imports nothing: Airflow reads form.py in every process, and only a task that asks a registry needs hook.py.
"""
