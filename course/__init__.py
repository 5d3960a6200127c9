"""The learner's companion: one command behind the Makefile."""
