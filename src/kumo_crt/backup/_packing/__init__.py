"""Files that share an object: bundles and archives."""
