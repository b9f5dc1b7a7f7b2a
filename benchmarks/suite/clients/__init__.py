"""How each client is used at its best: same parts, its own parallelism, CRC32C where it has it."""

from __future__ import annotations

import importlib

from suite.clients.base import Client, Service, Unsupported

_MODULES = {
    "kumo_crt": ("kumo", "Kumo"),
    "awscrt": ("aws_crt", "AwsCrt"),
    "boto3": ("boto", "Boto"),
    "boto3-crt": ("boto", "BotoCrt"),
    "obstore": ("object_store", "ObjectStore"),
    "obstore-unsigned": ("object_store", "ObjectStoreUnsigned"),
    "pyarrow": ("arrow", "Arrow"),
    "minio": ("minio_py", "MinioPy"),
    "s3torchconnector": ("torch", "Torch"),
    "s5cmd": ("commands", "S5cmd"),
    "rclone": ("commands", "Rclone"),
}


def make(name: str, service: Service) -> Client:
    """Makes a client by its name."""
    module, kind = _MODULES[name]
    client: Client = getattr(importlib.import_module(f"suite.clients.{module}"), kind)(service)
    return client


__all__ = ["Client", "Service", "Unsupported", "make"]
