"""Statistics of single images, control charts over a stream of images, and the actions that alarms recommend.

Pure statistics and rules; `flows.watch` reads the images and sends the alarms.
"""
