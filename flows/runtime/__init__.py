"""Machine and network: devices, processes, locks, retries, logging, remote files, a Ray cluster."""
