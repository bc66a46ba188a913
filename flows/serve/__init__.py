"""A line's model behind HTTP on Ray Serve, always the version that the registry names.

`server` starts it, `replica` is the deployment, `app` its HTTP side; `versions` and `alias_poller` keep the version
in memory; `shadow` is the shadow deployment, which scores a challenger on live traffic without returning its answers.
"""
