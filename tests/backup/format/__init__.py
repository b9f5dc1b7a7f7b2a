"""What is in the bucket: documents, manifests, keys, sealed files; malformed and hostile ones."""
