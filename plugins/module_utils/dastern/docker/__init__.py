"""The Docker Engine's API: containers, streams and images.

Imports: common.
"""
