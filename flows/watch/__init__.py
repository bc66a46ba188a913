"""`samif watch`: monitoring of the live version and of a stream of images. It raises alarms and changes nothing.

`reference` observes ordinary images, `stream` the images of the camera, `replay` scores the version again; `history`
records all of it, `watcher` runs one poll, `webhook` and `metrics` export alarms and levels.
"""
