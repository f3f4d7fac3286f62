"""Runs as arrays of batch jobs: what a job asks for, and the script that a batch system is given."""
