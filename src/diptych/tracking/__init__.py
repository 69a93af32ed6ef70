"""Runs in MLflow: a view of the files, which stay the truth.

The only importer of mlflow, and a lazy one: a training never waits for it.
"""
