"""`samif watch`: the live version and the images of its line, looked at again and again. It tells, and changes
nothing.

`reference` says what is normal, `stream` what the camera has brought, `replay` whether the version still is what it
was; `history` keeps all of it, `watcher` brings it together, `webhook` and `metrics` tell others.
"""
