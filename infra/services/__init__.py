"""Real services on this machine's loopback: PostgreSQL, S3 by Ceph, MLflow and Ray, each in a module of its own.

`make services` starts them together (`infra.services.stack`); tests start those that they need.
"""
