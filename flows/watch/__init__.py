"""`samif watch`: monitoring of the live version and of a stream of images. It raises alarms and changes nothing.

`reference` says what is normal, `stream` what the camera has brought, `replay` whether the version still is what it
was; `history` keeps all of it, `watcher` brings it together, `webhook` and `metrics` tell others.
"""
