"""A line's model behind HTTP on Ray Serve, following what is live in the registry.

`server` starts it, `replica` is the deployment, `app` its HTTP side; `versions` and `follower` keep the right version
in memory, `shadow` lets a second head score the same proposals.
"""
