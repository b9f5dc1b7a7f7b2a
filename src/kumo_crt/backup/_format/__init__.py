"""What is in the bucket: names, documents, how files are sealed; docs/format.md says it."""
