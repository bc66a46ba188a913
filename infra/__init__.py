"""Where samif runs: the services of one machine, and what describes them for containers and clusters."""
