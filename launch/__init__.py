"""Starts runs on TPU pods over gcloud, and several processes on one machine. docs/pods.md is the page to read first.

Run from a checkout: `python -m launch.babysit --help`.
"""
