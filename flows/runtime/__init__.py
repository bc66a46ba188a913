"""What every flow needs of the machine: devices, processes, locks, retries, files elsewhere, a Ray cluster."""
